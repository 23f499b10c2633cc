"""What Jaeger's search asks for, as TraceQL says it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapek_runtime.store.query import parse, to_traceql
from mapek_runtime.web.jaeger_query import search_query


def written(**asked: object) -> str:
    return to_traceql(search_query(**asked))  # type: ignore[arg-type]


def test_no_condition_chooses_every_span() -> None:
    assert written() == to_traceql(parse("{ }"))
    assert written(shortest=0) == to_traceql(parse("{ }"))


@pytest.mark.parametrize(
    ("asked", "traceql"),
    [
        ({"service": "a"}, '{ resource.service.name = "a" }'),
        (
            {"service": "a", "operation": "b", "shortest": 50_000_000, "longest": 10**9},
            '{ resource.service.name = "a" && name = "b" && duration >= 50ms && duration <= 1s }',
        ),
        ({"tags": {"x": "text"}}, '{ .x = "text" }'),
        ({"tags": {"x": "false"}}, '{ .x = "false" || .x = false }'),
        ({"tags": {"x": "5"}}, '{ .x = "5" || .x = 5 }'),
        ({"tags": {"x": "-0.5"}}, '{ .x = "-0.5" || .x = -0.5 }'),
        ({"tags": {"error": "true"}}, '{ status = error || .error = "true" || .error = true }'),
        ({"tags": {"error": "false"}}, '{ !(status = error) || .error = "false" || .error = false }'),
        ({"tags": {"span.kind": "SERVER"}}, '{ kind = server || .span.kind = "SERVER" }'),
        ({"tags": {"otel.status_code": "OK"}}, '{ status = ok || .otel.status_code = "OK" }'),
    ],
    ids=str,
)
def test_a_search_reads_as_traceql(asked: dict[str, object], traceql: str) -> None:
    assert written(**asked) == to_traceql(parse(traceql))


@pytest.mark.parametrize("text", ["1e400", "nan", "inf", "9" * 40, "0x5", "1_000", "٣", "--1", "True"])
def test_what_is_no_number_is_only_text(text: str) -> None:
    assert written(tags={"x": text}).count(".x = ") == 1


@given(st.text(max_size=20), st.text(max_size=20))
def test_whatever_a_tag_is_it_becomes_a_query(key: str, value: str) -> None:
    search_query(service=value, operation=key, tags={key: value})
