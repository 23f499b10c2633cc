"""What a search finds is what the query means, for every query and every set of spans."""

from __future__ import annotations

import time
from contextlib import closing
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from mapek_runtime.store.attributes import find
from mapek_runtime.store.model import FoundTrace
from mapek_runtime.store.query.matching import matcher
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
    Spansets,
)
from mapek_runtime.store.query.syntax import (
    Any as AnyOf,
)
from mapek_runtime.store.search import choose, search
from tests.property.search_oracle import expected, holds
from tests.unit.store.filled import Sent, attributes, filled

WORDS = ("a", "b", "ab", "error", "")
PATTERNS = ("a.*", ".*", "a|b", "", "[^a]*", "A", "b+")
KEYS = ("x", "y", "service.name")
NUMBERS: tuple[float, ...] = (-1, 0, 1, 2, 300, 1 << 53, (1 << 63) - 1, 0.0, -0.0, 0.5, 1.0, 1e300)
OPS = ("=", "!=", "<", "<=", ">", ">=")

scalars = st.one_of(st.sampled_from(WORDS), st.sampled_from(NUMBERS), st.booleans())
values = st.one_of(
    scalars,
    scalars,
    st.none(),
    st.sampled_from([b"", b"a"]),
    st.lists(scalars, max_size=3),
    st.dictionaries(st.sampled_from(KEYS), scalars, max_size=2),
)
keyed = st.dictionaries(st.sampled_from(KEYS), values, max_size=2).map(attributes)
ids = st.integers(1, 6).map(lambda number: number.to_bytes(8, "big"))
traces = st.integers(1, 3).map(lambda number: number.to_bytes(16, "big"))
resources = st.builds(
    lambda service, more: Resource(attributes=[*attributes({"service.name": service}), *more]),
    st.sampled_from(WORDS),
    st.dictionaries(st.sampled_from(["x", "y"]), values, max_size=1).map(attributes),
)
scopes = st.builds(
    InstrumentationScope,
    name=st.sampled_from(WORDS),
    version=st.sampled_from(WORDS),
    attributes=st.dictionaries(st.just("x"), values, max_size=1).map(attributes),
)


@st.composite
def sent(draw: st.DrawFn) -> Sent:
    start = 1_000 + draw(st.integers(0, 5))
    span = Span(
        trace_id=draw(traces),
        span_id=draw(ids),
        parent_span_id=draw(st.one_of(st.just(b""), ids)),
        name=draw(st.sampled_from(WORDS)),
        kind=draw(st.sampled_from([0, 1, 2])),  # type: ignore[arg-type]
        start_time_unix_nano=start,
        end_time_unix_nano=start + draw(st.integers(0, 3)),
        status=Status(
            code=draw(st.sampled_from([0, 1, 2])),  # type: ignore[arg-type]
            message=draw(st.sampled_from(WORDS)),
        ),
        attributes=draw(keyed),
    )
    for since in draw(st.lists(st.integers(0, 2), max_size=2)):
        span.events.add(
            time_unix_nano=start + since, name=draw(st.sampled_from(WORDS)), attributes=draw(keyed)
        )
    for trace_id in draw(st.lists(traces, max_size=2)):
        span.links.add(trace_id=trace_id, span_id=draw(ids), attributes=draw(keyed))
    return Sent(span, draw(resources), draw(scopes))


@st.composite
def arrivals(draw: st.DrawFn) -> list[Sent]:
    spans = draw(
        st.lists(sent(), max_size=12, unique_by=lambda each: (each.span.trace_id, each.span.span_id))
    )
    again = draw(st.lists(st.sampled_from(spans), max_size=2)) if spans else []
    return draw(st.permutations([*spans, *again]))


def literals(kinds: dict[Kind, st.SearchStrategy[Any]]) -> st.SearchStrategy[Literal]:
    return st.one_of([st.builds(Literal, st.just(kind), value) for kind, value in kinds.items()])


