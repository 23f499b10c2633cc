"""What a trace is, in a line: its root, its time, how many spans and errors each service has."""

from __future__ import annotations

import sqlite3
from collections import Counter
from typing import NamedTuple

from .model import ServiceCount
from .query.dictionary import Dictionary
from .query.facts import floor_of

__all__ = ["Summary", "summary_of"]


class Summary(NamedTuple):
    """The same fields as a `FoundTrace` has."""

    root_service: str
    root_name: str
    start: int
    end: int
    spans: int
    errors: int
    orphans: int
    services: dict[str, ServiceCount]
    whole: bool
    """False for a trace of which only the newest spans were looked at; `spans` is right all the same."""


def summary_of(connection: sqlite3.Connection, trace_id: bytes, dictionary: Dictionary) -> Summary | None:
    """The summary of a trace, each span counted once; None when it is not stored (any more)."""
    floor = floor_of(connection, trace_id)
    rows = connection.execute(
        "SELECT span_id, parent_id, operation, status, start, start + duration FROM span "
        "INDEXED BY span_trace WHERE trace_id = ? AND id > ? ORDER BY id",
        (trace_id, floor),
    )
    # A span that was sent twice is the one that came last.
    spans = {row[0]: row for row in rows}
    if not spans:
        return None
    operations = dictionary.operations
    counts: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    orphans = 0
    for _, parent_id, operation, status, _, _ in spans.values():
        service = operations[operation].service
        counts[service] += 1
        errors[service] += status == 2
        orphans += parent_id is not None and parent_id not in spans
    roots = [(start, operation) for _, parent, operation, _, start, _ in spans.values() if parent is None]
    root = operations[min(roots, key=lambda each: each[0])[1]] if roots else None
    total = len(spans)
    if floor:
        (total,) = connection.execute(
            "SELECT count(*) FROM span INDEXED BY span_trace WHERE trace_id = ?", (trace_id,)
        ).fetchone()
    return Summary(
        root_service=root.service if root else "",
        root_name=root.name if root else "",
        start=min(row[4] for row in spans.values()),
        end=max(int(row[5]) for row in spans.values()),
        spans=total,
        errors=errors.total(),
        orphans=0 if floor else orphans,
        services={
            service: ServiceCount(spans=number, errors=errors[service]) for service, number in counts.items()
        },
        whole=not floor,
    )
