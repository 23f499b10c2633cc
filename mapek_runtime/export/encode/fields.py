"""The fields of an OTLP `Span`, whoever made it (opentelemetry/proto/trace/v1/trace.proto).

Whatever the SDK's encoder refuses raises here too; `salvage` then sees what of it can be sent.

Knows single fields; in which order they make a span is said in `encode` and `readable`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanKind, Status, StatusCode, TraceState

from .attributes import AttributeEncoder
from .wire import VARINTS, any_text, delimited, fixed64, varint

__all__ = [
    "EMPTY_STATUS",
    "IDS",
    "IDS_AND_PARENT",
    "LINK_LOCAL",
    "LINK_REMOTE",
    "LOCAL",
    "MOST_DROPPED",
    "NAMES",
    "REMOTE",
    "TAIL",
    "TIMES",
    "count",
    "event_attributes",
    "event_pieces",
    "ids_and_state",
    "link_attributes",
    "link_pieces",
    "name_and_kind",
    "resource_field",
    "scope_field",
    "span_attributes",
    "status_field",
    "tail",
    "times",
    "trace_head",
    "trace_state",
]

MAX_NAMES = 4096
MAX_NAME = 256
"""Names of spans that are remembered, and the characters of the longest: 2 MB at the most."""

# Several fields in one step: `trace_head` and the span's id, then the parent's; both times.
IDS = struct.Struct(">20sQ").pack
IDS_AND_PARENT = struct.Struct(">20sQ2sQ").pack
TIMES = struct.Struct("<BQBQ").pack

# CONTEXT_HAS_IS_REMOTE, alone and with CONTEXT_IS_REMOTE.
LOCAL = b"\x85\x01\x00\x01\x00\x00"
REMOTE = b"\x85\x01\x00\x03\x00\x00"
LINK_LOCAL = b"\x35\x00\x01\x00\x00"
LINK_REMOTE = b"\x35\x00\x03\x00\x00"

EMPTY_STATUS = b"\x7a\x00"
TAIL = EMPTY_STATUS + LOCAL
"""What most spans have behind their attributes."""

NAMES: dict[Any, bytes] = {}
"""Names of internal spans, each with its kind, as they were encoded before."""

# Taken to a name, because a member of an enumeration is slow to get at.
_INTERNAL, _UNSET = SpanKind.INTERNAL, StatusCode.UNSET
_KINDS = {kind: b"\x30" + VARINTS[kind.value + 1] for kind in SpanKind}
MOST_DROPPED = (1 << 32) - 1

# The second argument: how many messages lie around them (request, ResourceSpans, ScopeSpans, Span, ...).
span_attributes = AttributeEncoder(b"\x4a", 4)
event_attributes = AttributeEncoder(b"\x1a", 5)
link_attributes = AttributeEncoder(b"\x22", 5)
_resource_attributes = AttributeEncoder(b"\x0a", 3)
_scope_attributes = AttributeEncoder(b"\x1a", 4)


def trace_head(trace_id: int) -> bytes:
    """The trace id, up to where the span's id follows."""
    return b"\x0a\x10" + trace_id.to_bytes(16, "big") + b"\x12\x08"


def ids_and_state(head: bytes, span_id: int, state: TraceState | None, parent_id: int | None) -> bytes:
    """Trace, span, trace state and parent."""
    if state:
        ids = IDS(head, span_id) + trace_state(state)
        return ids if parent_id is None else ids + b"\x22\x08" + parent_id.to_bytes(8, "big")
    return IDS(head, span_id) if parent_id is None else IDS_AND_PARENT(head, span_id, b"\x22\x08", parent_id)


def trace_state(state: TraceState | None) -> bytes:
    """The trace state as in its header, its members in order."""
    return any_text(b"\x1a", ",".join([f"{key}={value}" for key, value in state.items()])) if state else b""


def name_and_kind(name: str, kind: SpanKind) -> bytes:
    """The name and the kind of a span; remembered, if it is internal."""
    encoded = any_text(b"\x2a", name) + _KINDS[kind]
    if kind is _INTERNAL and type(name) is str and len(name) <= MAX_NAME:
        if len(NAMES) >= MAX_NAMES:
            NAMES.clear()
        NAMES[name] = encoded
    return encoded


def times(start: int | None, end: int | None) -> bytes:
    """The beginning and the end, where they are known."""
    return TIMES(0x39, start, 0x41, end) if start and end else fixed64(b"\x39", start) + fixed64(b"\x41", end)


def count(tag: bytes, number: int) -> bytes:
    """How many were dropped."""
    if not 0 <= number <= MOST_DROPPED:
        raise ValueError(f"a dropped count of {number} does not fit in 32 bits")
    return tag + varint(number) if number else b""


def tail(
    dropped_attributes: int,
    events: Iterable[list[bytes]],
    dropped_events: int,
    links: Iterable[list[bytes]],
    dropped_links: int,
    status: bytes,
    flags: bytes,
) -> list[bytes]:
    """Everything behind the attributes, from the pieces of each event and link."""
    pieces = [count(b"\x50", dropped_attributes)]
    for event in events:
        pieces += (b"\x5a", varint(sum(map(len, event))), *event)
    pieces.append(count(b"\x60", dropped_events))
    for link in links:
        pieces += (b"\x6a", varint(sum(map(len, link))), *link)
    pieces += (count(b"\x70", dropped_links), status, flags)
    return pieces


def event_pieces(event: Any) -> list[bytes]:
    """An event, without its tag and length. Unjoined: events may be large, and are copied later anyway."""
    pieces = [fixed64(b"\x09", event.timestamp), any_text(b"\x12", event.name)]
    attributes = event.attributes
    if attributes:
        event_attributes.encode(attributes.items(), pieces)
    pieces.append(count(b"\x20", event.dropped_attributes))
    return pieces


def link_pieces(link: Link) -> list[bytes]:
    """A link in the same way; of its context the SDK sends neither trace state nor trace flags."""
    context = link.context
    pieces = [IDS(trace_head(context.trace_id), context.span_id)]
    attributes = link.attributes
    if attributes:
        link_attributes.encode(attributes.items(), pieces)
    pieces += (count(b"\x28", link.dropped_attributes), LINK_REMOTE if context.is_remote else LINK_LOCAL)
    return pieces


def status_field(status: Status | None) -> bytes:
    """The status; the SDK sends an empty one too."""
    if status is None:
        return b""
    code, description = status.status_code, status.description
    if code is _UNSET and not description:
        return EMPTY_STATUS
    number = code.value
    return delimited(b"\x7a", any_text(b"\x12", description) + (b"\x18" + VARINTS[number] if number else b""))


def resource_field(resource: Resource) -> bytes:
    """The resource of a `ResourceSpans`."""
    return delimited(b"\x0a", _resource_attributes.join(resource.attributes))


def scope_field(scope: InstrumentationScope | None) -> bytes:
    """The scope of a `ScopeSpans`."""
    if scope is None:
        return b"\x0a\x00"
    names = any_text(b"\x0a", scope.name) + any_text(b"\x12", scope.version)
    return delimited(b"\x0a", names + _scope_attributes.join(scope.attributes))
