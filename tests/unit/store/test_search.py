"""A search says what it found, in time, and takes the shortest way to it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from mapek_runtime.errors import QueryError
from mapek_runtime.store import functions
from mapek_runtime.store.model import SearchResult
from mapek_runtime.store.query import facts
from mapek_runtime.store.query.syntax import (
    Aggregate,
    All,
    AllSpans,
    By,
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
    Select,
)
from mapek_runtime.store.search import choose, search
from tests.unit.store.filled import filled, send, span

KINDS = {str: Kind.STRING, int: Kind.INT, float: Kind.FLOAT, bool: Kind.BOOL, type(None): Kind.NIL}
PAYLOADS = ("' OR 1=1 --", "x'); DROP TABLE span; --", "?", "%", "\x00", '"', "mapek_holds(0, 0, 0, 0)")


def intrinsic(name: str, op: str, value: Any, kind: Kind | None = None) -> Compare:
    return Compare(Field(Scope.INTRINSIC, name), op, Literal(kind or KINDS[type(value)], value))


def attribute(name: str, op: str, value: Any, scope: Scope = Scope.SPAN) -> Compare:
    return Compare(Field(scope, name), op, Literal(KINDS[type(value)], value))


def where(condition: Condition, *stages: Any) -> Query:
    return Query(Filter(condition), stages)


def find(connection: sqlite3.Connection, query: Query, **options: Any) -> SearchResult:
    return search(connection, query, **{"deadline": time.monotonic() + 30, **options})


def numbers(result: SearchResult) -> list[int]:
    return [int(trace.trace_id, 16) for trace in result.traces]


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with closing(filled()) as made:
        yield made


def test_an_empty_store_has_no_traces(connection: sqlite3.Connection) -> None:
    result = find(connection, Query(AllSpans()))

    assert result == SearchResult(traces=(), complete=True, inspected=0)


def test_a_trace_says_its_root_its_services_and_the_spans_that_were_chosen(
    connection: sqlite3.Connection,
) -> None:
    send(
        connection,
        [
            span("plan", number=2, parent=1, start=1_100, duration=50, status=2, node_id="node-1"),
            span("probe", number=3, parent=9, service="probes", start=1_200, duration=400),
            span("cycle", number=1, start=1_000, duration=300),
        ],
    )
    query = where(attribute("node_id", "=", "node-1"), Select((Field(Scope.INTRINSIC, "trace:rootName"),)))

    (trace,) = find(connection, query).traces

    assert (trace.root_service, trace.root_name) == ("x0tta6bl4", "cycle")
    assert (trace.start, trace.end, trace.spans, trace.errors, trace.orphans) == (1_000, 1_600, 3, 1, 1)
    assert {name: (count.spans, count.errors) for name, count in trace.services.items()} == {
        "x0tta6bl4": (2, 1),
        "probes": (1, 0),
    }
    (chosen,) = trace.sets
    (shown,) = chosen.spans
    assert (chosen.matched, shown.name, shown.status, shown.parent_id) == (1, "plan", "error", f"{1:016x}")
    assert shown.attributes == {"node_id": "node-1"}
    assert shown.selected == {"trace:rootName": "cycle"}


def test_traces_come_by_the_arrival_of_their_newest_chosen_span(connection: sqlite3.Connection) -> None:
    send(
        connection,
        [
            span("plan", trace=1, number=1),
            span("plan", trace=2, number=1),
            span("plan", trace=1, number=2),
            span("other", trace=2, number=2),
        ],
    )

    assert numbers(find(connection, where(intrinsic("span:name", "=", "plan")))) == [1, 2]
    assert numbers(find(connection, Query(AllSpans()))) == [2, 1]


def test_a_relation_orders_traces_by_what_it_chose_and_not_by_what_it_looked_at(
    connection: sqlite3.Connection,
) -> None:
    send(
        connection,
        [
            span("root", trace=1, number=1),
            span("leaf", trace=1, number=2, parent=1),
            span("root", trace=2, number=1),
            span("leaf", trace=2, number=2, parent=1),
            span("leaf", trace=1, number=3, parent=8),
        ],
    )
    below = Query(
        Relation(
            ">", Filter(intrinsic("span:name", "=", "root")), Filter(intrinsic("span:name", "=", "leaf"))
        )
    )

    result = find(connection, below)

    assert numbers(result) == [2, 1]
    assert numbers(find(connection, below, limit=1, before=result.before)) == [2]


def test_only_the_first_spans_of_a_set_are_shown_and_all_are_counted(connection: sqlite3.Connection) -> None:
    send(connection, [span(number=number, start=5_000 - number) for number in range(1, 9)])

    (trace,) = find(connection, Query(AllSpans()), spans_per_set=2).traces

    (chosen,) = trace.sets
    assert chosen.matched == 8
    assert [shown.start for shown in chosen.spans] == [4_992, 4_993]


def test_by_makes_a_set_for_each_value_and_an_aggregate_keeps_some(connection: sqlite3.Connection) -> None:
    send(
        connection,
        [span(number=number, node=node) for number, node in enumerate(["a", "b", "a", True, 1], start=1)],
    )
    by = By(Field(Scope.SPAN, "node"))
    several = Aggregate("count", None, ">", Literal(Kind.INT, 1))

    (trace,) = find(connection, Query(AllSpans(), (by,))).traces
    (kept,) = find(connection, Query(AllSpans(), (by, several))).traces

    assert [(each.by, each.matched) for each in trace.sets] == [
        ((("span.node", "a"),), 2),
        ((("span.node", "b"),), 1),
        ((("span.node", True),), 1),
        ((("span.node", 1),), 1),
    ]
    assert [(each.by, each.matched) for each in kept.sets] == [((("span.node", "a"),), 2)]


def test_of_a_trace_that_falls_into_very_many_sets_the_first_are_given_and_it_is_said(
    connection: sqlite3.Connection,
) -> None:
    send(connection, [span(number=number, start=number) for number in range(1, 1_102)])

    result = find(connection, Query(AllSpans(), (By(Field(Scope.INTRINSIC, "span:id")),)))

    (trace,) = result.traces
    assert [each.by[0][1] for each in trace.sets] == [f"{number:016x}" for number in range(1, 1_001)]
    assert not result.complete


def test_chosen_spans_say_whether_there_may_be_more(connection: sqlite3.Connection) -> None:
    send(connection, [span(number=number) for number in range(1, 6)])
    later = time.monotonic() + 30

    all_of_them = choose(connection, Query(AllSpans()), limit=6, deadline=later)
    some = choose(connection, Query(AllSpans()), limit=5, deadline=later)
    both = Relation("&&", AllSpans(), AllSpans())
    late = choose(connection, Query(both), deadline=time.monotonic() - 1)

    assert (len(all_of_them.spans), all_of_them.complete) == (5, True)
    assert (len(some.spans), some.complete) == (5, False)
    assert not late.complete


def test_chosen_spans_come_newest_first_with_what_was_asked_of_them(connection: sqlite3.Connection) -> None:
    send(connection, [span(number=number, key=number) for number in range(1, 6)])
    query = where(attribute("key", "<", 5), Select((Field(Scope.SPAN, "key"),)))

    spans = choose(connection, query, limit=3, deadline=time.monotonic() + 30).spans
    newer = choose(connection, query, after=2, attributes=True, deadline=time.monotonic() + 30).spans

    assert [(each.selected, each.attributes) for each in spans] == [
        ({"span.key": 4}, {}),
        ({"span.key": 3}, {}),
        ({"span.key": 2}, {}),
    ]
    assert [each.attributes for each in newer] == [{"key": 4}, {"key": 3}]


@pytest.mark.parametrize("payload", PAYLOADS)
@pytest.mark.parametrize("op", ["=", "!=", "<"])
def test_what_looks_like_sql_is_a_value(connection: sqlite3.Connection, payload: str, op: str) -> None:
    values: dict[str, Any] = {payload: "there"}
    send(connection, [span(payload, number=1, key=payload, **values), span(number=2)])
    fields = [Field(Scope.INTRINSIC, name) for name in ("span:name", "span:statusMessage", "trace:rootName")]
    fields += [Field(scope, payload) for scope in Scope if scope is not Scope.INTRINSIC]

    for field in fields:
        find(connection, where(Compare(field, op, Literal(Kind.STRING, payload))))
    for name in ("trace:id", "span:id", "span:parentID"):
        assert not find(connection, where(intrinsic(name, "=", payload))).traces

    assert connection.execute("SELECT count(*) FROM span").fetchone() == (2,)
    assert (
        len(choose(connection, where(attribute(payload, "=", "there")), deadline=time.monotonic() + 9).spans)
        == 1
    )
    assert (
        len(choose(connection, where(attribute("key", "=", payload)), deadline=time.monotonic() + 9).spans)
        == 1
    )


def test_at_the_deadline_what_was_found_is_given_and_where_to_go_on(connection: sqlite3.Connection) -> None:
    send(connection, [span(trace=number) for number in range(1, 40)])

    late = find(connection, Query(AllSpans()), deadline=time.monotonic() - 1)
    result = find(connection, Query(AllSpans()), before=late.before)

    assert (late.traces, late.complete) == ((), False)
    assert numbers(result) == list(range(39, 19, -1))


def test_a_search_without_end_is_interrupted_in_the_midst_of_sqlite(connection: sqlite3.Connection) -> None:
    send(connection, [span(number=number, key=number) for number in range(1, 3_001)])
    deadline = functions.Deadline(time.monotonic() + 0.05)

    with deadline.reading(connection):
        connection.execute(
            "SELECT count(*) FROM span a, span b, span c WHERE a.start + b.start = c.id"
        ).fetchone()

    assert deadline.passed
    assert connection.execute("SELECT count(*) FROM span").fetchone() == (3_000,)


def test_nothing_of_a_search_stays_behind(connection: sqlite3.Connection) -> None:
    send(connection, [span(number=number, key=number) for number in range(1, 30)])
    query = where(All((attribute("key", ">", 3), intrinsic("span:childCount", "=", 0))))

    assert find(connection, query).traces
    find(connection, query, deadline=time.monotonic() - 1)
    with pytest.raises(QueryError):
        find(connection, where(All((attribute("key", ">", 3), attribute("key", "=~", "(")))))

    assert not functions._running
    assert not connection.in_transaction


def test_a_search_leaves_no_error_of_sqlite_unsaid(connection: sqlite3.Connection) -> None:
    connection.execute("DROP TABLE span")

    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        find(connection, Query(AllSpans()))


@pytest.mark.parametrize("pattern", ["(", "a" * 5_000, "(?=a)", "\ud800", "(((((a{1000}){1000})))"])
def test_a_wrong_or_huge_regular_expression_is_refused(connection: sqlite3.Connection, pattern: str) -> None:
    send(connection, [span(key="value")])

    with pytest.raises(QueryError, match="regular expression"):
        find(connection, where(attribute("key", "=~", pattern)))


def test_a_regular_expression_takes_time_in_proportion_to_the_text(connection: sqlite3.Connection) -> None:
    send(connection, [span(key="a" * 50_000 + "b")])

    # Exponential for an engine that goes back, such as Python's.
    assert not find(connection, where(attribute("key", "=~", "(a|a|aa)*(a|aa)*c"))).traces


def test_a_condition_has_a_bound(connection: sqlite3.Connection) -> None:
    deep: Condition = attribute("key", "=", 1)
    for _ in range(500):
        deep = Not(deep)

    with pytest.raises(QueryError, match="nested deeper than 100"):
        find(connection, where(deep))
    with pytest.raises(QueryError, match="201 comparisons"):
        find(connection, where(All((attribute("key", "=", 1),) * 201)))
    assert find(connection, where(All((intrinsic("span:duration", ">", 1),) * 200))).complete


def test_a_field_that_there_is_not_is_named(connection: sqlite3.Connection) -> None:
    with pytest.raises(QueryError, match=r"'span:colour' is no field of a span.*trace:rootName"):
        find(connection, where(intrinsic("span:colour", "=", "red")))
    with pytest.raises(QueryError, match="span:colour"):
        find(connection, Query(AllSpans(), (By(Field(Scope.INTRINSIC, "span:colour")),)))
    with pytest.raises(QueryError, match="span:colour"):
        find(connection, Query(AllSpans(), (Select((Field(Scope.INTRINSIC, "span:colour"),)),)))


@pytest.mark.parametrize(
    ("condition", "index"),
    [
        pytest.param(intrinsic("trace:id", "=", f"{7:032x}"), "span_trace", id="one trace"),
        pytest.param(intrinsic("span:status", "=", "error", Kind.STATUS), "span_error", id="errors"),
        pytest.param(intrinsic("span:name", "=", "rare"), "span_operation", id="a rare operation"),
        pytest.param(intrinsic("span:name", "=", "work"), "", id="a common operation"),
        pytest.param(attribute("key", "=", 1), "", id="an attribute"),
    ],
)
def test_the_shortest_way_is_taken(connection: sqlite3.Connection, condition: Condition, index: str) -> None:
    fill_quickly(connection, spans=20_000)
    send(connection, [span("rare", trace=7, key=1, status=2)])
    statements: list[str] = []
    connection.set_trace_callback(statements.append)

    result = find(connection, where(condition), limit=1)

    connection.set_trace_callback(None)
    walks = [text for text in statements if text.startswith("SELECT id, trace_id, span_id FROM")]
    assert len(result.traces) == 1
    assert all(f"INDEXED BY {index}" in text if index else "NOT INDEXED" in text for text in walks)
    assert walks


def test_of_a_time_only_the_rows_that_it_may_hold_are_walked(connection: sqlite3.Connection) -> None:
    fill_quickly(connection, spans=20_000)
    send(connection, [span(trace=7, start=10**15)])

    result = find(connection, Query(AllSpans()), start=10**15)

    assert numbers(result) == [7]
    assert result.inspected == 1


def test_of_a_huge_trace_the_newest_spans_are_looked_at_and_it_is_said(
    connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts, "MOST_SPANS", 1_000)
    fill_quickly(connection, spans=1_005, traces=1)

    result = find(connection, Query(AllSpans()))

    (trace,) = result.traces
    assert trace.spans == 1_005
    assert [each.matched for each in trace.sets] == [1_000]
    assert not result.complete


def fill_quickly(connection: sqlite3.Connection, *, spans: int, traces: int = 0) -> None:
    """Many spans of the operation `work`, each of its own trace, or of `traces` in turn."""
    send(connection, [span(trace=1 << 100)])
    (sample,) = connection.execute("SELECT source, body FROM span").fetchall()
    connection.execute("DELETE FROM span")
    first = 1
    connection.executemany(
        "INSERT INTO span VALUES (?, ?, ?, NULL, 1, ?, 0, ?, 100, ?)",
        (
            (
                row,
                ((1 << 64) + row % (traces or spans)).to_bytes(16, "big"),
                row.to_bytes(8, "big"),
                sample[0],
                1_000 + row,
                sample[1],
            )
            for row in range(first, first + spans)
        ),
    )
    connection.execute("INSERT OR REPLACE INTO part VALUES (1, ?, 1000, ?)", (spans, 1_000 + spans))
