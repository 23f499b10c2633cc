"""A store in memory, filled by the writer that fills the real one."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from mapek_runtime.store.functions import register
from mapek_runtime.store.schema import TABLES
from mapek_runtime.store.writer import Writer

__all__ = ["Sent", "any_value", "attributes", "filled", "send", "span"]


class Sent(NamedTuple):
    """A span with what it is sent with."""

    span: Span
    resource: Resource
    scope: InstrumentationScope = InstrumentationScope()


def filled(spans: Iterable[Sent] = ()) -> sqlite3.Connection:
    """A database in memory in which `spans` have arrived one after the other."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(TABLES)
    register(connection)
    send(connection, spans)
    return connection


def send(connection: sqlite3.Connection, spans: Iterable[Sent]) -> None:
    """Let more spans arrive."""
    request = ExportTraceServiceRequest(
        resource_spans=[
            ResourceSpans(
                resource=sent.resource, scope_spans=[ScopeSpans(scope=sent.scope, spans=[sent.span])]
            )
            for sent in spans
        ]
    )
    (written,) = Writer(connection).write([request.SerializeToString()])
    assert not written.error
    assert not written.refused


def span(
    name: str = "work",
    *,
    trace: int = 1,
    number: int = 1,
    parent: int | None = None,
    service: str = "x0tta6bl4",
    start: int = 1_000,
    duration: int = 100,
    kind: int = 1,
    status: int = 0,
    **values: Any,
) -> Sent:
    """A span of a service; `values` are its attributes."""
    return Sent(
        Span(
            trace_id=trace.to_bytes(16, "big"),
            span_id=number.to_bytes(8, "big"),
            parent_span_id=b"" if parent is None else parent.to_bytes(8, "big"),
            name=name,
            kind=kind,  # type: ignore[arg-type]
            start_time_unix_nano=start,
            end_time_unix_nano=start + duration,
            status={"code": status},  # type: ignore[arg-type]
            attributes=attributes(values),
        ),
        Resource(attributes=attributes({"service.name": service})),
    )


def attributes(values: Mapping[str, Any]) -> list[KeyValue]:
    """Attributes of OTLP."""
    return [KeyValue(key=key, value=any_value(value)) for key, value in values.items()]


def any_value(value: Any) -> AnyValue:
    """A value of OTLP."""
    made = AnyValue()
    if isinstance(value, bool):
        made.bool_value = value
    elif isinstance(value, int):
        made.int_value = value
    elif isinstance(value, float):
        made.double_value = value
    elif isinstance(value, str):
        made.string_value = value
    elif isinstance(value, bytes):
        made.bytes_value = value
    elif isinstance(value, list):
        made.array_value.values.extend(map(any_value, value))
        made.array_value.SetInParent()
    elif isinstance(value, dict):
        made.kvlist_value.values.extend(attributes(value))
        made.kvlist_value.SetInParent()
    return made
