"""From a condition to SQL: what columns and dictionaries can say, then Python for what is in bodies.

Parts of a condition that ask for the same kind of thing are decided together: operations and sources as
sets of numbers, everything in the body by one call of Python a row, behind bytes that SQLite looks for.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping
from enum import Enum, auto

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from mapek_runtime.errors import QueryError
from mapek_runtime.store.functions import HOLDS, Closures, still_time

from .body import Body, compare_body, is_in_body, needles
from .columns import compare_column
from .dictionary import Dictionary, OperationRow, SourceRow
from .facts import TraceFacts
from .matching import matcher
from .predicate import comparisons, predicate
from .sql import FALSE, TRUE, Sql, among, both, either, negated
from .syntax import All, AllSpans, Compare, Condition, Field, Filter, Not, Scope

__all__ = ["Compiler", "Place", "chosen_operations", "chosen_sources", "place_of"]

_MOST_COMPARISONS = 200
"""More than people write, and fewer than SQLite's nesting allows."""
_DEEPEST = 100
_LOOK = 1_000
"""Operations between two looks at the clock."""


class Place(Enum):
    """Where a field is decided; of parts that must all hold, the cheapest are asked first."""

    OPERATION = auto()
    COLUMN = auto()
    SOURCE = auto()
    BODY = auto()
    TRACE = auto()
    MIXED = auto()


def place_of(field: Field) -> Place:
    """Where a field is decided. Raises `QueryError` for an intrinsic that there is not."""
    if is_in_body(field):
        return Place.BODY
    if field.scope in {Scope.RESOURCE, Scope.INSTRUMENTATION}:
        return Place.SOURCE
    place = _INTRINSICS.get(field.name)
    if place is None:
        raise QueryError(f"{field.name!r} is no field of a span; there are {', '.join(sorted(_INTRINSICS))}")
    return place


class Compiler:
    """Compiles the conditions of one query."""

    def __init__(self, connection: sqlite3.Connection, closures: Closures) -> None:
        self.dictionary = Dictionary(connection)
        self.facts = TraceFacts(connection, self.dictionary)
        self._closures = closures

    def spans(self, spans: AllSpans | Filter) -> Sql:
        """Which rows of the span table are chosen. Raises `QueryError` for what cannot be asked."""
        if isinstance(spans, AllSpans):
            return TRUE
        _check_size(spans.condition)
        return self.condition(spans.condition)

    def condition(self, condition: Condition) -> Sql:
        """The rows of which it holds."""
        place = _place(condition)
        if place is Place.OPERATION:
            operations = self.dictionary.operations
            return among("operation", chosen_operations(condition, operations), len(operations))
        if place is Place.SOURCE:
            sources = self.dictionary.sources
            return among("source", chosen_sources(condition, sources), len(sources))
        if place is Place.BODY:
            return self._body(condition)
        if isinstance(condition, Compare):
            return (
                compare_column(condition, self._closures) if place is Place.COLUMN else self._trace(condition)
            )
        if isinstance(condition, Not):
            return negated(self.condition(condition.condition))
        join = both if isinstance(condition, All) else either
        return join(self.condition(part) for part in _grouped(condition))

    def _body(self, condition: Condition) -> Sql:
        holds = predicate(condition, lambda compare: compare_body(compare, self.dictionary))

        def check(body: bytes, source: int, start: int) -> bool:
            return holds(Body(Span.FromString(body), source, start))

        first = self._needles(condition)
        if first == FALSE:
            return FALSE
        exact = Sql(f"{HOLDS}(?, body, source, start)", (self._closures.lend(check),))
        return both((first, exact))

    def _needles(self, condition: Condition) -> Sql:
        """What can be said of a body without parsing it; TRUE where nothing can."""
        if isinstance(condition, Not):
            return TRUE
        if not isinstance(condition, Compare):
            join = both if isinstance(condition, All) else either
            return join(dict.fromkeys(self._needles(part) for part in condition.conditions))
        groups = needles(condition)
        if groups is None:
            return TRUE
        found = both(either(Sql("instr(body, ?)", (needle,)) for needle in group) for group in groups)
        if condition.field.scope is not Scope.EITHER:
            return found
        elsewhere = Compare(Field(Scope.RESOURCE, condition.field.name), condition.op, condition.literal)
        return either((found, self.condition(elsewhere)))

    def _trace(self, compare: Compare) -> Sql:
        match, name, value = matcher(compare), compare.field.name, self.facts.value

        def check(trace_id: bytes, span_id: bytes, _: None) -> bool:
            return match(value(name, trace_id, span_id))

        return Sql(f"{HOLDS}(?, trace_id, span_id, NULL)", (self._closures.lend(check),))


