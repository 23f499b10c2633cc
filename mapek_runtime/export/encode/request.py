"""Spans as OTLP: `ExportTraceServiceRequest`, byte for byte what the SDK's encoder gives.

A `RequestBuilder` takes spans in slices, so that a large request need not hold the event loop in one
go, and gives the request at the end. Spans of ours are read here, through their slots; any other in
`readable`; what the SDK refuses to encode, in `salvage`.

Source: opentelemetry/proto/collector/trace/v1/trace_service.proto and trace/v1/trace.proto.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanKind

from mapek_runtime.errors import EncodeError
from mapek_runtime.trace.span import UNSET, Span

from .attributes import AttributeEncoder
from .fields import (
    EMPTY_STATUS,
    IDS,
    IDS_AND_PARENT,
    LOCAL,
    NAMES,
    REMOTE,
    TAIL,
    TIMES,
    ids_and_state,
    name_and_kind,
    resource_field,
    scope_field,
    times,
    trace_head,
)
from .readable import encode_readable, readable_tail
from .salvage import salvage
from .wire import any_text, varint

__all__ = ["RequestBuilder", "encode_spans"]

_NO_TRACE = -1
_WORTH_JOINING = 1 << 16
"""Bytes up to which the spans of a slice become one piece: more is copied twice for little."""

# Our spans leave the look at the keys to whoever reads them; the encoder looks each key up anyway.
_attributes = AttributeEncoder(b"\x4a", 4, clean_first=True)


def encode_spans(spans: Iterable[ReadableSpan]) -> bytes:
    """The spans as one serialized `ExportTraceServiceRequest`.

    Concatenating several is a legal request too. Raises EncodeError when a span has no identity.
    """
    builder = RequestBuilder()
    builder.add(spans if isinstance(spans, Sequence) else tuple(spans))
    return builder.build()


class RequestBuilder:
    """One request in the making."""

    def __init__(self, on_error: Callable[[ReadableSpan, EncodeError], None] | None = None) -> None:
        self._on_error = on_error
        self._groups: dict[Resource, dict[InstrumentationScope | None, _Group]] = {}
        self._places: dict[tuple[int, int], _Group] = {}
        self._kept: list[Any] = []
        self.size_bytes = 0
        """The bytes of the spans so far; the request is a little larger."""

    def add(self, spans: Sequence[ReadableSpan], most_bytes: int = sys.maxsize) -> Sequence[ReadableSpan]:
        """Encode `spans`, and give back those for which there is no room in `most_bytes`.

        A span that is larger on its own has a request on its own. One without an identity raises
        EncodeError, or goes to `on_error` and is left out. Nothing else loses a span: what of it has
        no form is replaced or left out.
        """
        # In one piece, because calls cost: what is usual is done in place.
        tracer: Any = None
        fresh: list[bytes] = []
        trace_id, head = _NO_TRACE, b""
        internal, names, headers, encode_attributes = SpanKind.INTERNAL, NAMES, _HEADERS, _attributes.encode
        room = most_bytes - self.size_bytes
        rest = iter(spans)
        for span in rest:
            try:
                if type(span) is Span:
                    if span._trace_id != trace_id:
                        trace_id = span._trace_id
                        head = trace_head(trace_id)
                    parent_id, start, end = span._parent_id, span._start_time, span._end_time
                    name = names.get(span._name) if span._kind is internal else None
                    # What few spans have lies there.
                    rare = span.__dict__
                    if rare and span._trace_state:
                        ids = ids_and_state(head, span._span_id, span._trace_state, parent_id or None)
                    elif parent_id:
                        ids = IDS_AND_PARENT(head, span._span_id, b"\x22\x08", parent_id)
                    else:
                        ids = IDS(head, span._span_id)
                    pieces = [
                        ids,
                        name if name is not None else name_and_kind(span._name, span._kind),
                        TIMES(0x39, start, 0x41, end) if start and end else times(start, end),
                    ]
                    if span._attributes:
                        encode_attributes(span._attributes.items(), pieces)
                    if rare:
                        pieces += _tail(span)
                    else:
                        pieces.append(TAIL)
                    body = b"".join(pieces)
                    if span._tracer is not tracer:
                        fresh = self._group(span._tracer.resource, span._tracer.scope).fresh
                        tracer = span._tracer
                else:
                    body = encode_readable(span)
                    fresh, tracer = self._group(span.resource, span.instrumentation_scope).fresh, None
            except Exception:  # noqa: BLE001 - whatever it is, the span is looked at once more
                found = self._encode_with_care(span)
                if found is None:
                    continue
                (body, fresh), tracer = found, None
            size = len(body)
            if size > room and room < most_bytes:
                self._settle()
                return [span, *rest]
            room -= size
            fresh += (headers[size] if size < _LARGEST_HEADER else _header(size), body)
        self._settle()
        return ()

    def build(self) -> bytes:
        """The request with all spans added so far."""
        self._settle()
        out: list[bytes] = []
        for resource, scopes in self._groups.items():
            filled = [(scope, group) for scope, group in scopes.items() if group.pieces]
            if not filled:
                # Made for a span that was given back.
                continue
            pieces = [resource_field(resource)]
            for scope, group in filled:
                head, schema = scope_field(scope), any_text(b"\x1a", scope.schema_url if scope else None)
                size = len(head) + group.size_bytes + len(schema)
                pieces += (b"\x12", varint(size), head, *group.pieces, schema)
            pieces.append(any_text(b"\x1a", resource.schema_url))
            out += (b"\x0a", varint(sum(map(len, pieces))), *pieces)
        return b"".join(out)

    def _encode_with_care(self, span: ReadableSpan) -> tuple[bytes, list[bytes]] | None:
        try:
            try:
                # Through its properties, which clean odd keys, and copy what another thread may be at.
                body = encode_readable(span)
            except Exception:  # noqa: BLE001 - the SDK's encoder would raise here too
                body = salvage(span)
            return body, self._group(span.resource, span.instrumentation_scope).fresh
        except Exception as error:
            fault = EncodeError(f"span {getattr(span, 'name', None)!r} has no OTLP form: {error}")
            if self._on_error is None:
                self._settle()
                raise fault from error
            self._on_error(span, fault)
            return None

    def _settle(self) -> None:
        self.size_bytes += sum([group.settle() for group in self._places.values() if group.fresh])

    def _group(self, resource: Resource, scope: InstrumentationScope | None) -> _Group:
        # Hashing a resource serializes it, so identity is asked first. The objects are kept, because
        # the id of a collected one may be given to another.
        place = (id(resource), id(scope))
        group = self._places.get(place)
        if group is None:
            group = self._groups.setdefault(resource, {}).setdefault(scope, _Group())
            self._places[place] = group
            self._kept += (resource, scope)
        return group


class _Group:
    """The spans of one scope in a request, each with its header."""

    __slots__ = ("fresh", "pieces", "size_bytes")

    def __init__(self) -> None:
        self.fresh: list[bytes] = []
        self.pieces: list[bytes] = []
        self.size_bytes = 0

    def settle(self) -> int:
        """Make one piece of the fresh ones, so that little is left for the end; gives their bytes."""
        size = sum(map(len, self.fresh))
        self.pieces += [b"".join(self.fresh)] if size <= _WORTH_JOINING else self.fresh
        self.fresh.clear()
        self.size_bytes += size
        return size


def _header(size: int) -> bytes:
    return b"\x12" + varint(size)


_LARGEST_HEADER = 2048
_HEADERS = tuple(_header(size) for size in range(_LARGEST_HEADER))


def _tail(span: Span) -> Iterable[bytes]:
    flags = REMOTE if span._parent_id and span._parent_remote else LOCAL
    if span._status is UNSET and span._dropped is None and not span._events and not span._links:
        return EMPTY_STATUS, flags
    return readable_tail(span, flags)
