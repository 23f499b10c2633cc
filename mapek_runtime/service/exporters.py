"""From settings to exporters, and to the one processor in front of them.

Each exporter is a sink with an account of its own: what is slow or gone holds up no other. Knows which
exporter a name stands for; what one does with spans is its own business, and its packages are loaded
only when it is chosen.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib import import_module
from typing import Any, Literal, TextIO
from urllib.parse import urlsplit

from opentelemetry.metrics import MeterProvider

from mapek_runtime.config import CopySettings, ExportSettings, decode, read_sources, without_secrets
from mapek_runtime.errors import ConfigError
from mapek_runtime.export import BatchSpanProcessor, OTLPSpanExporter
from mapek_runtime.export.console import ConsoleSpanExporter
from mapek_runtime.export.memory import MemorySpanExporter
from mapek_runtime.export.otlp.options import (
    read_compression,
    read_extra_headers,
    read_timeout,
    read_tls_files,
)
from mapek_runtime.export.spool import SpooledExporter
from mapek_runtime.trace.sampling.hold import Holds

__all__ = ["describe_exporters", "exporter_from_environment", "make_exporters", "make_processor"]

logger = logging.getLogger(__name__)

DEFAULT_ENDPOINTS = {"http/protobuf": "http://localhost:4318/v1/traces", "grpc": "http://localhost:4317"}
_STORE = "store"
"""What auto may come to mean besides the names of exporters."""
NO_LIMIT = 86_400.0
"""Seconds in place of "no limit", which the SDK's exporters do not know; `export.timeout` ends it before."""


def make_exporters(settings: ExportSettings, console: TextIO, *, stored: bool = False) -> tuple[Any, ...]:
    """Every exporter that is set; empty for none. Raises `ConfigError`.

    Reads certificates, so not on a running loop. The console exporter writes to `console`. `stored` says
    that a trace store, which is none of these, gets every span.
    """
    names = tuple(dict.fromkeys(_resolved(name, settings, stored=stored) for name in settings.exporters))
    if names == ("none",):
        return ()
    made = [_make(name, settings, console) for name in names if name != _STORE]
    taken = {_endpoint(settings)} if {"otlp", "otlp-sdk"} & set(names) else set()
    for each in settings.copies:
        copy = CopySettings(endpoint=each) if isinstance(each, str) else each
        if copy.endpoint in taken:
            logger.warning(
                "export.copies names %r, which gets every span already; it is left out",
                without_secrets(copy.endpoint),
            )
            continue
        taken.add(copy.endpoint)
        # Without headers of its own it gets none: those of the environment are for the first collector.
        made.append(
            _make_otlp(copy.protocol or settings.protocol, copy.endpoint, copy.headers, "export.copies")
        )
    return tuple(made)


def make_processor(
    exporters: tuple[Any, ...],
    settings: ExportSettings,
    holds: Holds | None,
    meter_provider: MeterProvider | None = None,
) -> BatchSpanProcessor:
    """The processor in front of all of them."""
    return BatchSpanProcessor(
        *exporters,
        holds=holds,
        meter_provider=meter_provider,
        max_queue_size=settings.queue_size,
        schedule_delay_millis=None if settings.delay is None else settings.delay * 1000,
        max_export_batch_size=settings.batch_size,
        export_timeout_millis=None if settings.timeout is None else settings.timeout * 1000,
    )


def describe_exporters(exporters: tuple[Any, ...]) -> str:
    """Where they send, for a log line; without secrets."""
    return " and ".join(map(_describe, exporters)) or "nobody"


def exporter_from_environment(name: Literal["otlp", "otlp-sdk"], environ: Mapping[str, str]) -> Any:
    """The exporter as `OTEL_EXPORTER_OTLP_*` alone describe it; what is wrong there is logged."""
    about = {key: text for key, text in environ.items() if key.startswith("OTEL_EXPORTER_OTLP_")}
    configuration = decode(read_sources(environ=about))
    for warning in configuration.warnings:
        logger.warning("%s", warning)
    return _make(name, configuration.settings.export, None)


