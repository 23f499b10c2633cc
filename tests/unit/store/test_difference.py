"""What distinguishes brushed spans from the rest, read from a store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mapek_runtime.errors import QueryError
from mapek_runtime.store import TraceStore
from mapek_runtime.store.model import Brush, DifferentField
from mapek_runtime.store.query import parse

from .filling import NOW, SECOND, request, span

MS = 1_000_000
SLOW = Brush(shortest=100 * MS)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[TraceStore]:
    """Probes of five nodes, of which node-3 is slow, and of a model that fails: one a second."""
    spans = []
    for number in range(400):
        node = f"node-{number * 7 % 5 + 1}"
        failing = number % 16 == 11
        slow = node == "node-3" and not failing
        length = (200 if slow else 50 if failing else 5) * MS + number * 100_000
        attributes = {
            "node_id": node,
            "model": "large" if failing else ("small", "middle")[number // 3 % 2],
            "request": f"{number:x}",
            "ordinal": number,
            "colour": ("red", "green", "blue")[number // 7 % 3],
            "load": number * 37 % 101 + (500 if slow else 0),
            "duration_ms": length / MS,
        }
        if failing:
            attributes["retries"] = 3
        one = span(
            number + 1, 1, name="probe", start=NOW + number * SECOND, duration=length,
            status=2 if failing else 0, attributes=attributes,
        )  # fmt: skip
        spans.append(one)
    async with TraceStore(tmp_path / "traces.sqlite", max_age=1e10) as opened:
        await opened.send(request(*spans, **{"host.name": "one"}), len(spans))
        yield opened


def named(fields: tuple[DifferentField, ...]) -> list[str]:
    return [name for field in fields for name in (field.field, *field.alike)]


async def test_the_node_that_is_slow_comes_first(store: TraceStore) -> None:
    found = await store.difference(parse('name = "probe"'), SLOW)

    assert (found.selected, found.rest, found.complete, found.enough) == (75, 325, True, True)
    assert set(named(found.fields)[:2]) == {"span.node_id", "span.load"}
    nodes = {value.condition: value for field in found.fields for value in field.values}
    node = nodes['span.node_id = "node-3"'] if found.fields[0].field == "span.node_id" else None
    assert node is None or (node.selected, node.rest) == (75, 5)


async def test_what_tells_the_duration_or_differs_for_each_span_is_no_answer(store: TraceStore) -> None:
    found = await store.difference(parse('name = "probe"'), SLOW)

    assert set(named(found.fields)) == {"span.node_id", "span.load"}


async def test_the_model_that_fails_is_found(store: TraceStore) -> None:
    found = await store.difference(parse("{ }"), Brush(shortest=49 * MS, longest=100 * MS))

    # What always comes together is one line.
    (first, *_) = found.fields
    assert {first.field, *first.alike} == {"span.model", "span.retries", "status"}
    assert (first.values[0].selected, first.values[0].rest) == (25, 0)


async def test_attributes_that_come_with_a_name_are_not_told_beside_it(store: TraceStore) -> None:
    # Of another operation, all of them slow, and slower on one shard: what its spans have says nothing more.
    others = [
        span(
            1000 + number, 1, name="write", start=NOW + number * SECOND,
            duration=(300 if number % 4 else 400) * MS,
            attributes={"table": "spans", "rows": number * 31 % 97, "shard": "b" if number % 4 else "a"},
        )
        for number in range(200)
    ]  # fmt: skip
    await store.send(request(*others), len(others))

    slow = await store.difference(parse("{ }"), Brush(shortest=250 * MS))
    slowest = await store.difference(parse("{ }"), Brush(shortest=350 * MS))

    assert named(slow.fields)[:2] == ["name", "resource.host.name"]
    assert [name for name in named(slow.fields) if name.startswith("span.")] == []
    assert [name for name in named(slowest.fields) if name.startswith("span.")] == ["span.shard"]
    assert slowest.fields[0].field == "span.shard"


async def test_a_small_count_on_short_spans_does_not_tell_their_duration(store: TraceStore) -> None:
    short = [
        span(
            2000 + number, 1, name="tick", start=NOW + number * SECOND,
            duration=(90 if number % 5 else 20) * 1000, attributes={"found": int(number % 5 > 0)},
        )
        for number in range(200)
    ]  # fmt: skip
    await store.send(request(*short), len(short))

    found = await store.difference(parse('name = "tick"'), Brush(shortest=50_000))

    assert named(found.fields) == ["span.found"]


async def test_a_brush_over_everything_leaves_nothing_to_compare_with(store: TraceStore) -> None:
    found = await store.difference(parse("{ }"), Brush(start=NOW, shortest=0))

    assert (found.selected, found.rest, found.enough, found.fields) == (400, 0, False, ())


async def test_the_rest_is_what_lies_around_the_brush(store: TraceStore) -> None:
    brush = Brush(start=NOW + 100 * SECOND, end=NOW + 200 * SECOND, shortest=100 * MS, longest=250 * MS)

    found = await store.difference(parse("{ }"), brush, start=NOW + 50 * SECOND, end=NOW + 350 * SECOND)
    related = await store.difference(
        parse("{ } && { }"), brush, start=NOW + 50 * SECOND, end=NOW + 350 * SECOND
    )

    assert (found.selected, found.rest) == (19, 281)
    assert (related.selected, related.rest) == (19, 281)


async def test_each_value_chooses_the_spans_that_were_counted(store: TraceStore) -> None:
    found = await store.difference(parse('name = "probe"'), SLOW)

    for field in found.fields:
        for value in field.values:
            chosen = await store.durations(parse(f"{{ {value.condition} }}"))
            assert len(chosen.spans) == value.selected + value.rest, value


async def test_of_many_spans_some_are_compared_from_the_whole_time(store: TraceStore) -> None:
    ordinal = "span.ordinal"
    brush = Brush(shortest=100 * MS)
    half = Brush(start=NOW + 200 * SECOND)

    by_node = await store.difference(parse("{ }"), brush, limit=100)
    by_time = await store.difference(parse("{ }"), half, limit=100)

    for found in (by_node, by_time):
        assert 15 < found.selected <= 50
        assert 15 < found.rest <= 50
        assert not found.complete
    # The slow spans are spread over the time, and so are those that they are compared with.
    assert ordinal not in named(by_node.fields)
    assert by_time.fields[0].field == ordinal


async def test_too_few_spans_say_nothing(store: TraceStore) -> None:
    found = await store.difference(parse("{ }"), Brush(start=NOW, end=NOW + 9 * SECOND))

    assert (found.selected, found.enough, found.fields) == (9, False, ())


async def test_without_a_brush_there_is_nothing_to_compare(store: TraceStore) -> None:
    with pytest.raises(QueryError, match="nothing is selected; give bounds of the time"):
        await store.difference(parse("{ }"), Brush())
