"""`tracing`: a provider with its exporter, from environment and configuration, closed on exit.

Limits, resource attributes and `OTEL_SDK_DISABLED` are read by the SDK's own readers.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from opentelemetry import trace as trace_api
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace.sampling import Sampler

from mapek_runtime.config import (
    Configuration,
    CycleSamplingSettings,
    ExportSettings,
    WatchSettings,
    decode,
    read_sources,
)
from mapek_runtime.export import BatchSpanProcessor, OTLPSpanExporter
from mapek_runtime.export.account import Statistics
from mapek_runtime.export.console import ConsoleSpanExporter
from mapek_runtime.export.memory import MemorySpanExporter
from mapek_runtime.trace import LiveSpans, TracerProvider, use_provider
from mapek_runtime.trace.leaving import install_leaving
from mapek_runtime.trace.sampling import CycleSampler
from mapek_runtime.trace.sampling.hold import Holds

from .polling import polling
from .sampling import make_sampler

__all__ = ["Tracing", "make_otlp", "make_tracing", "open_tracing", "tracing"]

logger = logging.getLogger(__name__)

HEARTBEAT = 30.0
"""Seconds between two reports of spans that were never ended, where no other time is set."""

_NOTHING = Statistics(0, 0, 0, {}, 0, 0, 0, 0, {})


@dataclass(frozen=True, slots=True)
class Tracing:
    """A provider, and the processor that says what became of its spans."""

    provider: TracerProvider
    processor: BatchSpanProcessor | None
    exporter: object | None

    def statistics(self) -> Statistics:
        """Every term of the law; all zero where nothing is exported."""
        return self.processor.statistics() if self.processor is not None else _NOTHING


@asynccontextmanager
async def tracing(
    service_name: str | None = None,
    *,
    config: Path | str | None = None,
    instrument: bool = False,
    attributes: Mapping[str, str] | None = None,
) -> AsyncIterator[TracerProvider]:
    """A provider set up from `OTEL_*`, `MAPEK_*` and, if given, a configuration file.

        async with mapek_runtime.tracing(service_name="shop") as provider:
            ...

    Declared spans go to it inside the block, and it becomes OpenTelemetry's global provider where
    there is none yet. On exit what has ended is sent and everything closed, within
    `export.shutdown` seconds. `instrument` switches on the instrumentation of aiohttp and httpx,
    `attributes` are added to the resource. Raises `ConfigError`.
    """
    sources = await asyncio.to_thread(
        read_sources,
        file=Path(config) if config is not None else None,
        environ=os.environ,
        flags={"service_name": (service_name, "service_name")},
    )
    # A file that also configures the loop's domains is welcome here; their sections are not read.
    configuration = decode(sources, strict=False)
    for warning in configuration.warnings:
        logger.warning("%s", warning)
    async with open_tracing(configuration, instrument=instrument, attributes=attributes) as opened:
        yield opened.provider


@asynccontextmanager
async def open_tracing(
    configuration: Configuration,
    *,
    instrument: bool,
    attributes: Mapping[str, str] | None = None,
    console: TextIO | None = None,
) -> AsyncIterator[Tracing]:
    """The same from a configuration that was read already; the console exporter writes to `console`."""
    settings = configuration.settings
    # In a thread: the SDK asks its resource detectors in threads and waits for them.
    resource = await asyncio.to_thread(
        Resource.create, {SERVICE_NAME: settings.service_name, **(attributes or {})}
    )
    # In a thread: it may have to look through what is installed.
    head = await asyncio.to_thread(make_sampler, settings.sampler, resource)
    sampler, holds = _deciding(settings.cycles, head)
    # Closed below, on the loop; the exit handler would come too late for it.
    provider = TracerProvider(sampler, resource, shutdown_on_exit=False)
    exporter = None
    if not provider._disabled:
        # In a thread, because an exporter reads certificates and the version of this package.
        exporter = await asyncio.to_thread(_make_exporter, settings.export, console or sys.stdout)
    opened = _joined(provider, exporter, settings.export, holds)
    with ExitStack() as stack:
        if holds is not None:
            stack.callback(install_leaving())
        stack.enter_context(use_provider(provider))
        if isinstance(trace_api.get_tracer_provider(), trace_api.ProxyTracerProvider):
            trace_api.set_tracer_provider(provider)
        if instrument:
            # Heavy, and a program that does not ask for it need not have the libraries.
            from .instrument import instrumented

            stack.enter_context(instrumented(provider))
        try:
            async with polling(head), _watching(settings.watch, provider):
                yield opened
        finally:
            await provider.ashutdown(settings.export.shutdown)


def make_tracing(configuration: Configuration, *, console: TextIO | None = None) -> Tracing:
    """The same without a block and without a loop: it is closed when the process ends.

    Nothing is put in force; the caller does that. Reads files and may start threads, so it is called
    while a program starts.
    """
    settings = configuration.settings
    resource = Resource.create({SERVICE_NAME: settings.service_name})
    sampler, holds = _deciding(settings.cycles, make_sampler(settings.sampler, resource))
    provider = TracerProvider(sampler, resource)
    exporter = None if provider._disabled else _make_exporter(settings.export, console or sys.stdout)
    made = _joined(provider, exporter, settings.export, holds)
    if holds is not None:
        install_leaving()
    if made.processor is not None:
        # Before the provider's own exit handler, which does not know the limit.
        atexit.register(made.processor.shutdown, int(settings.export.shutdown * 1000))
    return made


def _deciding(settings: CycleSamplingSettings, head: Sampler) -> tuple[Sampler, Holds | None]:
    """The sampler; where cycles decide for themselves they stand in front of it."""
    if not settings.decide:
        return head, None
    return CycleSampler.over(
        head,
        quiet_ratio=settings.quiet_ratio,
        slow=settings.slow,
        most_spans_per_cycle=settings.most_spans_per_cycle,
        most_held_spans=settings.most_held_spans,
    )


@asynccontextmanager
async def _watching(settings: WatchSettings, provider: TracerProvider) -> AsyncIterator[None]:
    """Look at open spans where that is asked for."""
    if not (settings.heartbeat or settings.leaks):
        yield
        return
    older_than = settings.heartbeat or HEARTBEAT
    async with LiveSpans(older_than=older_than, leaks=settings.leaks) as live:
        provider.add_span_processor(live)
        yield


def _joined(
    provider: TracerProvider, exporter: Any, settings: ExportSettings, holds: Holds | None
) -> Tracing:
    processor = None
    if exporter is not None:
        processor = _make_processor(exporter, settings, holds)
        provider.add_span_processor(processor)
    return Tracing(provider, processor, exporter)


def _make_processor(exporter: Any, settings: ExportSettings, holds: Holds | None) -> BatchSpanProcessor:
    return BatchSpanProcessor(
        exporter,
        holds=holds,
        max_queue_size=settings.queue_size,
        schedule_delay_millis=None if settings.delay is None else settings.delay * 1000,
        max_export_batch_size=settings.batch_size,
        export_timeout_millis=None if settings.timeout is None else settings.timeout * 1000,
    )


def _make_exporter(settings: ExportSettings, console: TextIO) -> Any:
    match settings.exporter:
        case "none":
            return None
        case "console":
            return ConsoleSpanExporter(console)
        case "memory":
            return MemorySpanExporter()
        case "auto" if not settings.endpoint:
            return MemorySpanExporter()
        case _:
            return make_otlp(settings.endpoint or None)


def make_otlp(endpoint: str | None) -> Any:
    """The exporter of `OTEL_EXPORTER_OTLP_PROTOCOL`: ours over HTTP, the SDK's over gRPC."""
    names = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    protocol = next((os.environ[name].strip().lower() for name in names if os.environ.get(name)), "")
    if protocol == "grpc":
        # The SDK's exporter, in the one worker thread that the batch task gives a synchronous one.
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as Grpc

        return Grpc()
    if protocol not in {"", "http/protobuf"}:
        logger.warning(
            "OTEL_EXPORTER_OTLP_PROTOCOL is %r; it must be http/protobuf or grpc; using http/protobuf",
            protocol,
        )
    return OTLPSpanExporter(endpoint=endpoint)
