"""From rows back to OTLP: spans put together from columns and body, by joining bytes.

A message of protobuf may be given in pieces, so nothing is parsed: what stands in columns is written in
front of the body, and a field that is in both is the body's.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from struct import Struct
from typing import NamedTuple

from mapek_runtime.export.encode.wire import delimited, text, varint

from .decode import Source

__all__ = ["StoredSpan", "traces_data"]

_times = Struct("<cQcQ").pack


class StoredSpan(NamedTuple):
    """A row of the span table, with the name and the kind of its operation."""

    trace_id: bytes
    span_id: bytes
    parent_id: bytes | None
    name: str
    kind: int
    source: int
    start: int
    duration: int
    body: bytes


def traces_data(spans: Iterable[StoredSpan], sources: dict[int, Source]) -> bytes:
    """The spans as `opentelemetry.proto.trace.v1.TracesData`, grouped by source, else in their order."""
    groups: dict[int, list[bytes]] = {}
    for span in spans:
        groups.setdefault(span.source, []).append(delimited(b"\x12", _span(span)))
    return b"".join(_resource_spans(sources[source], bodies) for source, bodies in groups.items())


def _span(span: StoredSpan) -> bytes:
    parent = b"\x22\x08" + span.parent_id if span.parent_id is not None else b""
    return b"".join((
        b"\x0a\x10", span.trace_id, b"\x12\x08", span.span_id, parent, _name_and_kind(span.name, span.kind),
        _times(b"\x39", span.start, b"\x41", span.start + span.duration), span.body,
    ))  # fmt: skip


@lru_cache(maxsize=1024)
def _name_and_kind(name: str, kind: int) -> bytes:
    return text(b"\x2a", name) + (b"\x30" + varint(kind) if kind else b"")


def _resource_spans(source: Source, spans: list[bytes]) -> bytes:
    scope_spans = b"".join((delimited(b"\x0a", source.scope), *spans, text(b"\x1a", source.scope_schema)))
    return delimited(
        b"\x0a",
        delimited(b"\x0a", source.resource)
        + delimited(b"\x12", scope_spans)
        + text(b"\x1a", source.resource_schema),
    )
