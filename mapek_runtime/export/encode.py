"""Spans as OTLP: `ExportTraceServiceRequest`, byte for byte what the SDK's encoder gives.

A `RequestBuilder` takes spans in slices, so that a large request need not hold the event loop in one
go, and gives the request at the end. Spans of ours are read through their slots, any other through
the public properties of `ReadableSpan`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from types import MappingProxyType
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceState

from mapek_runtime.errors import EncodeError
from mapek_runtime.trace.span import UNSET, Span

from .attributes import VARINTS, AttributeEncoder, OddKey, delimited, field, varint

__all__ = ["RequestBuilder", "encode_spans"]

MAX_NAMES = 4096

# Tags of the fields of Span, in the order in which they are written (opentelemetry/proto/trace/v1).
_TRACE_AND_SPAN_ID = struct.Struct(">2s16s2sQ").pack
_IDS_AND_PARENT = struct.Struct(">2s16s2sQ2sQ").pack
_TIMES = struct.Struct("<BQBQ").pack
_LOCAL, _REMOTE = 0x100, 0x300  # CONTEXT_HAS_IS_REMOTE, and with CONTEXT_IS_REMOTE
_FLAGS = {_LOCAL: b"\x85\x01\x00\x01\x00\x00", _REMOTE: b"\x85\x01\x00\x03\x00\x00"}
_LINK_FLAGS = {False: b"\x35\x00\x01\x00\x00", True: b"\x35\x00\x03\x00\x00"}
_TAIL = b"\x7a\x00" + _FLAGS[_LOCAL]
_NO_TRACE = -1
_LARGEST_VARINT = len(VARINTS)

_attributes = AttributeEncoder(b"\x4a")
# Our spans leave the look at the keys to whoever reads them; the encoder looks each key up anyway.
_own_attributes = AttributeEncoder(b"\x4a", clean_first=True)
_event_attributes = AttributeEncoder(b"\x1a")
_link_attributes = AttributeEncoder(b"\x22")
_plain_attributes = AttributeEncoder(b"\x0a")
_scope_attributes = AttributeEncoder(b"\x1a")
_names: dict[str, bytes] = {}


def encode_spans(spans: Iterable[ReadableSpan]) -> bytes:
    """The spans as one serialized `ExportTraceServiceRequest`.

    Concatenating several is a legal request too. Raises EncodeError when a span has no OTLP form.
    """
    builder = RequestBuilder()
    builder.add(spans if isinstance(spans, Sequence) else tuple(spans))
    return builder.build()


class RequestBuilder:
    """One request in the making."""

    def __init__(self, on_error: Callable[[ReadableSpan, EncodeError], None] | None = None) -> None:
        self._on_error = on_error
        self._groups: dict[Resource, dict[InstrumentationScope | None, list[bytes]]] = {}
        self._places: dict[tuple[int, int], list[bytes]] = {}
        self._kept: list[Any] = []
        self.size_bytes = 0
        """The bytes of the spans so far; the request is a little larger."""

    def add(self, spans: Sequence[ReadableSpan]) -> None:
        """Encode `spans`; one that cannot be encoded raises, or goes to `on_error` and is left out."""
        tracer: Any = None
        trace_id = _NO_TRACE
        trace_bytes = b""
        put: Callable[[bytes], None] = _nowhere
        names = _names
        attributes = _own_attributes.encode
        internal = SpanKind.INTERNAL
        unset = UNSET
        size_bytes = 0
        for span in spans:
            try:
                if type(span) is not Span:
                    size_bytes += self._add_readable(span)
                    continue
                if span._trace_id != trace_id:
                    trace_id = span._trace_id
                    trace_bytes = trace_id.to_bytes(16, "big")
                state = span._trace_state
                if state:
                    head = _ids(trace_bytes, span._span_id, state, span._parent_id or None)
                elif span._parent_id:
                    head = _IDS_AND_PARENT(
                        b"\x0a\x10", trace_bytes, b"\x12\x08", span._span_id, b"\x22\x08", span._parent_id
                    )
                else:
                    head = _TRACE_AND_SPAN_ID(b"\x0a\x10", trace_bytes, b"\x12\x08", span._span_id)
                name = names.get(span._name) if span._kind is internal else None
                pieces = [
                    head,
                    name if name is not None else _name(span._name, span._kind),
                    _TIMES(0x39, span._start_time, 0x41, span._end_time)
                    if span._start_time and span._end_time
                    else _times(span._start_time, span._end_time),
                ]
                if span._attributes:
                    try:
                        attributes(span._attributes.items(), pieces.append)
                    except OddKey:
                        # Reading the attributes cleans them.
                        size_bytes += self._add_readable(span)
                        continue
                if (
                    span._status is unset
                    and not span._events
                    and not span._links
                    and span._dropped is None
                    and not span._parent_remote
                ):
                    pieces.append(_TAIL)
                else:
                    pieces.append(_tail(span, _REMOTE if span._parent_id and span._parent_remote else _LOCAL))
                body = b"".join(pieces)
                size = len(body)
                if span._tracer is not tracer:
                    put = self._group(span._tracer.resource, span._tracer.scope).append
                    tracer = span._tracer
                put(_HEADERS[size] if size < _LARGEST_HEADER else _header(size))
                put(body)
                size_bytes += size
            except Exception as error:
                fault = EncodeError(f"span {span.name!r} has no OTLP form: {error}")
                if self._on_error is None:
                    raise fault from error
                self._on_error(span, fault)
        self.size_bytes += size_bytes

    def build(self) -> bytes:
        """The request with all spans added so far."""
        out: list[bytes] = []
        for resource, scopes in self._groups.items():
            pieces = [_resource(resource)]
            for scope, spans in scopes.items():
                body = b"".join([_scope(scope), *spans, field(b"\x1a", scope.schema_url if scope else None)])
                pieces += (b"\x12", varint(len(body)), body)
            pieces.append(field(b"\x1a", resource.schema_url))
            size = sum(map(len, pieces))
            out += (b"\x0a", varint(size), *pieces)
        return b"".join(out)

    def _add_readable(self, span: ReadableSpan) -> int:
        body = _encode_readable(span)
        group = self._group(span.resource, span.instrumentation_scope)
        group.append(_header(len(body)))
        group.append(body)
        return len(body)

    def _group(self, resource: Resource, scope: InstrumentationScope | None) -> list[bytes]:
        # Hashing a resource serializes it, so identity is asked first. The objects are kept, because
        # the id of a collected one may be given to another.
        place = (id(resource), id(scope))
        group = self._places.get(place)
        if group is None:
            group = self._groups.setdefault(resource, {}).setdefault(scope, [])
            self._places[place] = group
            self._kept += (resource, scope)
        return group


def _nowhere(_piece: bytes, /) -> None:
    raise AssertionError("no group has been chosen")


def _header(size: int) -> bytes:
    return b"\x12" + varint(size)


_LARGEST_HEADER = 2048
_HEADERS = tuple(_header(size) for size in range(_LARGEST_HEADER))


def _encode_readable(span: ReadableSpan) -> bytes:
    context = span.get_span_context()
    assert context is not None, "a span without a context has no identity"
    trace_id, span_id, _, _, state, _ = context
    parent = span.parent
    name = _names.get(span.name) if span.kind is SpanKind.INTERNAL else None
    pieces = [
        _ids(trace_id.to_bytes(16, "big"), span_id, state, parent.span_id if parent else None),
        name if name is not None else _name(span.name, span.kind),
        _times(span.start_time, span.end_time),
    ]
    attributes = span.attributes
    if attributes:
        # A copy is a plain dict; going through the SDK's bounded mapping costs a call for each key.
        plain = attributes.copy() if type(attributes) is MappingProxyType else attributes
        _attributes.encode(plain.items(), pieces.append)
    pieces.append(_tail(span, _REMOTE if parent and parent.is_remote else _LOCAL))
    return b"".join(pieces)


def _ids(trace_id: bytes, span_id: int, state: TraceState | None, parent_id: int | None) -> bytes:
    if not state:
        if parent_id is None:
            return _TRACE_AND_SPAN_ID(b"\x0a\x10", trace_id, b"\x12\x08", span_id)
        return _IDS_AND_PARENT(b"\x0a\x10", trace_id, b"\x12\x08", span_id, b"\x22\x08", parent_id)
    text = ",".join([f"{key}={value}" for key, value in state.items()])
    ids = _TRACE_AND_SPAN_ID(b"\x0a\x10", trace_id, b"\x12\x08", span_id) + field(b"\x1a", text)
    return ids if parent_id is None else ids + b"\x22\x08" + parent_id.to_bytes(8, "big")


def _name(name: str, kind: SpanKind) -> bytes:
    encoded = field(b"\x2a", name) + b"\x30" + VARINTS[kind.value + 1]
    if kind is SpanKind.INTERNAL and type(name) is str:
        if len(_names) >= MAX_NAMES:
            _names.clear()
        _names[name] = encoded
    return encoded


def _times(start: int | None, end: int | None) -> bytes:
    if start and end:
        return _TIMES(0x39, start, 0x41, end)
    return _fixed64(b"\x39", start) + _fixed64(b"\x41", end)


def _fixed64(tag: bytes, value: int | None) -> bytes:
    return tag + value.to_bytes(8, "little") if value else b""


def _count(tag: bytes, count: int) -> bytes:
    if not 0 <= count < 1 << 32:
        raise ValueError(f"a dropped count of {count} does not fit in 32 bits")
    return tag + varint(count) if count else b""


def _tail(span: ReadableSpan, flags: int) -> bytes:
    """Everything behind the attributes."""
    events, links = span.events, span.links
    lost_attributes, lost_events, lost_links = (
        span.dropped_attributes,
        span.dropped_events,
        span.dropped_links,
    )
    status = _status(span.status)
    if not (events or links or lost_attributes or lost_events or lost_links):
        return status + _FLAGS[flags]
    return b"".join(
        [
            _count(b"\x50", lost_attributes),
            *[delimited(b"\x5a", _event(event)) for event in events],
            _count(b"\x60", lost_events),
            *[delimited(b"\x6a", _link(link)) for link in links],
            _count(b"\x70", lost_links),
            status,
            _FLAGS[flags],
        ]
    )


def _event(event: Any) -> bytes:
    return b"".join(
        [
            _fixed64(b"\x09", event.timestamp),
            field(b"\x12", event.name),
            _event_attributes.join(event.attributes),
            _count(b"\x20", event.dropped_attributes),
        ]
    )


def _link(link: Link) -> bytes:
    context: SpanContext = link.context
    return b"".join(
        [
            _TRACE_AND_SPAN_ID(
                b"\x0a\x10", context.trace_id.to_bytes(16, "big"), b"\x12\x08", context.span_id
            ),
            _link_attributes.join(link.attributes),
            _count(b"\x28", link.dropped_attributes),
            _LINK_FLAGS[bool(context.is_remote)],
        ]
    )


def _status(status: Status | None) -> bytes:
    if status is None:
        return b""
    if status.status_code is StatusCode.UNSET and not status.description:
        return b"\x7a\x00"
    code = status.status_code.value
    return delimited(b"\x7a", field(b"\x12", status.description) + (b"\x18" + VARINTS[code] if code else b""))


def _resource(resource: Resource) -> bytes:
    return delimited(b"\x0a", _plain_attributes.join(resource.attributes))


def _scope(scope: InstrumentationScope | None) -> bytes:
    if scope is None:
        return b"\x0a\x00"
    return delimited(
        b"\x0a",
        field(b"\x0a", scope.name) + field(b"\x12", scope.version) + _scope_attributes.join(scope.attributes),
    )