any_literal = literals(
    {
        Kind.STRING: st.sampled_from(WORDS),
        Kind.INT: st.sampled_from([number for number in NUMBERS if isinstance(number, int)] + [1 << 70]),
        Kind.FLOAT: st.sampled_from([0.0, 0.5, 1.0, 2.0**53, 2.0**63, float("inf")]),
        Kind.BOOL: st.booleans(),
        Kind.DURATION: st.sampled_from([0, 1, 2, 300]),
        Kind.STATUS: st.sampled_from(["unset", "ok", "error"]),
        Kind.SPAN_KIND: st.sampled_from(["unspecified", "internal", "server"]),
        Kind.NIL: st.none(),
    }
)
patterns = st.builds(Literal, st.just(Kind.STRING), st.sampled_from(PATTERNS))
identifiers = st.one_of(ids, traces).map(lambda data: Literal(Kind.STRING, data.hex()))
own_literals = {
    "span:status": literals({Kind.STATUS: st.sampled_from(["unset", "ok", "error"])}),
    "span:kind": literals({Kind.SPAN_KIND: st.sampled_from(["unspecified", "internal", "server"])}),
    **dict.fromkeys(("trace:id", "span:id", "span:parentID", "link:traceID", "link:spanID"), identifiers),
}
intrinsics = st.sampled_from([
    "span:name", "span:duration", "span:status", "span:statusMessage", "span:kind", "span:id",
    "span:parentID", "span:childCount", "trace:id", "trace:duration", "trace:rootName", "trace:rootService",
    "event:name", "event:timeSinceStart", "link:traceID", "link:spanID", "instrumentation:name",
    "instrumentation:version",
])  # fmt: skip
fields = st.one_of(
    st.builds(
        Field,
        st.sampled_from([scope for scope in Scope if scope is not Scope.INTRINSIC]),
        st.sampled_from(KEYS),
    ),
    st.builds(Field, st.just(Scope.INTRINSIC), intrinsics),
)


@st.composite
def comparisons(draw: st.DrawFn) -> Compare:
    field = draw(fields)
    if draw(st.integers(0, 3)) == 0:
        return Compare(field, draw(st.sampled_from(["=~", "!~"])), draw(patterns))
    literal = draw(st.one_of(own_literals.get(field.name, any_literal), any_literal))
    return Compare(field, draw(st.sampled_from(OPS)), literal)


def joined(parts: st.SearchStrategy[Condition]) -> st.SearchStrategy[Condition]:
    several = st.lists(parts, min_size=2, max_size=3).map(tuple)
    return st.one_of(st.builds(Not, parts), st.builds(All, several), st.builds(AnyOf, several))


conditions: st.SearchStrategy[Condition] = st.recursive(comparisons(), joined, max_leaves=6)
filters: st.SearchStrategy[Spansets] = st.one_of(
    st.builds(AllSpans), st.builds(Filter, conditions), st.builds(Filter, conditions)
)
spansets: st.SearchStrategy[Spansets] = st.recursive(
    filters,
    lambda parts: st.builds(Relation, st.sampled_from(["&&", "||", ">", ">>", "<", "<<", "~"]), parts, parts),
    max_leaves=3,
)
numbers = literals({Kind.INT: st.integers(0, 4), Kind.FLOAT: st.just(0.5), Kind.DURATION: st.integers(0, 3)})
stages = st.one_of(
    st.builds(Aggregate, st.just("count"), st.none(), st.sampled_from(OPS), numbers),
    st.builds(
        Aggregate, st.sampled_from(["avg", "min", "max", "sum"]), fields, st.sampled_from(OPS), numbers
    ),
    st.builds(By, fields),
)
queries = st.builds(Query, spansets, st.lists(stages, max_size=2).map(tuple))
moments = st.one_of(st.none(), st.none(), st.integers(999, 1_007))


def soon() -> float:
    return time.monotonic() + 60


def seen(traces: tuple[FoundTrace, ...]) -> list[tuple[str, list[tuple[list[str], str]]]]:
    return [
        (
            trace.trace_id,
            [
                ([span.span_id for span in each.spans], repr([value for _, value in each.by]))
                for each in trace.sets
            ],
        )
        for trace in traces
    ]


@settings(max_examples=35, deadline=None)
@given(arrivals(), queries, moments, moments)
def test_a_search_finds_what_the_query_means(
    arrived: list[Sent], query: Query, start: int | None, end: int | None
) -> None:
    wanted = expected(arrived, query, start, end)

    with closing(filled(arrived)) as connection:
        result = search(connection, query, limit=10, spans_per_set=100, start=start, end=end, deadline=soon())

    assert result.complete
    assert result.before is None
    assert seen(result.traces) == [
        (trace.trace_id.hex(), [([key.hex() for key in keys], repr(list(by))) for keys, by in trace.sets])
        for trace in wanted
    ]


