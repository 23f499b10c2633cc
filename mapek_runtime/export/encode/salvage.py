"""A span that the SDK's encoder refuses: what of it can be sent is sent.

One odd field must not cost a span, and even less a batch. Field by field:

    a time outside 64 bits, or no number   unknown
    a kind that is none                    unspecified
    an event or a link without a form      left out, and counted as dropped
    a count outside 32 bits                the nearest that fits
    attributes that are no mapping         left out
    a parent whose id is no id             left out: the span becomes a root

Texts are no case for this (`wire.any_text`), nor is a single attribute without a form: the SDK leaves
it out, and so does `attributes`. Only the ids of the trace and of the span must be there; without them
it is no span.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from opentelemetry.sdk.trace import ReadableSpan

from mapek_runtime.export.notice import Notices

from .attributes import AttributeEncoder
from .fields import (
    IDS,
    LINK_LOCAL,
    LINK_REMOTE,
    LOCAL,
    MOST_DROPPED,
    REMOTE,
    count,
    event_attributes,
    link_attributes,
    name_and_kind,
    span_attributes,
    status_field,
    tail,
    trace_head,
    trace_state,
)
from .wire import any_text, fixed64

__all__ = ["salvage"]

_T = TypeVar("_T")
_ATTEMPTS = 5
_notices = Notices(logging.getLogger(__name__))


def salvage(span: ReadableSpan) -> bytes:
    """The body of a span of which something has no form; raises if that is its own identity."""
    context = span.get_span_context()
    assert context is not None, "a span without a context has no identity"
    ids = IDS(trace_head(context.trace_id), context.span_id)
    events, lost_events = _each(_event, lambda: span.events)
    links, lost_links = _each(_link, lambda: span.links)
    parent_id, flags = _parent(span)
    pieces = [
        ids,
        _or_nothing(lambda: trace_state(context.trace_state)),
        parent_id,
        _name_and_kind(span),
        _moment(b"\x39", lambda: span.start_time),
        _moment(b"\x41", lambda: span.end_time),
        _attributes(span_attributes, lambda: span.attributes),
        *tail(
            _nearest(lambda: span.dropped_attributes),
            events,
            _nearest(lambda: span.dropped_events + lost_events),
            links,
            _nearest(lambda: span.dropped_links + lost_links),
            _or_nothing(lambda: status_field(span.status)),
            flags,
        ),
    ]
    _notices.warn("salvage", "span %r is sent without what has no OTLP form", _or_none(lambda: span.name))
    return b"".join(pieces)


def _event(event: Any) -> list[bytes]:
    return [
        _moment(b"\x09", lambda: event.timestamp),
        any_text(b"\x12", event.name),
        _attributes(event_attributes, lambda: event.attributes),
        count(b"\x20", _nearest(lambda: event.dropped_attributes)),
    ]


def _link(link: Any) -> list[bytes]:
    context = link.context
    return [
        IDS(trace_head(context.trace_id), context.span_id),
        _attributes(link_attributes, lambda: link.attributes),
        count(b"\x28", _nearest(lambda: link.dropped_attributes)),
        LINK_REMOTE if context.is_remote else LINK_LOCAL,
    ]


def _each(
    encode: Callable[[Any], list[bytes]], items: Callable[[], Iterable[Any]]
) -> tuple[list[list[bytes]], int]:
    """The pieces of those that have a form, and how many have none."""
    bodies, lost = [], 0
    for item in _or_none(lambda: list(items())) or ():
        try:
            bodies.append(encode(item))
        except Exception:  # noqa: BLE001 - whatever is odd about it, the span goes on without it
            lost += 1
    return bodies, lost


def _attributes(encoder: AttributeEncoder, attributes: Callable[[], Mapping[str, Any] | None]) -> bytes:
    for _ in range(_ATTEMPTS):
        try:
            # A copy first: another thread may be changing the original.
            return encoder.join(dict(attributes() or {}))
        except (RuntimeError, KeyError):
            # It changed while it was copied, which a mapping written in Python cannot rule out.
            continue
        except Exception:  # noqa: BLE001 - no mapping, or one that cannot be read
            break
    return b""


def _parent(span: ReadableSpan) -> tuple[bytes, bytes]:
    try:
        parent = span.parent
        if parent:
            return b"\x22\x08" + parent.span_id.to_bytes(8, "big"), REMOTE if parent.is_remote else LOCAL
    except Exception:  # noqa: BLE001 - it is no parent
        return b"", LOCAL
    return b"", LOCAL


def _name_and_kind(span: ReadableSpan) -> bytes:
    name = _or_none(lambda: span.name)
    try:
        return name_and_kind(name, span.kind)  # type: ignore[arg-type]
    except Exception:  # noqa: BLE001 - the kind is none
        return any_text(b"\x2a", name)


def _moment(tag: bytes, moment: Callable[[], int | None]) -> bytes:
    return _or_nothing(lambda: fixed64(tag, int(moment() or 0)))


def _nearest(number: Callable[[], int]) -> int:
    return max(0, min(MOST_DROPPED, _or_none(number) or 0))


def _or_nothing(encode: Callable[[], bytes]) -> bytes:
    return _or_none(encode) or b""


def _or_none(read: Callable[[], _T]) -> _T | None:
    try:
        return read()
    except Exception:  # noqa: BLE001 - anything may be odd about a span that comes here
        return None
