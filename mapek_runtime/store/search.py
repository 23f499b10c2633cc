"""From a query to traces and spans, the newest first, within a time.

Pure of threads and files: a connection comes in, values go out. Nothing of a search stays behind.
"""

from __future__ import annotations

import heapq
import sqlite3
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from .attributes import as_dict
from .functions import Closures, Deadline, snapshot
from .model import ChosenSpans, FoundSpan, FoundTrace, SearchResult, SpanSet
from .query.compile import Compiler
from .query.dictionary import status_of
from .query.evaluate import Evaluator, FoundSet
from .query.fields import Row, label, reader, rows_of
from .query.syntax import AllSpans, Filter, Query, Relation, Select, Spansets
from .query.walk import Walk
from .summaries import summary_of

__all__ = ["choose", "chosen", "search"]

_TO_SHOW = 0.25
"""Seconds that showing what was found may take beyond the deadline."""
_MOST_SETS = 1_000
"""Sets of one trace that are shown, those whose spans began first."""


def search(
    connection: sqlite3.Connection,
    query: Query,
    *,
    limit: int = 20,
    spans_per_set: int = 3,
    start: int | None = None,
    end: int | None = None,
    before: int | None = None,
    deadline: float,
) -> SearchResult:
    """The newest traces of which the query chooses spans that began from `start` until before `end`.

    The newest is the one whose newest chosen span came last. `before` is the number that an earlier
    search gave. At `deadline`, a moment of `time.monotonic`, it gives what it has found. Raises
    `QueryError` for what cannot be asked.
    """
    clock, show = Deadline(deadline), Deadline(max(deadline, time.monotonic()) + _TO_SHOW)
    traces: list[FoundTrace] = []
    ranking: _Ranking | None = None
    compiler: Compiler | None = None
    found: list[_Found] = []
    cut = False
    with Closures() as closures, snapshot(connection):
        with clock.reading(connection):
            compiler = Compiler(connection, closures)
            evaluator = Evaluator(connection, compiler, query, start=start, end=end)
            walk = Walk(connection, compiler, _leading(query), start=start, end=end, before=before)
            ranking = _Ranking(walk, evaluator, before, spans_per_set, clock.check)
            for trace in ranking:
                found.append(trace)
                if len(found) == limit:
                    break
        if compiler is not None and ranking is not None:
            if clock.passed:
                found += list(ranking.rest())[: limit - len(found)]
            with show.reading(connection):
                values = _Values(query, compiler)
                for trace in found:
                    shown = _trace(connection, trace, values)
                    if shown is not None:
                        traces.append(shown[0])
                        cut = cut or not shown[1]
            cut = cut or ranking.cut or compiler.facts.cut
    goes_on = before
    if ranking is not None:
        goes_on = ranking.goes_on if clock.passed else (found[-1].newest if len(found) == limit else None)
    return SearchResult(
        traces=tuple(traces),
        complete=not (clock.passed or show.passed or cut),
        inspected=ranking.inspected if ranking is not None else 0,
        before=goes_on,
    )


def choose(
    connection: sqlite3.Connection,
    query: Query,
    *,
    start: int | None = None,
    end: int | None = None,
    limit: int = 1_000,
    deadline: float,
    after: int | None = None,
    attributes: bool = False,
) -> ChosenSpans:
    """The newest spans that the query chooses, each once; only those of rows after `after`.

    Without `attributes` they have none, but what `select` asks for. At `deadline` it gives what it has
    found. Raises `QueryError` for what cannot be asked.
    """
    clock, show = Deadline(deadline), Deadline(max(deadline, time.monotonic()) + _TO_SHOW)
    spans: list[FoundSpan] = []
    numbers: list[int] = []
    cut = False
    with Closures() as closures, snapshot(connection):
        with clock.reading(connection):
            compiler = Compiler(connection, closures)
            values = _Values(query, compiler)
            for number in chosen(
                connection, compiler, query, start=start, end=end, after=after, check=clock.check
            ):
                numbers.append(number)
                if len(numbers) == limit:
                    break
        with show.reading(connection):
            rows = rows_of(connection, numbers)
            spans.extend(values.span(rows[number], attributes=attributes) for number in numbers)
            cut = compiler.facts.cut
    complete = not (clock.passed or show.passed or cut) and len(numbers) < limit
    return ChosenSpans(spans=tuple(spans), complete=complete)


def chosen(
    connection: sqlite3.Connection,
    compiler: Compiler,
    query: Query,
    *,
    start: int | None,
    end: int | None,
    after: int | None,
    before: int | None = None,
    check: Callable[[], None],
) -> Iterator[int]:
    """The rows that a query chooses, the newest first, each span once; between the rows `after` and `before`.

    To be read within a snapshot; `check` is called now and then, and may raise to end it.
    """
    walk = Walk(connection, compiler, _leading(query), start=start, end=end, after=after, before=before)
    if not isinstance(query.spansets, Relation) and all(isinstance(stage, Select) for stage in query.stages):
        return _each_once(walk)
    evaluator = Evaluator(connection, compiler, query, start=start, end=end)
    found = _by_trace(walk, evaluator, -1 if after is None else after, check)
    return found if before is None else (number for number in found if number < before)


class _Found(NamedTuple):
    """A trace of which spans were chosen."""

    newest: int
    trace_id: bytes
    sets: list[FoundSet]


