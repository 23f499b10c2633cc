"""The framing of an OTLP request: its spans in slices, each small enough to be parsed in one go.

upb holds the interpreter's lock while it parses, so that one call on 16 MB stops every thread for as
long as that takes. Here only the outer framing is walked (ResourceSpans > ScopeSpans > Span), by its
lengths; what lies inside a span is not looked at. Each slice is then a message of its own for the parser.

It accepts what protobuf accepts: fields in any order, fields it does not know, the same message field
several times (its parts are one message then), numbers longer than they need be. Groups are refused:
OTLP has none. Knows the wire format and three field numbers, and nothing of what a span means.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

__all__ = ["MOST_FIELDS", "Slice", "join", "slices"]

MOST_FIELDS: Final = 1 << 20
"""How many fields beside spans one request may have: two million empty ones fit in 4 MB and say nothing."""

_TOO_MANY: Final = f"there are more than {MOST_FIELDS} fields beside the spans"
_SIZE: Final = 1 << 18
# Field 1 of a request (resource_spans); 1, 2, 3 of ResourceSpans (resource, scope_spans, schema_url);
# 1, 2, 3 of ScopeSpans (scope, spans, schema_url): all have a length before them.
_FIRST, _SECOND, _THIRD = 0x0A, 0x12, 0x1A
_LONGEST_NUMBER: Final = 10
_LARGEST_TAG: Final = (1 << 32) - 1
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5

_Ranges = list[tuple[int, int]]
_Runs = list[tuple[int, int, int]]


class Slice(NamedTuple):
    """Some neighbouring spans of one ScopeSpans, with what they stand under.

    `resource` and `scope` are the bytes of the messages Resource and InstrumentationScope. Slices of the same
    ScopeSpans share the very same objects: what is made of them can be kept for as long as `is` holds.
    `spans` parses as a ScopeSpans that has only spans, `number` of them.
    """

    resource: bytes
    resource_schema: str
    scope: bytes
    scope_schema: str
    spans: bytes
    number: int


def slices(payload: bytes, spans: int = 64, *, size: int = _SIZE) -> Iterator[Slice]:
    """Walk an ExportTraceServiceRequest, or TracesData, `spans` spans at a time and about `size` bytes.

    A slice ends with the span that reaches `size`, so that a larger span is in one piece all the same.
    Raises `ValueError` where the framing breaks: slices before that place were given already.
    """
    budget = [MOST_FIELDS]
    found, _, _ = _fields(payload, 0, len(payload), budget, (_FIRST, 0, 0))
    for start, end in found:
        resources, scopes, schemas = _fields(payload, start, end, budget, (_FIRST, _SECOND, _THIRD))
        resource = _message(payload, resources)
        resource_schema = _text(payload, schemas)
        for scope_start, scope_end in scopes:
            runs, rest = _runs(payload, scope_start, scope_end, spans, size)
            parts, texts = _beside(payload, rest, budget)
            scope = _message(payload, parts)
            scope_schema = _text(payload, texts)
            for first, last, count in runs:
                yield Slice(resource, resource_schema, scope, scope_schema, payload[first:last], count)


def join(pieces: Iterable[Slice]) -> bytes:
    """Give the request of which these are the slices: neighbours of one ScopeSpans stand together again."""
    groups: list[tuple[Slice, list[tuple[Slice, list[bytes]]]]] = []
    for piece in pieces:
        if not groups or not _same_resource(groups[-1][0], piece):
            groups.append((piece, []))
        scopes = groups[-1][1]
        if not scopes or not _same_scope(scopes[-1][0], piece):
            scopes.append((piece, []))
        scopes[-1][1].append(piece.spans)
    request: list[bytes] = []
    for under, scopes in groups:
        body: list[bytes] = []
        if under.resource:
            _write(body, _FIRST, under.resource)
        for within, runs in scopes:
            inner: list[bytes] = []
            if within.scope:
                _write(inner, _FIRST, within.scope)
            inner.extend(runs)
            if within.scope_schema:
                _write(inner, _THIRD, within.scope_schema.encode())
            _write(body, _SECOND, *inner)
        if under.resource_schema:
            _write(body, _THIRD, under.resource_schema.encode())
        _write(request, _FIRST, *body)
    return b"".join(request)


def _runs(payload: bytes, at: int, end: int, spans: int, size: int) -> tuple[_Runs, _Ranges]:
    """Give the runs of spans of one ScopeSpans (start, end, how many), and where its other fields lie.

    This loop turns once for each span: it is written for speed, and all that is rare is elsewhere.
    """
    runs: _Runs = []
    rest: _Ranges = []
    first = at
    count = 0
    try:
        while at < end:
            if payload[at] != _SECOND:
                if count:
                    runs.append((first, at, count))
                    count = 0
                first = _after_field(payload, at, end)
                if _number(payload, at, end)[0] == _SECOND:
                    runs.append((at, first, 1))
                elif len(rest) < MOST_FIELDS:
                    rest.append((at, first))
                else:
                    raise ValueError(_TOO_MANY)
                at = first
                continue
            length = payload[at + 1]
            if length < 0x80:
                at += length + 2
            else:
                more = payload[at + 2]
                if more < 0x80:
                    at += (length & 0x7F) + (more << 7) + 3
                else:
                    length, begin = _number(payload, at + 1, end)
                    at = begin + length
            count += 1
            if count == spans or at - first >= size:
                if at > end:
                    break
                runs.append((first, at, count))
                first = at
                count = 0
    except IndexError:
        at = len(payload) + 1
    if at > end:
        raise ValueError(f"a span of the ScopeSpans that ends at byte {end} reaches beyond it")
    if count:
        runs.append((first, at, count))
    return runs, rest


def _beside(payload: bytes, rest: _Ranges, budget: list[int]) -> tuple[_Ranges, _Ranges]:
    """Give where the scopes and the schema addresses lie in the fields of a ScopeSpans that are no spans."""
    scopes: _Ranges = []
    schemas: _Ranges = []
    for start, end in rest:
        found, _, texts = _fields(payload, start, end, budget, (_FIRST, 0, _THIRD))
        scopes += found
        schemas += texts
    return scopes, schemas


def _fields(
    payload: bytes, at: int, end: int, budget: list[int], wanted: tuple[int, int, int]
) -> tuple[_Ranges, _Ranges, _Ranges]:
    """Give where the contents of three kinds of field lie; every other field is passed over."""
    found: tuple[_Ranges, _Ranges, _Ranges] = ([], [], [])
    while at < end:
        budget[0] -= 1
        if budget[0] < 0:
            raise ValueError(_TOO_MANY)
        tag, begin = _number(payload, at, end)
        at = _after_field(payload, at, end)
        # A known field with another wire type is an unknown field: its tag is none of these.
        if tag in wanted:
            length, begin = _number(payload, begin, end)
            found[wanted.index(tag)].append((begin, begin + length))
    return found


def _after_field(payload: bytes, at: int, end: int) -> int:
    """Give the place after the field at `at`."""
    tag, begin = _number(payload, at, end)
    if not 8 <= tag <= _LARGEST_TAG:
        raise ValueError(f"byte {at} begins a field with the number {tag >> 3}, which no field has")
    kind = tag & 7
    if kind == _LENGTH:
        length, begin = _number(payload, begin, end)
        after = begin + length
    elif kind == _VARINT:
        _, after = _number(payload, begin, end)
    elif kind == _FIXED64:
        after = begin + 8
    elif kind == _FIXED32:
        after = begin + 4
    else:
        raise ValueError(f"byte {at} begins a field of wire type {kind}; OTLP has only 0, 1, 2 and 5")
    if after > end:
        raise ValueError(f"the field at byte {at} reaches to byte {after}, and what it is in ends at {end}")
    return after


def _number(payload: bytes, at: int, end: int) -> tuple[int, int]:
    """Read a varint that lies before `end`: its value, and the place after it."""
    value = 0
    for index in range(_LONGEST_NUMBER):
        if at + index >= end:
            raise ValueError(f"the number at byte {at} is cut off at byte {end}")
        byte = payload[at + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, at + index + 1
    raise ValueError(f"the number at byte {at} is longer than {_LONGEST_NUMBER} bytes")


def _message(payload: bytes, parts: _Ranges) -> bytes:
    """Give the message that these parts are together: protobuf merges them, and to merge is to append."""
    if len(parts) == 1:
        start, end = parts[0]
        return payload[start:end]
    return b"".join(payload[start:end] for start, end in parts)


def _text(payload: bytes, parts: _Ranges) -> str:
    """Give the last of the texts: of a plain field sent several times the last one holds."""
    if not parts:
        return ""
    start, end = parts[-1]
    return str(payload[start:end], "utf-8")


def _same_resource(one: Slice, other: Slice) -> bool:
    return one.resource == other.resource and one.resource_schema == other.resource_schema


def _same_scope(one: Slice, other: Slice) -> bool:
    return one.scope == other.scope and one.scope_schema == other.scope_schema


def _write(pieces: list[bytes], tag: int, *parts: bytes) -> None:
    length = sum(map(len, parts))
    head = bytearray((tag,))
    while length > 0x7F:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    head.append(length)
    pieces.append(bytes(head))
    pieces.extend(parts)
