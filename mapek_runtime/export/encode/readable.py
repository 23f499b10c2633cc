"""A span through the SDK's interface, as an OTLP `Span`; raises where the SDK's encoder does."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind

from .fields import (
    LOCAL,
    NAMES,
    REMOTE,
    event_pieces,
    ids_and_state,
    link_pieces,
    name_and_kind,
    span_attributes,
    status_field,
    tail,
    times,
    trace_head,
)

__all__ = ["encode_readable", "readable_tail"]

_INTERNAL = SpanKind.INTERNAL


def encode_readable(span: ReadableSpan) -> bytes:
    """The body of a span of any kind."""
    if type(span) is ReadableSpan:
        # What the SDK hands to its processors. Its properties are calls, and some of them copy: that
        # is a fifth of the cost. They are read where the span is not made as it is today.
        try:
            return _encode_stock(span)
        except AttributeError:
            pass
    context = span.get_span_context()
    assert context is not None, "a span without a context has no identity"
    parent, attributes = span.parent, span.attributes
    pieces = [
        ids_and_state(
            trace_head(context.trace_id),
            context.span_id,
            context.trace_state,
            parent.span_id if parent else None,
        ),
        name_and_kind(span.name, span.kind),
        times(span.start_time, span.end_time),
    ]
    if attributes:
        # A copy is a plain dict; a view of a mapping would be asked for each key.
        plain = attributes.copy() if type(attributes) is MappingProxyType else attributes
        span_attributes.encode(plain.items(), pieces)
    pieces += readable_tail(span, REMOTE if parent and parent.is_remote else LOCAL)
    return b"".join(pieces)


def readable_tail(span: ReadableSpan, flags: bytes) -> list[bytes]:
    """Everything behind the attributes."""
    return tail(
        span.dropped_attributes,
        [event_pieces(event) for event in span.events],
        span.dropped_events,
        [link_pieces(link) for link in span.links],
        span.dropped_links,
        status_field(span.status),
        flags,
    )


def _encode_stock(span: Any) -> bytes:
    trace_id, span_id, _, _, state, _ = span._context
    parent, attributes = span._parent, span._attributes
    name, kind = span._name, span._kind
    encoded = NAMES.get(name) if kind is _INTERNAL else None
    pieces = [
        ids_and_state(trace_head(trace_id), span_id, state, parent.span_id if parent else None),
        encoded if encoded is not None else name_and_kind(name, kind),
        times(span._start_time, span._end_time),
    ]
    # A copy, made in one step: nobody changes it while it is read.
    span_attributes.encode(attributes.copy().items(), pieces)
    flags = REMOTE if parent and parent.is_remote else LOCAL
    events, links = span._events, span._links
    if events or links or attributes.dropped or events.dropped or links.dropped:
        pieces += readable_tail(span, flags)
    else:
        pieces += (status_field(span._status), flags)
    return b"".join(pieces)
