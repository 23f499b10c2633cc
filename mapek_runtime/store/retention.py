"""What is let go: spans that are too old, and the oldest ones when the file is too large.

A step at a time, between two writes, so that no write waits long; the space is used again by the next
spans, and given back to the disk where the file is larger than it may be.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from .rollup import MINUTE

__all__ = ["Retention", "Usage", "usage"]

_STEP = 1000
"""Spans in one transaction: about 10 ms."""
_MOST_MINUTES = 200_000
"""Rows of the counts by minute, 100 MB at most: with very many operations there are fewer minutes."""
_BYTES_PER_MINUTE = 2048
"""Bytes of the file for each such row: most of a small file is for spans too."""
_MANY_OPERATIONS = 1_000
"""Operations up to which it is not asked whether there is anything left of each."""
_LOOK = 1 << 12
"""Spans after which counts and operations are looked at; where there are many, a quarter of their number,
since a look takes the longer the more there are."""
_GIVE_BACK = 256
"""Pages that are given back to the disk in one step."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes of the file, and of these the bytes that are in use."""

    file: int
    used: int


def usage(connection: sqlite3.Connection) -> Usage:
    """How large the file is; without what is still in its journal."""
    size, pages, free = (
        connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_size", "page_count", "freelist_count")
    )
    return Usage(pages * size, (pages - free) * size)


class Retention:
    """Keeps a file within `max_age` (nanoseconds) and `max_bytes`; one thread calls it."""

    def __init__(self, connection: sqlite3.Connection, *, max_age: int, max_bytes: int) -> None:
        self._connection = connection
        self._max_age = max_age
        self._max_bytes = max_bytes
        self._most_minutes = min(_MOST_MINUTES, max_bytes // _BYTES_PER_MINUTE)
        self._until_look = 0
        self._forgot = False

    def step(self, now: int, written: int) -> int:
        """Let go of what must go, at least twice as many spans as were `written`; gives how many went."""
        gone = 0
        while gone < max(_STEP, 2 * written):
            some = self._spans(now)
            if not some:
                break
            gone += some
        self._until_look -= written
        if self._until_look <= 0:
            self._until_look = max(_LOOK, self._minutes(now) // 4, self._operations() // 4)
        used = usage(self._connection)
        if used.file > self._max_bytes and used.file > used.used:
            # `execute` would give back a single page.
            self._connection.executescript(f"PRAGMA incremental_vacuum({_GIVE_BACK})")
        return gone

    def forgot(self) -> bool:
        """Whether operations were deleted since the last time that this was asked."""
        forgot, self._forgot = self._forgot, False
        return forgot

    def _spans(self, now: int) -> int:
        execute = self._connection.execute
        # Not the first one: a single span of the future would keep all that came after it.
        oldest = execute(
            "SELECT first, last FROM part WHERE latest < ? ORDER BY latest LIMIT 1", (now - self._max_age,)
        ).fetchone()
        most = _STEP
        if oldest is None:
            excess = (used := usage(self._connection).used) - self._max_bytes
            oldest = execute("SELECT first, last FROM part ORDER BY first LIMIT 1").fetchone()
            if excess <= 0 or oldest is None:
                return 0
            # As many as it takes: a thousand large ones may be all that there are.
            (newest,) = execute("SELECT max(last) FROM part").fetchone()
            most = min(_STEP, 1 + excess * (newest - oldest[0] + 1) // used)
        first, last = oldest
        until = min(last, first + most - 1)
        execute("BEGIN IMMEDIATE")
        try:
            gone = execute("DELETE FROM span WHERE id BETWEEN ? AND ?", (first, until)).rowcount
            execute("DELETE FROM part WHERE first = ?", (first,))
            if until < last:
                row = execute(
                    "SELECT min(start), max(start) FROM span WHERE id BETWEEN ? AND ?", (until + 1, last)
                ).fetchone()
                if row[0] is not None:
                    execute("INSERT INTO part VALUES (?, ?, ?, ?)", (until + 1, last, *row))
            execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                execute("ROLLBACK")
            raise
        return max(1, gone)

    def _minutes(self, now: int) -> int:
        """Let counts go by age and by number; gives how many are left, or were before the last went."""
        execute = self._connection.execute
        execute("DELETE FROM minute WHERE minute < ?", ((now - self._max_age) // MINUTE,))
        rows = self._counts()
        if rows > self._most_minutes:
            row = execute(
                "SELECT minute FROM minute ORDER BY minute LIMIT 1 OFFSET ?", (rows - self._most_minutes,)
            ).fetchone()
            execute("DELETE FROM minute WHERE minute < ?", row)
            rows = self._counts()
        if rows > self._most_minutes:
            # Too many in one minute: names that are ever new. The operations that were known before stay.
            row = execute(
                "SELECT operation FROM minute ORDER BY operation LIMIT 1 OFFSET ?", (self._most_minutes,)
            ).fetchone()
            execute("DELETE FROM minute WHERE operation >= ?", row)
        return rows

    def _counts(self) -> int:
        (rows,) = self._connection.execute("SELECT count(*) FROM minute").fetchone()
        return int(rows)

    def _operations(self) -> int:
        """Let operations go of which nothing is left; gives how many there were."""
        execute = self._connection.execute
        (operations,) = execute("SELECT count(*) FROM operation").fetchone()
        if operations > _MANY_OPERATIONS:
            gone = execute(
                "DELETE FROM operation "
                "WHERE id IN (SELECT id FROM operation EXCEPT SELECT operation FROM minute) AND NOT EXISTS "
                "(SELECT 1 FROM span INDEXED BY span_operation WHERE operation = operation.id)"
            ).rowcount
            self._forgot = self._forgot or gone > 0
        return int(operations)
