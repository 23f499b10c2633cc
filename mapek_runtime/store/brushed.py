"""From a query and a brush to what distinguishes the brushed spans from the others that the query chooses.

What lies around the brush is asked for by bounds of its own: the newest spans alone might all be brushed,
or none of them.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from mapek_runtime.errors import QueryError

from .attributes import as_dict
from .difference import FEWEST, Facts, differences
from .model import Brush, Difference
from .query.dictionary import Dictionary, status_of
from .query.fields import Row, rows_of
from .query.syntax import (
    All,
    AllSpans,
    Compare,
    Condition,
    Field,
    Filter,
    Kind,
    Literal,
    Not,
    Query,
    Relation,
    Scope,
    Select,
)
from .query.unparse import field_text
from .sample import Sample, choose_sample, thin

__all__ = ["difference"]

_DURATION = Field(Scope.INTRINSIC, "span:duration")
_FIRST, _LAST = 0, (1 << 63) - 1
_LOOKED_AT = 500_000
"""Rows, the newest of each part of the time, among which spans are chosen."""
_MOST_BYTES = 64 << 20
_AT_ONCE = 500
_LONG = 1_001
"""Characters of a text that are compared; so long a one has no condition."""


def difference(
    connection: sqlite3.Connection,
    query: Query,
    brush: Brush,
    *,
    start: int | None = None,
    end: int | None = None,
    limit: int,
    deadline: float,
) -> Difference:
    """Compare the brushed spans that a query chooses from `start` until before `end` with its others.

    Of each side at most half of `limit`, from the whole time. Raises `QueryError` for what cannot be asked.
    """
    if brush == Brush():
        raise QueryError("nothing is selected; give bounds of the time or of the duration")
    since, until = _FIRST if start is None else start, _LAST if end is None else end
    facts = _facts(Dictionary(connection))
    samples: tuple[list[Sample], list[Sample]] = ([], [])
    selected: list[Facts] = []
    rest: list[Facts] = []
    if isinstance(query.spansets, Relation) or not all(isinstance(stage, Select) for stage in query.stages):
        # What such a query chooses depends on every span of a trace: it is asked as it is, and divided.
        sample = choose_sample(
            connection, query, start=since, end=until, most=limit, looked_at=_LOOKED_AT, deadline=deadline
        )
        samples[0].append(sample)
        for row in _read(connection, sample):
            (selected if _is_brushed(row, brush) else rest).append(facts(row))
    else:
        now = time.monotonic()
        for part in _parts(query, brush, since, until):
            sample = choose_sample(
                connection,
                part.query,
                start=part.start,
                end=part.end,
                most=limit // 2,
                looked_at=_LOOKED_AT,
                # What is brushed comes first, and leaves time for the rest.
                deadline=min(deadline, now + (deadline - now) / 2) if part.is_brushed else deadline,
            )
            samples[not part.is_brushed].append(sample)
        for side in samples:
            thin(side, limit // 2)
        selected, rest = ([facts(row) for one in side for row in _read(connection, one)] for side in samples)
    return Difference(
        selected=len(selected),
        rest=len(rest),
        enough=min(len(selected), len(rest)) >= FEWEST,
        fields=differences(selected, rest),
        complete=all(sample.complete for side in samples for sample in side),
    )


def _read(connection: sqlite3.Connection, sample: Sample) -> Iterator[Row]:
    """The rows of a sample; as many as have `_MOST_BYTES`, for spans may be of any size."""
    left = _MOST_BYTES
    for numbers in sample.chunks(_AT_ONCE):
        for row in rows_of(connection, numbers).values():
            left -= len(row.body)
            yield row
        if left < 0:
            sample.complete = False
            return


class _Part(NamedTuple):
    """Spans that one question finds."""

    query: Query
    start: int
    end: int
    is_brushed: bool


def _parts(query: Query, brush: Brush, start: int, end: int) -> Iterator[_Part]:
    """The brushed spans, and all others: beside them in time, and of another duration."""
    first = min(max(start, _FIRST if brush.start is None else brush.start), end)
    last = max(min(end, _LAST if brush.end is None else brush.end), first)
    bounds = [
        Compare(_DURATION, op, Literal(Kind.DURATION, bound))
        for op, bound in ((">=", brush.shortest), ("<=", brush.longest))
        if bound is not None
    ]
    inside = _both(bounds)
    yield _Part(query if inside is None else _also(query, inside), first, last, is_brushed=True)
    if inside is not None:
        yield _Part(_also(query, Not(inside)), first, last, is_brushed=False)
    if start < first:
        yield _Part(query, start, first, is_brushed=False)
    if last < end:
        yield _Part(query, last, end, is_brushed=False)


def _both(conditions: list[Compare]) -> Condition | None:
    if not conditions:
        return None
    return conditions[0] if len(conditions) == 1 else All(tuple(conditions))


def _also(query: Query, condition: Condition) -> Query:
    """The same query of spans of which the condition holds as well."""
    if isinstance(query.spansets, AllSpans):
        return Query(Filter(condition), query.stages)
    assert isinstance(query.spansets, Filter)
    return Query(Filter(All((query.spansets.condition, condition))), query.stages)


def _is_brushed(row: Row, brush: Brush) -> bool:
    return (
        (brush.start is None or row.start >= brush.start)
        and (brush.end is None or row.start < brush.end)
        and (brush.shortest is None or row.duration >= brush.shortest)
        and (brush.longest is None or row.duration <= brush.longest)
    )


def _facts(dictionary: Dictionary) -> Callable[[Row], Facts]:
    """What is compared of a span: its attributes, and what it has in common with others."""

    @cache
    def of_span(key: str) -> str:
        return field_text(Field(Scope.SPAN, key))

    @cache
    def of_source(number: int) -> dict[str, Any]:
        source = dictionary.sources[number]
        found = {
            field_text(Field(Scope.RESOURCE, key)): value
            for key, value in source.resource.items()
            if value is not None
        }
        if source.name:
            found["instrumentation:name"] = source.name
        return found

    @cache
    def of_operation(number: int) -> dict[str, Any]:
        operation = dictionary.operations[number]
        return {"name": operation.name, "kind": operation.kind}

    def facts(row: Row) -> Facts:
        span = Span.FromString(row.body)
        values = {**of_source(row.source), **of_operation(row.operation), "status": status_of(row.status)}
        if span.status.message:
            values["span:statusMessage"] = span.status.message
        for key, value in as_dict(span.attributes).items():
            if value is not None:
                values[of_span(key)] = value[:_LONG] if isinstance(value, str | bytes) else value
        return Facts(row.trace_id, row.span_id, row.duration, values)

    return facts
