"""What an exporter is called in metrics: its type, its number among its kind, and where it sends.

Reads attributes only: `component_type` and `endpoint`, which any exporter may have, and what the SDK's
own exporters keep. Knows no metrics, and imports no exporter.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

__all__ = ["Component", "describe_component", "number_of"]

GRPC = "otlp_grpc_span_exporter"
_TYPES = {
    "mapek_runtime.export.otlp.http_exporter": "otlp_http_span_exporter",
    "mapek_runtime.export.otlp.grpc_exporter": GRPC,
    "opentelemetry.exporter.otlp.proto.http": "otlp_http_span_exporter",
    "opentelemetry.exporter.otlp.proto.grpc": GRPC,
    "opentelemetry.exporter.otlp.json.http": "otlp_http_json_span_exporter",
}
_PORTS = {"http": 80, "https": 443}
_GRPC_PORT = 443

_numbers: defaultdict[str, Iterator[int]] = defaultdict(itertools.count)


@dataclass(frozen=True, slots=True)
class Component:
    """One exporter: its attributes, and how it answers."""

    attributes: Mapping[str, str | int]
    is_rpc: bool
    meters_itself: bool


def number_of(component_type: str) -> int:
    """The next number among components of a type, from 0.

    Never the process id or a UUID: the number keeps the series of a restarted program together.
    """
    return next(_numbers[component_type])


def describe_component(exporter: object) -> Component:
    """Describe an exporter of any kind; what cannot be known is left out."""
    kind = _type_of(exporter)
    attributes: dict[str, str | int] = {
        "otel.component.type": kind,
        "otel.component.name": f"{kind}/{number_of(kind)}",
    }
    attributes |= _server(_endpoint_of(exporter), is_rpc=kind == GRPC)
    metrics = getattr(exporter, "_metrics", None)
    # The SDK's exporters have an object here that is named for doing nothing, or for doing it.
    meters_itself = type(metrics).__name__ == "ExporterMetrics"
    return Component(attributes, kind == GRPC, meters_itself)


def _type_of(exporter: object) -> str:
    kind = getattr(exporter, "component_type", None)
    if isinstance(kind, str):
        return kind
    cls = type(exporter)
    for module, name in _TYPES.items():
        if cls.__module__.startswith(module):
            return name
    # For what has no name of its own the conventions ask for the language's name of the type.
    return f"{cls.__module__}.{cls.__qualname__}"


def _endpoint_of(exporter: object) -> str:
    for name in ("endpoint", "_endpoint"):
        value = getattr(exporter, name, None)
        if isinstance(value, str) and value:
            return value
    return ""


def _server(endpoint: str, *, is_rpc: bool) -> dict[str, str | int]:
    """`server.address` and `server.port` of an address; nothing else of it, for it may hold secrets."""
    if not endpoint:
        return {}
    scheme = endpoint.split(":", 1)[0].lower() if "://" in endpoint or endpoint.startswith("unix:") else ""
    if scheme in {"unix", "http+unix"}:
        path = endpoint.split(":", 1)[1]
        return {"server.address": "/" + path.lstrip("/") if path.startswith("//") else path}
    try:
        parts = urlsplit(endpoint if "://" in endpoint else f"//{endpoint}")
        host, port = parts.hostname, parts.port
    except ValueError:
        return {}
    found: dict[str, str | int] = {}
    if host:
        found["server.address"] = host
    if port is None:
        port = _GRPC_PORT if is_rpc else _PORTS.get(parts.scheme.lower())
    if port is not None:
        found["server.port"] = port
    return found