def chosen_operations(condition: Condition, operations: Mapping[int, OperationRow]) -> set[int]:
    """The operations of which a condition on names and kinds holds."""

    def leaf(compare: Compare) -> Callable[[OperationRow], bool]:
        match, is_name = matcher(compare), compare.field.name == "span:name"
        return lambda row: match(row.name if is_name else row.kind)

    holds = predicate(condition, leaf)
    chosen: set[int] = set()
    for looked_at, (number, row) in enumerate(operations.items()):
        if not looked_at % _LOOK:
            still_time()
        if holds(row):
            chosen.add(number)
    return chosen


def chosen_sources(condition: Condition, sources: dict[int, SourceRow]) -> set[int]:
    """The sources of which a condition on resources and instrumentation holds."""

    def leaf(compare: Compare) -> Callable[[SourceRow], bool]:
        match, field = matcher(compare), compare.field
        if field.scope is Scope.RESOURCE:
            return lambda row: match(row.resource.get(field.name))
        if field.scope is Scope.INSTRUMENTATION:
            return lambda row: match(row.scope.get(field.name))
        if field.name == "instrumentation:name":
            return lambda row: match(row.name)
        return lambda row: match(row.version)

    holds = predicate(condition, leaf)
    return {number for number, row in sources.items() if holds(row)}


def _check_size(condition: Condition) -> None:
    waiting, asked = [(condition, 1)], 0
    while waiting:
        part, depth = waiting.pop()
        if depth > _DEEPEST:
            raise QueryError(f"conditions are nested deeper than {_DEEPEST}; write fewer parentheses")
        if isinstance(part, Compare):
            asked += 1
        elif isinstance(part, Not):
            waiting.append((part.condition, depth + 1))
        else:
            waiting.extend((each, depth + 1) for each in part.conditions)
    if asked > _MOST_COMPARISONS:
        raise QueryError(f"{asked} comparisons in one condition; at most {_MOST_COMPARISONS} are allowed")


def _place(condition: Condition) -> Place:
    places = {place_of(compare.field) for compare in comparisons(condition)}
    return places.pop() if len(places) == 1 else Place.MIXED


def _grouped(condition: Condition) -> Iterable[Condition]:
    """The parts of an All or Any, those for one place as one part, the cheapest first."""
    assert not isinstance(condition, Compare | Not)
    groups: dict[Place, list[Condition]] = {}
    for part in condition.conditions:
        groups.setdefault(_place(part), []).append(part)
    for place in sorted(groups, key=lambda place: place.value):
        parts = groups[place]
        if place in _TOGETHER and len(parts) > 1:
            yield type(condition)(tuple(parts))
        else:
            yield from parts


_TOGETHER = {Place.OPERATION, Place.SOURCE, Place.BODY}
_INTRINSICS = {
    "span:name": Place.OPERATION,
    "span:kind": Place.OPERATION,
    "span:duration": Place.COLUMN,
    "span:status": Place.COLUMN,
    "span:id": Place.COLUMN,
    "span:parentID": Place.COLUMN,
    "trace:id": Place.COLUMN,
    "instrumentation:name": Place.SOURCE,
    "instrumentation:version": Place.SOURCE,
    "span:childCount": Place.TRACE,
    "trace:duration": Place.TRACE,
    "trace:rootName": Place.TRACE,
    "trace:rootService": Place.TRACE,
}
