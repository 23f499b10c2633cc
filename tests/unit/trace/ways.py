"""Every way to run something in a span called "test.work", under our provider and the stock SDK's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from opentelemetry.sdk import trace as sdk

from mapek_runtime import SpanGroup, traced
from tests.unit.trace.both import one, ours

__all__ = [
    "WAYS",
    "Body",
    "Way",
    "attributes",
    "declared",
    "group",
    "in_a_declared_coroutine",
    "typed",
    "work",
]

Body = Callable[[], Awaitable[object]]
Way = Callable[[Body], Awaitable[object]]

group = SpanGroup("test")


@group.span("work")
def declared() -> None:
    """Some work."""


async def in_a_declared_block(body: Body) -> None:
    with declared():
        await body()


async def in_an_async_block(body: Body) -> None:
    async with declared():
        await body()


@declared()
async def in_a_declared_coroutine(body: Body) -> None:
    await body()


@traced("test.work")
async def in_a_coroutine(body: Body) -> None:
    await body()


async def in_an_async_generator(body: Body) -> None:
    @traced("test.work")
    async def steps() -> AsyncIterator[int]:
        yield 1
        await body()
        yield 2

    async for _ in steps():
        pass


async def in_start_as_current_span(body: Body) -> None:
    with ours.get_tracer("tests").start_as_current_span("test.work"):
        await body()


async def in_start_as_current_span_async(body: Body) -> None:
    async with ours.get_tracer("tests").start_as_current_span("test.work"):  # type: ignore[attr-defined]
        await body()


async def in_start_span(body: Body) -> None:
    with ours.get_tracer("tests").start_span("test.work"):
        await body()


ANYWHERE: tuple[Way, ...] = (
    in_a_declared_block,
    in_an_async_block,
    in_a_declared_coroutine,
    in_a_coroutine,
    in_an_async_generator,
)
OURS_ONLY: tuple[Way, ...] = (in_start_as_current_span, in_start_as_current_span_async, in_start_span)
WAYS = [
    *[pytest.param(("ours", way), id=f"{way.__name__}, ours") for way in (*ANYWHERE, *OURS_ONLY)],
    *[pytest.param(("stock", way), id=f"{way.__name__}, stock") for way in ANYWHERE],
]


def work() -> sdk.ReadableSpan:
    return one("test.work")


def typed(way: Way, kind: str) -> dict[str, str]:
    """`error.type`, which only declared and decorated spans have."""
    return {} if way in OURS_ONLY else {"error.type": kind}


def attributes(span: sdk.ReadableSpan | sdk.Event) -> dict[str, Any]:
    return dict(span.attributes or {})
