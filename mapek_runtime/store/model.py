"""What the store answers, as values. Times and durations are in nanoseconds, ids are hexadecimal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "Brush",
    "ChosenSpans",
    "Dependency",
    "Difference",
    "DifferentField",
    "DifferentValue",
    "FoundSpan",
    "FoundTrace",
    "Latency",
    "Operation",
    "SPAN_KINDS",
    "STATUSES",
    "SearchResult",
    "ServiceCount",
    "SpanPage",
    "SpanSet",
    "StoredTrace",
    "Value",
]

SPAN_KINDS = ("unspecified", "internal", "server", "client", "producer", "consumer")
"""The words for OTLP's numbers."""
STATUSES = ("unset", "ok", "error")
"""The words for OTLP's numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A span name of a service; `kind` is one of SPAN_KINDS."""

    service: str
    name: str
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundSpan:
    """A span that a query chose."""

    trace_id: str
    span_id: str
    parent_id: str
    """Empty for a root."""
    service: str
    name: str
    kind: str
    status: str
    """unset, ok or error."""
    start: int
    duration: int
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """Every attribute of the span; values are str, bool, int, float, bytes, None, or lists and mappings of
    these."""
    selected: Mapping[str, Any] = field(default_factory=dict)
    """What `select` asked for, by the name it was written with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanSet:
    """The spans of a trace that belong together: one set, or with `by` one for each value."""

    matched: int
    """How many were chosen; `spans` are the first of them."""
    spans: tuple[FoundSpan, ...]
    by: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceCount:
    """How many spans of a trace are of one service."""

    spans: int
    errors: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundTrace:
    """A trace of which a query chose spans."""

    trace_id: str
    root_service: str
    """Empty when the root has not been stored, or not yet."""
    root_name: str
    start: int
    end: int
    spans: int
    errors: int
    orphans: int
    """Spans whose parent is not in the store."""
    services: Mapping[str, ServiceCount]
    sets: tuple[SpanSet, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenSpans:
    """Spans that a query chose, the newest first."""

    spans: tuple[FoundSpan, ...]
    complete: bool
    """False when the time, the number of spans to look at or that of spans to give ran out: there may be
    more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """Traces, the newest first."""

    traces: tuple[FoundTrace, ...]
    complete: bool
    """False when the time or the number of spans to look at ran out: there may be more."""
    inspected: int
    """Spans that were looked at, as far as that is known."""
    before: int | None = None
    """Give it to the next search for the traces after these; None when there are none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTrace:
    """A trace, or a page of one."""

    trace_id: str
    data: bytes
    """opentelemetry.proto.trace.v1.TracesData; the spans in the order of their start, each once."""
    spans: int
    """How many spans are in `data`."""
    total: int
    """How many the trace has."""
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """The durations of one operation in one time: counts, and percentiles in nanoseconds."""

    operation: Operation
    start: int
    seconds: float
    spans: int
    errors: int
    p50: float
    p95: float
    p99: float
    counts: Mapping[int, int]
    """How many spans there are in each bucket of `rollup`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependency:
    """Spans of `child` whose parent is of `parent`, both names of services."""

    parent: str
    child: str
    calls: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanPage:
    """Some of the spans that a query chose, one page of them."""

    data: bytes
    """opentelemetry.proto.trace.v1.TracesData."""
    spans: int
    done: float
    """The share of all rows that were looked at, this page's among them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Brush:
    """Some of the spans, by their start and their duration; None is no bound."""

    start: int | None = None
    end: int | None = None
    """Spans that began before it."""
    shortest: int | None = None
    longest: int | None = None
    """Spans that are at most as long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DifferentValue:
    """A value of an attribute, and how many spans of each side have it."""

    kind: str
    """string, int, float, bool, range, absent (the attribute is not there) or other."""
    text: str
    condition: str
    """What chooses spans with this value, as it stands between the braces of TraceQL; empty where nothing
    does."""
    selected: int
    rest: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DifferentField:
    """An attribute whose values differ between the selected spans and the rest."""

    field: str
    """As TraceQL writes it."""
    score: float
    """The share of spans, from 0 to 1, by which the sides differ, as far as it is no chance."""
    values: tuple[DifferentValue, ...]
    more: int
    """Values that are not told."""
    alike: tuple[str, ...]
    """Other attributes that tell the same spans apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What distinguishes the selected spans from the rest of those that a query chose."""

    selected: int
    """Spans that were compared."""
    rest: int
    enough: bool
    """False when there are too few spans of a side to say anything."""
    fields: tuple[DifferentField, ...]
    """Those that differ most first; none when nothing differs by more than chance."""
    complete: bool
    """False when only the newest spans were compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """A value that a field had: string, int, float, bool, duration, status or kind, and its text."""

    kind: str
    text: str