class _Ranking:
    """Traces in the order of their newest chosen span, while the walk goes on.

    A trace is met at the newest row that it may be chosen for. Where relations or stages then choose
    older spans of it, it waits until the walk has come there.
    """

    def __init__(
        self,
        walk: Walk,
        evaluator: Evaluator,
        before: int | None,
        most: int,
        check: Callable[[], None],
    ) -> None:
        self._walk = walk
        self._evaluator = evaluator
        self._before = before
        self._most = most
        self._check = check
        self._waiting: list[tuple[int, _Found]] = []
        self._met: int | None = None
        self.cut = False
        """Whether a trace fell into more sets than are shown."""

    @property
    def inspected(self) -> int:
        """Rows that were looked at."""
        return self._walk.inspected

    @property
    def goes_on(self) -> int | None:
        """Where another search goes on when this one was interrupted; None when it was not."""
        position = self._walk.position if self._met is None else self._met + 1
        return position if position > self._walk.first else None

    def __iter__(self) -> Iterator[_Found]:
        seen: set[bytes] = set()
        for row, trace_id, _ in self._walk:
            while self._waiting and -self._waiting[0][0] > row:
                yield heapq.heappop(self._waiting)[1]
            if trace_id in seen:
                continue
            # Interrupted from here on, another search has to meet this trace again.
            self._met = row
            self._check()
            sets = self._evaluator.sets(trace_id)
            seen.add(trace_id)
            self._met = None
            newest = max((each.newest for each in sets), default=None)
            if newest is None or (self._before is not None and newest >= self._before):
                continue
            self.cut = self.cut or len(sets) > _MOST_SETS
            trace = _Found(newest, trace_id, [each.trimmed(self._most) for each in sets[:_MOST_SETS]])
            if newest >= row:
                yield trace
            else:
                heapq.heappush(self._waiting, (-newest, trace))
        yield from self.rest()

    def rest(self) -> Iterator[_Found]:
        """The traces that still wait."""
        while self._waiting:
            yield heapq.heappop(self._waiting)[1]


class _Values:
    """Spans as they are shown, with what `select` asks for beside each."""

    def __init__(self, query: Query, compiler: Compiler) -> None:
        fields = [field for stage in query.stages if isinstance(stage, Select) for field in stage.fields]
        self._read = {
            label(field): reader(field, compiler.dictionary, compiler.facts)
            for field in dict.fromkeys(fields)
        }
        self.dictionary = compiler.dictionary

    def span(self, row: Row, *, attributes: bool) -> FoundSpan:
        """A row as it is shown, with the values that it has."""
        operation = self.dictionary.operations[row.operation]
        selected = {name: value for name, read in self._read.items() if (value := read(row)) is not None}
        return FoundSpan(
            trace_id=row.trace_id.hex(),
            span_id=row.span_id.hex(),
            parent_id=row.parent_id.hex() if row.parent_id is not None else "",
            service=operation.service,
            name=operation.name,
            kind=operation.kind,
            status=status_of(row.status),
            start=row.start,
            duration=row.duration,
            attributes=as_dict(Span.FromString(row.body).attributes) if attributes else {},
            selected=selected,
        )


def _leading(query: Query) -> list[AllSpans | Filter]:
    """The filters without which no span is chosen: each chosen span is one of theirs."""
    return list(dict.fromkeys(_leaders(query.spansets)))


def _leaders(spansets: Spansets) -> Iterator[AllSpans | Filter]:
    if not isinstance(spansets, Relation):
        yield spansets
        return
    if spansets.op in {"&&", "||"}:
        yield from _leaders(spansets.left)
    yield from _leaders(spansets.right)


def _each_once(walk: Walk) -> Iterator[int]:
    """Rows of spans; of one that was sent twice the last."""
    seen: set[bytes] = set()
    for row, trace_id, span_id in walk:
        if (identity := trace_id + span_id) not in seen:
            seen.add(identity)
            yield row


def _by_trace(walk: Walk, evaluator: Evaluator, after: int, check: Callable[[], None]) -> Iterator[int]:
    """Rows of the spans that are chosen for how they stand in their trace, the newest first."""
    seen: set[bytes] = set()
    waiting: list[int] = []
    for row, trace_id, _ in walk:
        while waiting and -waiting[0] > row:
            yield -heapq.heappop(waiting)
        if trace_id not in seen:
            check()
            seen.add(trace_id)
            for each in evaluator.sets(trace_id):
                for number in each.rows:
                    if number > after:
                        heapq.heappush(waiting, -number)
    while waiting:
        yield -heapq.heappop(waiting)


def _trace(connection: sqlite3.Connection, found: _Found, values: _Values) -> tuple[FoundTrace, bool] | None:
    """A found trace with what it is in a line, and whether all of it was looked at; None: it has gone."""
    summary = summary_of(connection, found.trace_id, values.dictionary)
    if summary is None:
        return None
    rows = rows_of(connection, (number for each in found.sets for number in each.rows))
    trace = FoundTrace(
        trace_id=found.trace_id.hex(),
        root_service=summary.root_service,
        root_name=summary.root_name,
        start=summary.start,
        end=summary.end,
        spans=summary.spans,
        errors=summary.errors,
        orphans=summary.orphans,
        services=summary.services,
        sets=tuple(
            SpanSet(
                matched=each.matched,
                spans=tuple(values.span(rows[number], attributes=True) for number in each.rows),
                by=each.by,
            )
            for each in found.sets
        ),
    )
    return trace, summary.whole
