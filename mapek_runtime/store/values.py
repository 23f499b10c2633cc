"""Which attributes spans have, and which values, as far as the newest spans show it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable
from typing import Any

from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from mapek_runtime.errors import QueryError

from .functions import Deadline
from .model import SPAN_KINDS, STATUSES, Value
from .query.fields import label
from .query.plan import rows_between
from .query.syntax import AllSpans, Field, Query, Select
from .search import choose

__all__ = ["INTRINSICS", "SCOPES", "tags", "values"]

SCOPES = ("resource", "span", "event", "link", "instrumentation", "intrinsic")
INTRINSICS = (
    "span:name", "span:duration", "span:status", "span:statusMessage", "span:kind", "span:id",
    "span:parentID", "span:childCount", "trace:id", "trace:duration", "trace:rootName", "trace:rootService",
    "event:name", "event:timeSinceStart", "link:traceID", "link:spanID", "instrumentation:name",
    "instrumentation:version",
)  # fmt: skip
_SPANS = 2_000
"""Spans, the newest ones, whose keys are looked at."""
_CHOSEN = 5_000
"""Spans, the newest ones that a query chooses, whose values are looked at."""
_TIME = 1.0
_FIXED = {"span:status": ("status", STATUSES), "span:kind": ("kind", SPAN_KINDS)}
_BY_DICTIONARY = {"span:name": "name", "resource.service.name": "service"}


def tags(
    connection: sqlite3.Connection, *, scope: str | None, start: int | None, end: int | None, limit: int
) -> dict[str, tuple[str, ...]]:
    """The keys of attributes by scope, in order, at most `limit` each. Raises QueryError for no scope."""
    if scope is not None and scope not in SCOPES:
        raise QueryError(f"scope {scope!r}; it must be one of {', '.join(SCOPES)}")
    wanted = SCOPES if scope is None else (scope,)
    found: dict[str, set[str]] = {each: set() for each in wanted}
    with Deadline(time.monotonic() + _TIME).reading(connection):
        if {"resource", "instrumentation"} & set(wanted):
            _keys_of_sources(connection, found)
        if {"span", "event", "link"} & set(wanted):
            _keys_of_spans(connection, found, start, end)
    if "intrinsic" in found:
        found["intrinsic"].update(INTRINSICS)
    return {each: tuple(sorted(keys)[:limit]) for each, keys in found.items()}


def values(
    connection: sqlite3.Connection,
    field: Field,
    query: Query,
    *,
    start: int | None,
    end: int | None,
    limit: int,
    deadline: float,
) -> tuple[Value, ...]:
    """The values of a field among the newest spans that a query chooses, in order, at most `limit`."""
    name = label(field)
    if name in _FIXED:
        kind, words = _FIXED[name]
        return tuple(Value(kind=kind, text=word) for word in words)[:limit]
    if name in _BY_DICTIONARY and query == Query(AllSpans()):
        column = _BY_DICTIONARY[name]
        rows = connection.execute(f"SELECT DISTINCT {column} FROM operation ORDER BY 1 LIMIT ?", (limit,))
        return tuple(Value(kind="string", text=text) for (text,) in rows)
    asked = Query(query.spansets, (*query.stages, Select((field,))))
    chosen = choose(connection, asked, start=start, end=end, limit=_CHOSEN, deadline=deadline)
    found: dict[Value, None] = {}
    for span in chosen.spans:
        for value in _each(span.selected.get(name)):
            made = _value(value, is_duration=name.endswith((":duration", ":timeSinceStart")))
            if made is not None:
                found[made] = None
        if len(found) >= limit:
            break
    return tuple(sorted(found, key=lambda value: (value.kind, value.text))[:limit])


def _each(value: Any) -> Iterable[Any]:
    return value if isinstance(value, list) else (value,)


def _value(value: Any, *, is_duration: bool) -> Value | None:
    match value:
        case bool():
            return Value(kind="bool", text="true" if value else "false")
        case int():
            return Value(
                kind="duration" if is_duration else "int", text=f"{value}{'ns' if is_duration else ''}"
            )
        case float():
            return Value(kind="float", text=repr(value))
        case str():
            return Value(kind="string", text=value)
    return None


def _keys_of_sources(connection: sqlite3.Connection, found: dict[str, set[str]]) -> None:
    for resource, scope in connection.execute(
        "SELECT resource, scope FROM source ORDER BY id DESC LIMIT ?", (_SPANS,)
    ):
        if "resource" in found:
            found["resource"].update(_keys(Resource.FromString(resource).attributes))
        if "instrumentation" in found:
            found["instrumentation"].update(_keys(InstrumentationScope.FromString(scope).attributes))


def _keys_of_spans(
    connection: sqlite3.Connection, found: dict[str, set[str]], start: int | None, end: int | None
) -> None:
    rows = rows_between(connection, start, end)
    for (body,) in connection.execute(
        "SELECT body FROM span WHERE id BETWEEN ? AND ? ORDER BY id DESC LIMIT ?",
        (rows.start, rows.stop - 1, _SPANS),
    ):
        span = Span.FromString(body)
        if "span" in found:
            found["span"].update(_keys(span.attributes))
        if "event" in found:
            found["event"].update(key for event in span.events for key in _keys(event.attributes))
        if "link" in found:
            found["link"].update(key for link in span.links for key in _keys(link.attributes))


def _keys(attributes: Iterable[KeyValue]) -> Iterable[str]:
    return (attribute.key for attribute in attributes)
