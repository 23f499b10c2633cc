"""Requests of OTLP as senders make them, for tests of the store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

__all__ = ["SECOND", "attribute", "request", "span"]

SECOND = 1_000_000_000
NOW = 1_760_000_000 * SECOND
"""A moment in October 2025, at the beginning of no minute."""


def attribute(key: str, value: object) -> KeyValue:
    """An attribute; None is one without a value."""
    made = KeyValue(key=key)
    match value:
        case bool():
            made.value.bool_value = value
        case int():
            made.value.int_value = value
        case float():
            made.value.double_value = value
        case str():
            made.value.string_value = value
        case bytes():
            made.value.bytes_value = value
        case list():
            made.value.array_value.values.extend(attribute("", each).value for each in value)
        case None:
            pass
        case _:
            raise TypeError(repr(value))
    return made


def span(
    trace: int = 1,
    number: int = 1,
    parent: int = 0,
    *,
    name: str = "work",
    start: int = NOW,
    duration: int = 1_000_000,
    kind: int = 1,
    status: int = 0,
    attributes: Mapping[str, Any] | None = None,
) -> Span:
    """A span; ids are numbers, 0 for no parent."""
    made = Span(
        trace_id=trace.to_bytes(16, "big"),
        span_id=number.to_bytes(8, "big"),
        name=name,
        kind=kind,  # type: ignore[arg-type]
        start_time_unix_nano=start,
        end_time_unix_nano=start + duration,
        attributes=[attribute(key, value) for key, value in (attributes or {}).items()],
        flags=0x101,
    )
    if parent:
        made.parent_span_id = parent.to_bytes(8, "big")
    if status:
        made.status.code = status  # type: ignore[assignment]
    return made


def request(*spans: Span, service: str = "shop", scope: str = "tests", **resource: Any) -> bytes:
    """A request of one service and one library."""
    made = ExportTraceServiceRequest()
    group = made.resource_spans.add()
    group.resource.attributes.append(attribute("service.name", service))
    group.resource.attributes.extend(attribute(key, value) for key, value in resource.items())
    within = group.scope_spans.add()
    within.scope.name = scope
    within.spans.extend(spans)
    return made.SerializeToString()
