"""Which spans of one trace a query chooses, and into which sets they fall."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

from .compile import Compiler
from .fields import Row, reader, rows_of
from .grouping import grouped
from .relations import Chosen, Link, filters, related
from .syntax import Aggregate, AllSpans, By, Field, Filter, Query

__all__ = ["Evaluator", "FoundSet"]


class FoundSet(NamedTuple):
    """A set of chosen spans."""

    matched: int
    newest: int
    """The row of the span that came last."""
    rows: tuple[int, ...]
    """In the order of their start."""
    by: tuple[tuple[str, Any], ...]

    def trimmed(self, most: int) -> FoundSet:
        """The same with the first rows only."""
        return self._replace(rows=self.rows[:most])


class Evaluator:
    """Evaluates one query on traces; of the largest it looks at the newest spans."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        compiler: Compiler,
        query: Query,
        *,
        start: int | None = None,
        end: int | None = None,
    ) -> None:
        self._connection = connection
        self._facts = compiler.facts
        self._spansets = query.spansets
        self._stages = [stage for stage in query.stages if isinstance(stage, Aggregate | By)]
        self._start, self._end = start, end
        self._where = {one: compiler.spans(one) for one in filters(query.spansets)}
        self.read: Callable[[Field], Callable[[Row], Any]] = cache(
            lambda field: reader(field, compiler.dictionary, compiler.facts)
        )
        for stage in self._stages:
            if stage.field is not None:
                # Now, and not with the first trace: it may be a field that there is not.
                self.read(stage.field)

    def sets(self, trace_id: bytes) -> list[FoundSet]:
        """The sets of chosen spans; none when the trace is not found."""
        floor = self._facts.floor(trace_id)
        chosen = related(
            self._spansets,
            lambda spans: self._chosen(spans, trace_id, floor),
            lambda: self._parents(trace_id, floor),
        )
        links = sorted((link for link in chosen.values() if self._is_in_time(link.start)), key=_by_start)
        if not links:
            return []
        if not self._stages:
            return [_found([link.row for link in links], ())]
        rows = rows_of(self._connection, (link.row for link in links))
        groups = grouped([rows[link.row] for link in links], self._stages, self.read)
        return [_found([row.id for row in group.rows], group.by) for group in groups]

    def _chosen(self, spans: AllSpans | Filter, trace_id: bytes, floor: int) -> Chosen:
        where = self._where[spans]
        cursor = self._connection.execute(
            "SELECT id, span_id, parent_id, start FROM span INDEXED BY span_trace "
            f"WHERE trace_id = ? AND id > ? AND ({where.text}) ORDER BY id",
            (trace_id, floor, *where.parameters),
        )
        # A span that was sent twice is the one that came last.
        return {span_id: Link(row, parent, start) for row, span_id, parent, start in cursor}

    def _parents(self, trace_id: bytes, floor: int) -> Mapping[bytes, bytes | None]:
        cursor = self._connection.execute(
            "SELECT span_id, parent_id FROM span INDEXED BY span_trace "
            "WHERE trace_id = ? AND id > ? ORDER BY id",
            (trace_id, floor),
        )
        return dict(cursor.fetchall())

    def _is_in_time(self, start: int) -> bool:
        return (self._start is None or start >= self._start) and (self._end is None or start < self._end)


def _by_start(link: Link) -> tuple[int, int]:
    return link.start, link.row


def _found(rows: list[int], by: tuple[tuple[str, Any], ...]) -> FoundSet:
    return FoundSet(len(rows), max(rows), tuple(rows), by)
