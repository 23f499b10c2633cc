"""The counts of a transaction by minute and operation, and how they are added to those in the file.

One row holds all buckets of a minute: a transaction touches few rows, however much durations differ.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

import msgspec

from .rollup import MINUTE, bucket_of

__all__ = ["Minutes", "SpanColumns", "read_buckets"]

SpanColumns = tuple[bytes, bytes, bytes | None, int, int, int, int, int, bytes]
"""trace id, span id, parent id, operation, source, status, start, duration, body."""

_Buckets = dict[int, int]
read_buckets = msgspec.json.Decoder(_Buckets).decode
"""Counts by bucket, from the text of a row."""
_write = msgspec.json.Encoder().encode


class Minutes:
    """Counts spans; `save` adds them to the file."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: dict[tuple[int, int], tuple[list[int], _Buckets]] = {}
        """By minute and operation: how many failed, and how many are in each bucket."""

    def add(self, rows: Iterable[SpanColumns]) -> None:
        """Count rows of the span table."""
        counts = self._counts
        for _, _, _, operation, _, status, start, duration, _ in rows:
            key = (start // MINUTE, operation)
            found = counts.get(key)
            if found is None:
                found = counts[key] = ([0], {})
            if status == 2:
                found[0][0] += 1
            bucket = bucket_of(duration)
            buckets = found[1]
            buckets[bucket] = buckets.get(bucket, 0) + 1

    def join(self, others: Minutes) -> None:
        """Count what the others counted."""
        for key, (errors, buckets) in others._counts.items():
            mine, counts = self._counts.setdefault(key, ([0], {}))
            mine[0] += errors[0]
            _merge(counts, buckets)

    def save(self, connection: sqlite3.Connection) -> None:
        """Add everything to the rows of the file, within the transaction of the caller."""
        execute = connection.execute
        for (minute, operation), (errors, buckets) in self._counts.items():
            row = execute(
                "SELECT errors, buckets FROM minute WHERE minute = ? AND operation = ?", (minute, operation)
            ).fetchone()
            failed = errors[0]
            if row is not None:
                # Read anew each time: another process may count in the same minute.
                failed += row[0]
                _merge(buckets, read_buckets(row[1]))
            execute(
                "INSERT OR REPLACE INTO minute VALUES (?, ?, ?, ?, ?)",
                (minute, operation, sum(buckets.values()), failed, _write(buckets).decode()),
            )


def _merge(into: _Buckets, counts: _Buckets) -> None:
    for bucket, count in counts.items():
        into[bucket] = into.get(bucket, 0) + count
