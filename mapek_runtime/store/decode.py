"""From the bytes of a request to rows: what queries need in columns, the rest as it came.

What stands in a column is taken out of the span's message, so that nothing is kept twice; `whole` puts
it back. The rest is written anew by protobuf's own library, so that every attribute has one form, in
which queries look for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import Literal, NamedTuple, get_args

from google.protobuf.message import DecodeError
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span

from .framing import slices

__all__ = ["SpanRow", "UNKNOWN_SERVICE", "Slice", "Source", "decode", "service_of"]

UNKNOWN_SERVICE = "unknown_service"
"""What the specification calls a resource that does not say."""
_times = Struct("<cQcQ").pack
"""Fields start_time_unix_nano and end_time_unix_nano, also where they are 0."""
_NO_TRACE, _NO_SPAN = bytes(16), bytes(8)
"""What the specification calls invalid ids."""
_MOST = (1 << 63) - 1
"""The greatest number of a column: a moment of the year 2262."""
_Column = Literal[
    "trace_id", "span_id", "parent_span_id", "name", "kind", "start_time_unix_nano", "end_time_unix_nano"
]
_IN_COLUMNS: tuple[_Column, ...] = get_args(_Column)

SpanRow = tuple[bytes, bytes, bytes | None, str, int, int, int, int, bytes]
"""trace id, span id, parent id, name, kind, status, start, duration, body."""


class Source(NamedTuple):
    """What the spans of a slice have in common: messages of OTLP, and the addresses of their schemas."""

    resource: bytes
    resource_schema: str
    scope: bytes
    scope_schema: str


class Slice(NamedTuple):
    """Spans of one source: few enough that nothing waits long for the interpreter."""

    source: Source
    rows: list[SpanRow]
    refused: int
    """Spans without valid ids, which are in no trace."""


def decode(payload: bytes) -> Iterator[Slice]:
    """The spans of an ExportTraceServiceRequest. Raises ValueError for bytes that are none."""
    for piece in slices(payload):
        try:
            message = ScopeSpans.FromString(piece.spans)
        except DecodeError as error:
            raise ValueError(f"a span cannot be read: {error}") from None
        rows = [row for span in message.spans if (row := _row(span)) is not None]
        source = Source(piece.resource, piece.resource_schema, piece.scope, piece.scope_schema)
        yield Slice(source, rows, len(message.spans) - len(rows))


def service_of(resource: bytes) -> str:
    """`service.name` of a Resource. Raises ValueError for bytes that are none."""
    try:
        message = Resource.FromString(resource)
    except DecodeError as error:
        raise ValueError(f"a resource cannot be read: {error}") from None
    for attribute in message.attributes:
        if attribute.key == "service.name":
            return attribute.value.string_value or UNKNOWN_SERVICE
    return UNKNOWN_SERVICE


def _row(span: Span) -> SpanRow | None:
    trace_id, span_id, parent_id = span.trace_id, span.span_id, span.parent_span_id
    if len(trace_id) != 16 or len(span_id) != 8 or trace_id == _NO_TRACE or span_id == _NO_SPAN:
        return None
    start, end = span.start_time_unix_nano, span.end_time_unix_nano
    name, kind, status = span.name, span.kind, span.status.code
    for field in _IN_COLUMNS:
        span.ClearField(field)
    times = b""
    if start > _MOST or end > _MOST or not end:
        # What a column cannot hold stays in the body, which wins when the span is put together again.
        times = _times(b"\x39", start, b"\x41", end)
        start, end = min(start, _MOST), min(end or start, _MOST)
    if parent_id and (len(parent_id) != 8 or parent_id == _NO_SPAN):
        span.parent_span_id = parent_id
        parent_id = b""
    body = span.SerializeToString() + times
    return (trace_id, span_id, parent_id or None, name, kind, status, start, end - start, body)
