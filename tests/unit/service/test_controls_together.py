"""The buttons of the page where two press them at once, or what they ask for fails half way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.service.bench import Bench, refused


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Bench]:
    return lambda *args, **more: Bench(tmp_path, *args, **more)


async def test_a_fault_that_is_half_made_is_taken_away_again(
    make: Callable[..., Bench], caplog: pytest.LogCaptureFixture
) -> None:
    bench = make()
    bench.injector.clumsy = True

    async with bench.controls as controls:
        error = await refused(controls.inject("node.crash", "a", None))
        half = dict(bench.injector.broken)
        bench.injector.clumsy = False
        await controls.inject("node.crash", "a", None)

    assert (error.status, half) == (409, {})
    assert "the log says why" in str(error)
    assert "the hammer slipped" in caplog.text
    assert bench.names() == ["fault.injected", "fault.cleared"]


@pytest.mark.usefixtures("autojump")
async def test_what_was_cut_off_while_it_was_made_does_not_stay_until_the_end(
    make: Callable[..., Bench],
) -> None:
    bench = make()
    bench.injector.entered = asyncio.Event()

    async with bench.controls as controls:
        making = asyncio.create_task(controls.inject("node.crash", "a", None))
        await bench.injector.entered.wait()
        making.cancel()
        await asyncio.wait((making,))
        await asyncio.sleep(0.1)
        left = dict(bench.injector.broken)
        bench.injector.entered = None
        await controls.inject("node.crash", "a", None)

    assert left == {}
    assert bench.names() == ["fault.injected", "fault.cleared"]


async def test_two_pages_that_clear_one_fault_clear_it_once(make: Callable[..., Bench]) -> None:
    bench = make()
    bench.injector.slow.clear()

    async with bench.controls as controls:
        number = await controls.inject("node.crash", "a", None)
        both = [asyncio.create_task(controls.clear(number)) for _ in range(2)]
        await bench.injector.clearing.wait()
        bench.injector.slow.set()
        await asyncio.gather(*both)
        await controls.inject("node.crash", "a", None)
        broken = dict(bench.injector.broken)

        # The second must not have mended what was made after the first.
        assert bench.injector.clears == 1
        assert broken == {"a": "node.crash"}
        assert bench.names() == ["fault.injected", "fault.cleared", "fault.injected"]


@pytest.mark.usefixtures("autojump")
async def test_a_fault_that_could_not_be_cleared_by_hand_still_ends_by_itself(
    make: Callable[..., Bench],
) -> None:
    bench = make()

    async with bench.controls as controls:
        number = await controls.inject("node.crash", "a", 5.0)
        bench.injector.stubborn = True
        await refused(controls.clear(number))
        bench.injector.stubborn = False
        await asyncio.sleep(6)

        assert bench.injector.broken == {}


async def test_two_pages_that_halt_at_once_both_do(make: Callable[..., Bench]) -> None:
    bench = make()

    async with bench.controls as controls:
        for _ in range(20):
            await asyncio.gather(*(controls.halt(f"page {number}") for number in range(4)))

        assert (await controls.halted() or "").startswith("page ")
        assert bench.names() == ["halted"] * 80


async def test_a_reason_gives_no_orders_to_a_terminal(make: Callable[..., Bench]) -> None:
    bench = make()

    async with bench.controls as controls:
        await controls.halt("a\x1b[31m red \u202ebell\x07" + "x" * 1_000_000)
        why = await controls.halted()

    assert why is not None
    assert why.startswith("a [31m red bell xxx")
    assert len(why) < 600