def _resolved(name: str, settings: ExportSettings, *, stored: bool) -> str:
    if name != "auto":
        return name
    return "otlp" if settings.endpoint else _STORE if stored else "memory"


def _make(name: str, settings: ExportSettings, console: TextIO | None) -> Any:
    match name:
        case "console":
            return ConsoleSpanExporter(console)
        case "memory":
            return MemorySpanExporter()
        case "otlp-sdk":
            return _make_sdk(settings.protocol, _endpoint(settings))
        case _:
            return _make_otlp(settings.protocol, _endpoint(settings), None, "export.endpoint")


def _describe(exporter: Any) -> str:
    match exporter:
        case SpooledExporter():
            return f"{_describe(exporter.exporter)} (while it is away: {exporter.spool.directory})"
        case MemorySpanExporter():
            return "the memory of this process"
        case ConsoleSpanExporter():
            return "the console"
        case _:
            # The SDK's keep it to themselves.
            endpoint = getattr(exporter, "endpoint", None) or getattr(exporter, "_endpoint", "")
            kind = type(exporter)
            whose = "opentelemetry's " if kind.__module__.startswith("opentelemetry.") else ""
            return f"{without_secrets(str(endpoint))} by {whose}{kind.__name__}"


def _endpoint(settings: ExportSettings) -> str:
    # Given, and not left to the exporter: a variable that is wrong was told and counts as unset.
    return settings.endpoint or DEFAULT_ENDPOINTS[settings.protocol]


def _make_otlp(protocol: str, endpoint: str, headers: Mapping[str, str] | None, setting: str) -> Any:
    try:
        if protocol == "grpc":
            from mapek_runtime.export.otlp.grpc_exporter import OTLPGrpcSpanExporter

            return OTLPGrpcSpanExporter(endpoint=_without_path(endpoint), headers=headers)
        return OTLPSpanExporter(endpoint=endpoint, headers=headers)
    except ConfigError as error:
        raise ConfigError(f"{setting} {without_secrets(endpoint)!r}: {error}") from None


def _make_sdk(protocol: str, endpoint: str) -> Any:
    """The exporter of opentelemetry-exporter-otlp; the variables mean for it what they mean for ours.

    It would read the timeout as seconds, pass over certificates that are not there, and log headers.
    """
    if endpoint.lower().startswith("unix:") and protocol != "grpc":
        raise ConfigError(
            f"export.endpoint {endpoint!r}: otlp-sdk has no HTTP over a Unix socket; use otlp, or grpc"
        )
    timeout = read_timeout(None) or NO_LIMIT
    compression = read_compression(None)
    headers = read_extra_headers(None)
    if endpoint.lower().startswith("https:"):
        read_tls_files(None, None, None)
    try:
        if protocol == "grpc":
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as Grpc

            # Of grpc itself, which is imported only where gRPC is spoken.
            kinds: Any = import_module("opentelemetry.exporter.otlp.proto.grpc.exporter").Compression
            return Grpc(
                endpoint=_without_path(endpoint),
                headers=headers,
                timeout=timeout,
                compression=kinds.Gzip if compression == "gzip" else kinds.NoCompression,
            )
        from opentelemetry.exporter.otlp.proto.http import Compression
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as Http

        return Http(endpoint=endpoint, headers=headers, timeout=timeout, compression=Compression(compression))
    except ImportError as error:
        raise ConfigError(
            f"export.exporter is 'otlp-sdk', and {error.name or 'opentelemetry-exporter-otlp'} is not "
            "installed; pip install opentelemetry-exporter-otlp"
        ) from None
    except Exception as error:  # noqa: BLE001 - whatever it raises, the start stops with a reason
        # A variable that only it reads; its text may hold a header.
        raise ConfigError(
            f"the exporter of opentelemetry-exporter-otlp refuses its OTEL_EXPORTER_OTLP_* variables "
            f"({type(error).__name__}); correct or unset them"
        ) from None


def _without_path(endpoint: str) -> str:
    """The address as gRPC wants it: it has methods in place of paths."""
    if endpoint.lower().startswith("unix:"):
        return endpoint
    parts = urlsplit(endpoint)
    return f"{parts.scheme}://{parts.netloc}"
