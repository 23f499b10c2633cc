"""What a comparison, a relation and a time choose, case by case."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from mapek_runtime.store.model import SearchResult
from mapek_runtime.store.query.syntax import (
    AllSpans,
    Compare,
    Condition,
    Field,
    Filter,
    Kind,
    Literal,
    Not,
    Query,
    Relation,
    Scope,
)
from mapek_runtime.store.search import choose, search
from tests.unit.store.filled import filled, send, span

KINDS = {str: Kind.STRING, int: Kind.INT, float: Kind.FLOAT, bool: Kind.BOOL, type(None): Kind.NIL}


def attribute(name: str, op: str, value: Any, scope: Scope = Scope.SPAN) -> Compare:
    return Compare(Field(scope, name), op, Literal(KINDS[type(value)], value))


def where(condition: Condition) -> Query:
    return Query(Filter(condition))


def find(connection: sqlite3.Connection, query: Query, **options: Any) -> SearchResult:
    return search(connection, query, **{"deadline": time.monotonic() + 30, **options})


def numbers(result: SearchResult) -> list[int]:
    return [int(trace.trace_id, 16) for trace in result.traces]


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with closing(filled()) as made:
        yield made


@pytest.mark.parametrize(
    ("value", "op", "wanted", "found"),
    [
        (["a", "b"], "=", "b", True),
        (["a", "b"], "=~", "b|c", True),
        (["a", "b"], "!=", "b", False),
        (["a", "b"], "!=", "c", True),
        (["a", "b"], "!~", "b|c", False),
        ([1, 5], ">", 4, True),
        ([], "!=", "b", False),
        ([1], "!=", "b", False),
        (1, "=", 1.0, True),
        (1.0, "=", 1, True),
        (-0.0, "=", 0, True),
        (0.0, "=", -0.0, True),
        (-7, "=", -7, True),
        (True, "=", 1, False),
        (1, "=", True, False),
        (False, "=", False, True),
        (False, "!=", False, False),
        ("1", "=", 1, False),
        ("", "=", "", True),
        ("line\nline", "=~", "line.*", True),
        ("é", "=", "é", True),
        (None, "=", None, True),
        (None, "!=", "a", False),
        ("a", "!=", None, True),
    ],
)
@pytest.mark.parametrize("scope", [Scope.SPAN, Scope.EITHER])
def test_values_are_compared_as_in_traceql(
    connection: sqlite3.Connection, scope: Scope, value: Any, op: str, wanted: Any, found: bool
) -> None:
    send(connection, [span(key=value)])

    assert bool(find(connection, where(attribute("key", op, wanted, scope))).traces) is found


def test_what_is_not_there_matches_no_comparison_but_its_negation(connection: sqlite3.Connection) -> None:
    send(connection, [span(trace=1), span(trace=2, key=1), span(trace=3, key=2)])
    is_one = attribute("key", "=", 1)

    assert numbers(find(connection, where(Not(is_one)))) == [3, 1]
    assert numbers(find(connection, where(attribute("key", "!=", 1)))) == [3]


def test_a_field_without_scope_is_the_spans_and_else_the_resources(connection: sqlite3.Connection) -> None:
    own: dict[str, Any] = {"service.name": "b"}
    send(connection, [span(trace=1, service="a"), span(trace=2, service="a", **own)])

    assert numbers(find(connection, where(attribute("service.name", "=", "a", Scope.EITHER)))) == [1]
    assert numbers(find(connection, where(attribute("service.name", "=", "b", Scope.EITHER)))) == [2]


def test_a_time_is_from_its_start_until_before_its_end(connection: sqlite3.Connection) -> None:
    send(connection, [span(number=number, start=start) for number, start in enumerate([10, 20, 30], start=1)])

    (trace,) = find(connection, Query(AllSpans()), start=20, end=30).traces
    spans = choose(connection, Query(AllSpans()), start=20, end=30, deadline=time.monotonic() + 30).spans

    assert [shown.start for shown in trace.sets[0].spans] == [20]
    assert [chosen.start for chosen in spans] == [20]


@pytest.mark.parametrize(
    ("op", "found"),
    [(">", [2, 3]), (">>", [2, 3, 4]), ("<", [1, 2]), ("<<", [1, 2]), ("~", [2, 3]), ("&&", [1, 2, 3, 4])],
)
def test_a_relation_chooses_what_stands_so_to_any_span(
    connection: sqlite3.Connection, op: str, found: list[int]
) -> None:
    send(
        connection,
        [span(number=number, parent=parent) for number, parent in ((1, None), (2, 1), (3, 1), (4, 2))],
    )
    # Of 4 the parent is 2, whose parent is 1; one level down from 1 are 2 and 3.
    left = Filter(Compare(Field(Scope.INTRINSIC, "span:id"), "!=", Literal(Kind.STRING, f"{2:016x}")))
    both = left if op == ">" else AllSpans()

    spans = choose(connection, Query(Relation(op, both, AllSpans())), deadline=time.monotonic() + 30).spans

    assert sorted(int(chosen.span_id, 16) for chosen in spans) == found
