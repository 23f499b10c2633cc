"""Every span that a query chooses, a page at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import chain
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from mapek_runtime.store import TraceStore
from mapek_runtime.store.query import parse

from .filling import NOW, SECOND, request, span

SPANS = 100


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[TraceStore]:
    """Traces of ten spans, the root of each stored before the others."""
    async with TraceStore(tmp_path / "traces.sqlite", max_age=1e10) as opened:
        for number in range(SPANS):
            trace, place = number // 10 + 1, number % 10 + 1
            one = span(
                trace,
                place,
                int(place > 1),
                name="root" if place == 1 else "child",
                start=NOW + number * SECOND,
            )
            await opened.send(request(one), 1)
        yield opened


async def read(store: TraceStore, text: str = "", **options: int) -> list[list[tuple[int, int]]]:
    """The trace and span of each span, page by page."""
    found = []
    async for page in store.pages(parse(text), **options):
        spans = [
            (int.from_bytes(one.trace_id, "big"), int.from_bytes(one.span_id, "big"))
            for group in TracesData.FromString(page.data).resource_spans
            for scoped in group.scope_spans
            for one in scoped.spans
        ]
        assert page.spans == len(spans)
        found.append(spans)
    assert not found or page.done == 1
    return found


@pytest.mark.parametrize("size", [1, 7, 50, 1000])
async def test_pages_hold_each_span_once_in_the_order_of_arrival(store: TraceStore, size: int) -> None:
    pages = await read(store, size=size)

    assert len(pages) == -(-SPANS // size)
    assert list(chain(*pages)) == [(number // 10 + 1, number % 10 + 1) for number in range(SPANS)]


@pytest.mark.parametrize("size", [7, 1000])
async def test_a_relation_holds_across_pages(store: TraceStore, size: int) -> None:
    pages = await read(store, '{ name = "root" } > { }', size=size)

    assert list(chain(*pages)) == [
        (number // 10 + 1, number % 10 + 1) for number in range(SPANS) if number % 10
    ]


async def test_a_time_bounds_what_is_read(store: TraceStore) -> None:
    pages = await read(store, start=NOW + 40 * SECOND, end=NOW + 45 * SECOND, size=1000)

    assert list(chain(*pages)) == [(5, place) for place in range(1, 6)]


async def test_a_span_that_was_sent_twice_is_read_once(store: TraceStore) -> None:
    await store.send(request(span(1, 3, 1, name="child", start=NOW + 2 * SECOND)), 1)

    pages = await read(store, size=20)

    assert sum(map(len, pages)) == SPANS
    assert pages[-1] == []


async def test_large_spans_come_in_smaller_pages(store: TraceStore) -> None:
    large = "x" * (12 << 20)
    for number in range(4):
        await store.send(request(span(50, number + 1, name="large", attributes={"large": large})), 1)

    pages = await read(store, 'name = "large"', size=1000)

    assert [len(page) for page in pages] == [3, 1]


async def test_what_arrives_meanwhile_is_not_read(store: TraceStore) -> None:
    seen = 0
    async for page in store.pages(size=10):
        seen += page.spans
        await store.send(request(span(99, seen, name="late")), 1)

    assert seen == SPANS


async def test_an_empty_store_has_no_pages(tmp_path: Path) -> None:
    async with TraceStore(tmp_path / "empty.sqlite") as empty:
        assert await read(empty) == []
