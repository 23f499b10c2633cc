"""What waits for the end of a loop comes after its tasks, and the last that was asked for first."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import anyio
import pytest
import uvloop

from mapek_runtime.export.loop_end import when_loop_ends

Main = Callable[[], Coroutine[Any, Any, None]]
RUNNERS: dict[str, Callable[[Main], object]] = {
    "asyncio": lambda main: asyncio.run(main()),
    "uvloop": lambda main: uvloop.run(main()),
    "anyio": anyio.run,
}


@pytest.fixture(params=RUNNERS)
def run(request: pytest.FixtureRequest) -> Callable[[Main], object]:
    return RUNNERS[request.param]


def saying(order: list[str], word: str) -> Callable[[], Awaitable[None]]:
    async def say() -> None:
        await asyncio.sleep(0.001)
        order.append(word)

    return say


def test_it_comes_after_the_tasks_in_reverse_order(run: Callable[[Main], object]) -> None:
    order: list[str] = []

    async def linger() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            order.append("task")

    async def main() -> None:
        lingering = asyncio.create_task(linger())
        await when_loop_ends(saying(order, "first"))
        await when_loop_ends(saying(order, "second"))
        await asyncio.sleep(0)
        assert not lingering.done()

    for _ in range(2):
        order.clear()
        run(main)
        assert order == ["task", "second", "first"]


def test_what_was_taken_back_is_not_done(run: Callable[[Main], object]) -> None:
    order: list[str] = []

    async def main() -> None:
        withdraw = await when_loop_ends(saying(order, "no"))
        await when_loop_ends(saying(order, "yes"))
        withdraw()
        withdraw()

    run(main)

    assert order == ["yes"]


def test_a_failure_is_told_and_the_others_have_their_turn(
    run: Callable[[Main], object], caplog: pytest.LogCaptureFixture
) -> None:
    order: list[str] = []

    async def fail() -> None:
        raise ValueError("no")

    async def main() -> None:
        await when_loop_ends(saying(order, "first"))
        await when_loop_ends(fail)

    run(main)

    assert order == ["first"]
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