@settings(max_examples=25, deadline=None)
@given(arrivals(), queries, st.integers(1, 2))
def test_pages_are_the_whole_in_pieces(arrived: list[Sent], query: Query, limit: int) -> None:
    with closing(filled(arrived)) as connection:
        whole = search(connection, query, limit=10, deadline=soon())
        pages: list[FoundTrace] = []
        before: int | None = None
        for _ in range(5):
            page = search(connection, query, limit=limit, before=before, deadline=soon())
            pages += page.traces
            before = page.before
            if before is None:
                break

    assert before is None
    assert tuple(pages) == whole.traces


@settings(max_examples=20, deadline=None)
@given(arrivals(), queries, moments, moments)
def test_the_spans_that_are_chosen_are_those_of_the_traces_newest_first(
    arrived: list[Sent], query: Query, start: int | None, end: int | None
) -> None:
    last = {(each.span.trace_id, each.span.span_id): number for number, each in enumerate(arrived)}
    keys = {
        (trace.trace_id, key)
        for trace in expected(arrived, query, start, end)
        for keys, _ in trace.sets
        for key in keys
    }

    with closing(filled(arrived)) as connection:
        spans = choose(connection, query, start=start, end=end, deadline=soon()).spans
        half = len(arrived) // 2
        newer = choose(connection, query, start=start, end=end, deadline=soon(), after=half).spans

    ids = [(bytes.fromhex(span.trace_id), bytes.fromhex(span.span_id)) for span in spans]
    assert ids == sorted(keys, key=lambda key: -last[key])
    assert list(newer) == [
        span for span, key in zip(spans, ids, strict=True) if last[key] >= len(arrived) // 2
    ]


@settings(max_examples=25, deadline=None)
@given(arrivals())
def test_a_summary_counts_each_span_once(arrived: list[Sent]) -> None:
    with closing(filled(arrived)) as connection:
        result = search(connection, Query(AllSpans()), limit=10, deadline=soon())

    for trace in result.traces:
        spans = {
            each.span.span_id: each.span for each in arrived if each.span.trace_id.hex() == trace.trace_id
        }
        assert trace.spans == len(spans) == sum(count.spans for count in trace.services.values())
        assert trace.errors == sum(span.status.code == 2 for span in spans.values())
        assert trace.errors == sum(count.errors for count in trace.services.values())
        assert trace.orphans == sum(
            bool(span.parent_span_id) and span.parent_span_id not in spans for span in spans.values()
        )
        assert trace.start == min(span.start_time_unix_nano for span in spans.values())
        assert trace.end == max(span.end_time_unix_nano for span in spans.values())
        roots = [span for span in spans.values() if not span.parent_span_id]
        first = min((span.start_time_unix_nano for span in roots), default=0)
        assert trace.root_name in (
            {span.name for span in roots if span.start_time_unix_nano == first} or {""}
        )


@given(comparisons(), values)
def test_a_value_matches_as_the_oracle_says(compare: Compare, value: Any) -> None:
    made = attributes({"x": value})
    one = Compare(Field(Scope.SPAN, "x"), compare.op, compare.literal)

    assert matcher(one)(find(made, "x")) is holds(one, Sent(Span(attributes=made), Resource()), {})


@settings(max_examples=30, deadline=None)
@given(arrivals(), st.lists(comparisons(), min_size=15, max_size=15))
def test_every_comparison_chooses_the_spans_of_which_it_holds(
    arrived: list[Sent], asked: list[Compare]
) -> None:
    traces: dict[bytes, dict[bytes, Sent]] = {}
    for each in arrived:
        traces.setdefault(each.span.trace_id, {})[each.span.span_id] = each

    with closing(filled(arrived)) as connection:
        for compare in asked:
            spans = choose(connection, Query(Filter(compare)), deadline=soon()).spans

            assert {(span.trace_id, span.span_id) for span in spans} == {
                (trace_id.hex(), key.hex())
                for trace_id, trace in traces.items()
                for key, each in trace.items()
                if holds(compare, each, trace)
            }
