"""The value of any field of a span, to show it, to count with it or to group by it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from .body import Body, is_in_body, values_in_body
from .compile import Place, place_of
from .dictionary import Dictionary, status_of
from .facts import TraceFacts
from .syntax import Field, Scope

__all__ = ["Row", "label", "reader", "rows_of"]


class Row(NamedTuple):
    """A row of the span table."""

    id: int
    trace_id: bytes
    span_id: bytes
    parent_id: bytes | None
    operation: int
    source: int
    status: int
    start: int
    duration: int
    body: bytes


def rows_of(connection: sqlite3.Connection, numbers: Iterable[int]) -> dict[int, Row]:
    """Rows by their number."""
    cursor = connection.execute(
        f"SELECT {', '.join(Row._fields)} FROM span WHERE id IN (SELECT value FROM json_each(?))",
        (json.dumps(list(numbers)),),
    )
    return {values[0]: Row(*values) for values in cursor}


def label(field: Field) -> str:
    """A field as it is written in TraceQL."""
    if field.scope is Scope.INTRINSIC:
        return field.name
    return f".{field.name}" if field.scope is Scope.EITHER else f"{field.scope}.{field.name}"


def reader(field: Field, dictionary: Dictionary, facts: TraceFacts) -> Callable[[Row], Any]:
    """A function that gives the value of a field; None where it is not there.

    Several events or links of a span that have the field give a list.
    """
    if is_in_body(field):
        values = values_in_body(field, dictionary)

        def in_body(row: Row) -> Any:
            found = values(Body(Span.FromString(row.body), row.source, row.start))
            there = [value for value in found if value is not None]
            return there if len(there) > 1 else (there[0] if there else None)

        return in_body
    place = place_of(field)
    name = field.name
    if place is Place.TRACE:
        return lambda row: facts.value(name, row.trace_id, row.span_id)
    if place is Place.SOURCE:
        return _of_source(field, dictionary)
    return {
        "span:name": lambda row: dictionary.operations[row.operation].name,
        "span:kind": lambda row: dictionary.operations[row.operation].kind,
        "span:duration": lambda row: row.duration,
        "span:status": lambda row: status_of(row.status),
        "span:id": lambda row: row.span_id.hex(),
        "span:parentID": lambda row: None if row.parent_id is None else row.parent_id.hex(),
        "trace:id": lambda row: row.trace_id.hex(),
    }[name]


def _of_source(field: Field, dictionary: Dictionary) -> Callable[[Row], Any]:
    name = field.name
    if field.scope is Scope.RESOURCE:
        return lambda row: dictionary.sources[row.source].resource.get(name)
    if field.scope is Scope.INSTRUMENTATION:
        return lambda row: dictionary.sources[row.source].scope.get(name)
    if name == "instrumentation:name":
        return lambda row: dictionary.sources[row.source].name
    return lambda row: dictionary.sources[row.source].version
