"""What a condition asks of a span's whole trace: its length, its root, and the children of the span.

Each trace is looked at once a query and remembered for a while, since its spans mostly come together.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from typing import NamedTuple

from .dictionary import Dictionary, OperationRow

__all__ = ["MOST_SPANS", "TraceFacts", "floor_of", "root_of"]

MOST_SPANS = 100_000
"""Spans of one trace that are looked at, the newest; what would need more is not complete."""
_REMEMBERED = 100_000
"""Traces, or parents of spans, whose facts are kept at a time."""


class _Facts(NamedTuple):
    duration: int
    root: OperationRow | None


class TraceFacts:
    """Facts of traces as they are during one query."""

    def __init__(self, connection: sqlite3.Connection, dictionary: Dictionary) -> None:
        self._connection = connection
        self._dictionary = dictionary
        self._facts: dict[bytes, _Facts] = {}
        self._children: dict[bytes, Counter[bytes]] = {}
        self._parents = 0
        self.cut = False
        """Whether a trace had more spans than are looked at."""

    def value(self, name: str, trace_id: bytes, span_id: bytes) -> int | str | None:
        """The value of an intrinsic: `trace:...` or `span:childCount`."""
        if name == "span:childCount":
            return self._child_counts(trace_id)[span_id]
        duration, root = self._facts_of(trace_id)
        if name == "trace:duration":
            return duration
        if root is None:
            return None
        return root.name if name == "trace:rootName" else root.service

    def floor(self, trace_id: bytes) -> int:
        """The row below which the spans of the trace are not looked at; 0 for all but the largest."""
        floor = floor_of(self._connection, trace_id)
        self.cut = self.cut or floor > 0
        return floor

    def _facts_of(self, trace_id: bytes) -> _Facts:
        facts = self._facts.get(trace_id)
        if facts is None:
            if len(self._facts) >= _REMEMBERED:
                self._facts.clear()
            floor = self.floor(trace_id)
            (duration,) = self._connection.execute(
                "SELECT max(start + duration) - min(start) FROM span WHERE trace_id = ? AND id > ?",
                (trace_id, floor),
            ).fetchone()
            operation = root_of(self._connection, trace_id, floor)
            root = None if operation is None else self._dictionary.operations[operation]
            facts = self._facts[trace_id] = _Facts(int(duration), root)
        return facts

    def _child_counts(self, trace_id: bytes) -> Counter[bytes]:
        counts = self._children.get(trace_id)
        if counts is None:
            if self._parents >= _REMEMBERED:
                self._children.clear()
                self._parents = 0
            rows = self._connection.execute(
                "SELECT parent_id, count(DISTINCT span_id) FROM span "
                "WHERE trace_id = ? AND id > ? AND parent_id IS NOT NULL GROUP BY parent_id",
                (trace_id, self.floor(trace_id)),
            )
            counts = self._children[trace_id] = Counter(dict(rows))
            self._parents += len(counts) + 1
        return counts


def floor_of(connection: sqlite3.Connection, trace_id: bytes) -> int:
    """The row after which the newest `MOST_SPANS` spans of a trace come; 0 when it has no more."""
    row = connection.execute(
        "SELECT id FROM span INDEXED BY span_trace WHERE trace_id = ? ORDER BY id DESC LIMIT 1 OFFSET ?",
        (trace_id, MOST_SPANS),
    ).fetchone()
    return int(row[0]) if row else 0


def root_of(connection: sqlite3.Connection, trace_id: bytes, floor: int = 0) -> int | None:
    """The operation of the root: of several, the one that began first; None where there is none."""
    row = connection.execute(
        "SELECT operation FROM span INDEXED BY span_trace "
        "WHERE trace_id = ? AND id > ? AND parent_id IS NULL ORDER BY start, id LIMIT 1",
        (trace_id, floor),
    ).fetchone()
    return int(row[0]) if row else None
