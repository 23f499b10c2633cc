"""What must hold of every chosen span, and so by which index rows are found.

Rows are walked from the newest. Only where an index leads to few of them is another way taken: the spans
of one trace, those with errors, those of some operations.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from .columns import identifier
from .compile import Place, chosen_operations, chosen_sources, place_of
from .dictionary import Dictionary
from .predicate import comparisons
from .sql import TRUE, Sql, among
from .syntax import All, AllSpans, Compare, Condition, Filter, Kind, Scope

__all__ = ["Needed", "few_of", "in_time", "needed", "restricted", "rows_between"]


class Needed(NamedTuple):
    """What holds of each span that any of some filters chooses."""

    trace_id: bytes | None = None
    errors: bool = False
    operations: frozenset[int] | None = None
    """None: any."""


def needed(spans: Sequence[AllSpans | Filter], dictionary: Dictionary) -> Needed:
    """What each span has that one of the filters chooses."""
    each = [_of_one(one, dictionary) for one in spans]
    traces = {one.trace_id for one in each}
    operations: frozenset[int] | None = frozenset()
    for one in each:
        operations = None if operations is None or one.operations is None else operations | one.operations
    if operations is not None and len(operations) == len(dictionary.operations):
        # All of them are no reason for another way.
        operations = None
    return Needed(
        trace_id=traces.pop() if len(traces) == 1 else None,
        errors=all(one.errors for one in each),
        operations=operations,
    )


def few_of(connection: sqlite3.Connection, wanted: Needed, most: int) -> bool:
    """Whether there are at most `most` spans of the operations."""
    if wanted.operations is None:
        return False
    counted = 0
    for operation in wanted.operations:
        (spans,) = connection.execute(
            "SELECT count(*) FROM (SELECT 1 FROM span INDEXED BY span_operation WHERE operation = ? LIMIT ?)",
            (operation, most - counted + 1),
        ).fetchone()
        counted += spans
        if counted > most:
            return False
    return True


def rows_between(connection: sqlite3.Connection, start: int | None, end: int | None) -> range:
    """The rows among which all spans are that began in a time; nanoseconds since 1970, without the end."""
    if start is None and end is None:
        # Each by its own look: both at once would read every row.
        first, last = connection.execute(
            "SELECT (SELECT min(id) FROM span), (SELECT max(id) FROM span)"
        ).fetchone()
    else:
        first, last = connection.execute(
            "SELECT min(first), max(last) FROM part WHERE latest >= ? AND earliest < ?",
            (_bounded(start, -_MOST), _bounded(end, _MOST)),
        ).fetchone()
    return range(0) if first is None else range(first, last + 1)


def in_time(start: int | None, end: int | None) -> list[Sql]:
    """The spans that began in a time."""
    bounds = []
    if start is not None:
        bounds.append(Sql("start >= ?", (_bounded(start, -_MOST),)))
    if end is not None:
        bounds.append(Sql("start < ?", (_bounded(end, _MOST),)))
    return bounds


_MOST = (1 << 63) - 1


def _bounded(moment: int | None, otherwise: int) -> int:
    return otherwise if moment is None else max(-_MOST, min(_MOST, moment))


def _of_one(spans: AllSpans | Filter, dictionary: Dictionary) -> Needed:
    if isinstance(spans, AllSpans):
        return Needed()
    trace_id, errors = None, False
    names: list[Condition] = []
    services: set[str] | None = None
    for part in _conjuncts(spans.condition):
        places = {place_of(compare.field) for compare in comparisons(part)}
        if places == {Place.OPERATION}:
            names.append(part)
        elif places == {Place.SOURCE}:
            sources = dictionary.sources
            named = {sources[number].service for number in chosen_sources(part, sources)}
            services = named if services is None else services & named
        elif isinstance(part, Compare) and part.op == "=" and part.field.scope is Scope.INTRINSIC:
            if part.field.name == "trace:id":
                trace_id = identifier(part.literal.value)
            elif part.field.name == "span:status":
                errors = errors or (part.literal.kind is Kind.STATUS and part.literal.value == "error")
    return Needed(trace_id, errors, _operations(names, services, dictionary))


def _operations(
    names: list[Condition], services: set[str] | None, dictionary: Dictionary
) -> frozenset[int] | None:
    if not names and services is None:
        return None
    operations = dictionary.operations
    chosen = set(operations)
    for part in names:
        chosen &= chosen_operations(part, operations)
    if services is not None:
        chosen = {number for number in chosen if operations[number].service in services}
    return frozenset(chosen)


def _conjuncts(condition: Condition) -> Iterator[Condition]:
    if isinstance(condition, All):
        for part in condition.conditions:
            yield from _conjuncts(part)
    else:
        yield condition


def restricted(wanted: Needed, dictionary: Dictionary) -> Sql:
    """The rows of the operations that a chosen span can have."""
    if wanted.operations is None:
        return TRUE
    return among("operation", wanted.operations, len(dictionary.operations))
