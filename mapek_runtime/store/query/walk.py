"""The rows that a query may choose, from the newest, a stretch of rows at a time.

After each stretch it is known how far the walk has come, so that one that ran out of time can be gone on
with, and a better way can be taken when the first stretches did not give enough.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence

from .compile import Compiler
from .plan import few_of, in_time, needed, restricted, rows_between
from .sql import FALSE, TRUE, Sql, both, either
from .syntax import AllSpans, Filter

__all__ = ["Walk"]

_FIRST = 8_192
"""Rows of the first stretch; each next one has four times as many."""
_LONGEST = 131_072
_FEW = 2_000
"""Spans that are fetched by their index at once."""
_PATIENCE = _FIRST * 16
"""The stretch before which it is asked whether another way is shorter after all."""


Walked = tuple[int, bytes, bytes]


class Walk:
    """Rows that one of `spans` chooses and that began in a time, the newest first.

    `position` is a row: everything from it on has been looked at.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        compiler: Compiler,
        spans: Sequence[AllSpans | Filter],
        *,
        start: int | None = None,
        end: int | None = None,
        before: int | None = None,
        after: int | None = None,
    ) -> None:
        self._connection = connection
        self._needed = needed(spans, compiler.dictionary)
        self._where = both(
            [
                *in_time(start, end),
                either(compiler.spans(one) for one in spans),
            ]
        )
        rows = rows_between(connection, start, end)
        first = rows.start if after is None else max(rows.start, after + 1)
        last = rows.stop if before is None else min(rows.stop, before)
        self._of_operations = restricted(self._needed, compiler.dictionary)
        self._rows = range(first, max(first, last))
        self.position = self._rows.stop

    @property
    def inspected(self) -> int:
        """How many rows were looked at, or passed over by an index."""
        return self._rows.stop - self.position

    @property
    def first(self) -> int:
        """The row where the walk ends."""
        return self._rows.start

    def __iter__(self) -> Iterator[Walked]:
        """Rows, each with its trace id and span id."""
        if self._where == FALSE:
            self.position = self._rows.start
            return
        trace_id = self._needed.trace_id
        if trace_id is not None:
            where = Sql("trace_id = ?", (trace_id,))
            yield from self._stretch("INDEXED BY span_trace", self._rows, where)
            return
        length = _FIRST
        way = "INDEXED BY span_error" if self._needed.errors else "NOT INDEXED"
        also = Sql("status = 2") if self._needed.errors else TRUE
        while self.position > self._rows.start:
            rest = range(self._rows.start, self.position)
            if self._is_shorter_by_operation(len(rest), length):
                yield from self._stretch("INDEXED BY span_operation", rest, self._of_operations)
                return
            yield from self._stretch(way, range(max(rest.start, rest.stop - length), rest.stop), also)
            length = min(length * 4, _LONGEST)

    def _is_shorter_by_operation(self, rest: int, length: int) -> bool:
        """Whether all spans of the operations are fetched sooner than the rest is walked.

        Few are at once. Many are only when the first stretches have shown that walking may not end soon.
        """
        if rest <= length:
            return False
        if not self.inspected:
            return few_of(self._connection, self._needed, _FEW)
        return length == _PATIENCE and few_of(self._connection, self._needed, rest // 20)

    def _stretch(self, way: str, rows: range, also: Sql) -> Iterator[Walked]:
        where = both((also, self._where))
        cursor = self._connection.execute(
            f"SELECT id, trace_id, span_id FROM span {way} "
            f"WHERE id >= ? AND id < ? AND ({where.text}) ORDER BY id DESC",
            (rows.start, rows.stop, *where.parameters),
        )
        try:
            for walked in cursor:
                self.position = walked[0]
                yield walked
        finally:
            cursor.close()
        self.position = rows.start
