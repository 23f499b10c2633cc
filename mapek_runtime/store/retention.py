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
_LOOK = 1 << 12
"""Spans after which the counts by minute are looked at."""
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
        self._since = _LOOK
        self.last_gone = 0
        """The last row that was deleted."""

    def step(self, now: int, written: int) -> int:
        """Let go of what must go, at least twice as many spans as were `written`; gives how many went."""
        gone = 0
        while gone < max(_STEP, 2 * written):
            some = self._spans(now)
            if not some:
                break
            gone += some
        self._since += written
        if self._since >= _LOOK:
            self._since = 0
            self._minutes(now)
        used = usage(self._connection)
        if used.file > self._max_bytes and used.file > used.used:
            # `execute` would give back a single page.
            self._connection.executescript(f"PRAGMA incremental_vacuum({_GIVE_BACK})")
        return gone

    def _spans(self, now: int) -> int:
        execute = self._connection.execute
        oldest = execute("SELECT first, last, latest FROM part ORDER BY first LIMIT 1").fetchone()
        if oldest is None:
            return 0
        first, last, latest = oldest
        too_old = latest < now - self._max_age
        if not too_old and usage(self._connection).used <= self._max_bytes:
            return 0
        until = min(last, first + _STEP - 1)
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
            execute("ROLLBACK")
            raise
        self.last_gone = until
        return max(1, gone)

    def _minutes(self, now: int) -> None:
        execute = self._connection.execute
        execute("DELETE FROM minute WHERE minute < ?", ((now - self._max_age) // MINUTE,))
        (rows,) = execute("SELECT count(*) FROM minute").fetchone()
        if rows > _MOST_MINUTES:
            row = execute(
                "SELECT minute FROM minute ORDER BY minute LIMIT 1 OFFSET ?", (rows - _MOST_MINUTES,)
            ).fetchone()
            execute("DELETE FROM minute WHERE minute < ?", row)
