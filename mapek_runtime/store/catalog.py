"""What there is: services, operations, which service calls which, and what is new."""

from __future__ import annotations

import sqlite3

from . import search
from .functions import Deadline, snapshot
from .model import SPAN_KINDS, Dependency, FoundSpan, Operation
from .query.dictionary import kind_of
from .query.syntax import Query

__all__ = ["dependencies", "newest", "operations", "services"]

_MOST_OPERATIONS = 10_000
"""Of an answer: names that hold a number or an id are another one with every span."""
_LOOKED_AT = 200_000
"""Spans, the newest ones, among which dependencies are found."""
_CALLS = """
SELECT parents.service, children.service, count(*) FROM span AS child
JOIN operation AS children ON children.id = child.operation
JOIN span AS parent ON parent.trace_id = child.trace_id AND parent.span_id = child.parent_id
JOIN operation AS parents ON parents.id = parent.operation
WHERE child.id > (SELECT max(id) FROM span) - :newest AND parents.service <> children.service
AND (:start IS NULL OR child.start >= :start) AND (:end IS NULL OR child.start <= :end)
GROUP BY 1, 2 ORDER BY 1, 2
"""


def services(connection: sqlite3.Connection) -> tuple[str, ...]:
    """The names of all services, in order."""
    rows = connection.execute("SELECT DISTINCT service FROM operation ORDER BY service")
    return tuple(service for (service,) in rows)


def operations(
    connection: sqlite3.Connection, service: str | None, kind: str | None
) -> tuple[Operation, ...]:
    """The operations of a service and of a kind, at most ten thousand; None: of all."""
    rows = connection.execute(
        "SELECT service, name, kind FROM operation "
        "WHERE (:service IS NULL OR service = :service) AND (:kind IS NULL OR kind = :kind) "
        "ORDER BY service, name, kind LIMIT :most",
        {
            "service": service,
            "kind": None if kind is None else _number_of(kind),
            "most": _MOST_OPERATIONS,
        },
    )
    return tuple(Operation(service=row[0], name=row[1], kind=kind_of(row[2])) for row in rows)


def newest(
    connection: sqlite3.Connection, after: int, query: Query, limit: int, deadline: float
) -> tuple[int, tuple[FoundSpan, ...]]:
    """What arrived after the row `after`, and the last row; with -1 only that."""
    # One look at both: what arrives in between would be told twice.
    with snapshot(connection):
        (last,) = connection.execute("SELECT coalesce(max(id), 0) FROM span").fetchone()
        if after < 0 or after >= last:
            # The last ones may have been let go; no number is given twice.
            return last, ()
        chosen = search.choose(
            connection, query, start=None, end=None, limit=limit, deadline=deadline, after=after,
            attributes=True,
        )  # fmt: skip
        return last, chosen.spans


def dependencies(
    connection: sqlite3.Connection, start: int | None, end: int | None, deadline: float
) -> tuple[Dependency, ...]:
    """How often a span of one service has a parent of another, among the newest spans of that time.

    Without an answer when the time is over.
    """
    if len(services(connection)) < 2:
        return ()
    rows: list[tuple[str, str, int]] = []
    with Deadline(deadline).reading(connection):
        rows += connection.execute(_CALLS, {"newest": _LOOKED_AT, "start": start, "end": end})
    return tuple(Dependency(parent=parent, child=child, calls=calls) for parent, child, calls in rows)


def _number_of(kind: str) -> int:
    return SPAN_KINDS.index(kind) if kind in SPAN_KINDS else -1
