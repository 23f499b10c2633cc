"""The scheduler: a rate without drift, triggers that are never lost, and what overlap means."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

import pytest
from opentelemetry.trace import SpanContext

from mapek_runtime import Trigger
from mapek_runtime.loop.scheduler import Scheduler
from mapek_runtime.testing import AutojumpClock

Overlap = Literal["skip", "queue", "cancel"]


class Log:
    """What the scheduler did; a cycle takes `seconds`."""

    def __init__(self, clock: AutojumpClock, seconds: float = 0.0) -> None:
        self.clock = clock
        self.seconds = seconds
        self.starts: list[float] = []
        self.reasons: list[list[str]] = []
        self.ended: list[float] = []
        self.cancelled = 0

    async def cycle(self, triggers: Sequence[Trigger]) -> None:
        self.starts.append(self.clock.elapsed)
        self.reasons.append([trigger.reason for trigger in triggers])
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        self.ended.append(self.clock.elapsed)


@asynccontextmanager
async def running(start: Callable[[Sequence[Trigger]], Awaitable[object]], **options: Any) -> Any:
    scheduler = Scheduler(start, **options)
    task = asyncio.create_task(scheduler.run())
    try:
        yield scheduler
    finally:
        scheduler.stop()
        await task


async def test_the_rate_does_not_drift_in_an_hour_of_slow_cycles(autojump: AutojumpClock) -> None:
    log = Log(autojump, seconds=0.7)

    async with running(log.cycle, interval=1.0):
        await asyncio.sleep(3599.5)

    assert log.starts == [float(second) for second in range(3600)]


async def test_a_cycle_longer_than_the_interval_keeps_to_the_grid(autojump: AutojumpClock) -> None:
    log = Log(autojump, seconds=2.5)

    async with running(log.cycle, interval=1.0) as scheduler:
        await asyncio.sleep(10.5)

    assert log.starts == [0, 3, 6, 9]
    assert scheduler.skipped == 7


async def test_intervals_below_a_second_are_kept(autojump: AutojumpClock) -> None:
    log = Log(autojump)

    async with running(log.cycle, interval=0.05):
        await asyncio.sleep(0.99)

    assert log.starts == pytest.approx([number * 0.05 for number in range(20)])


async def test_jitter_makes_a_start_late_and_does_not_move_the_schedule(autojump: AutojumpClock) -> None:
    log = Log(autojump)

    async with running(log.cycle, interval=1.0, jitter=0.4, rng=random.Random(7)):
        await asyncio.sleep(999.9)

    late = [start - number for number, start in enumerate(log.starts)]
    assert len(late) == 1000
    assert all(0 <= seconds <= 0.4 for seconds in late)
    assert 0.15 < sum(late) / len(late) < 0.25
    assert len(set(late)) > 900


async def test_a_trigger_does_not_draw_the_jitter_of_a_tick_again(autojump: AutojumpClock) -> None:
    log = Log(autojump)
    draws: list[float] = []

    class Counting(random.Random):
        def uniform(self, a: float, b: float) -> float:
            draws.append(b)
            return 0.9

    async with running(log.cycle, interval=1.0, jitter=1.0, rng=Counting()) as scheduler:
        for _ in range(8):
            await asyncio.sleep(0.1)
            scheduler.trigger(Trigger(reason="event"))
        await asyncio.sleep(0.15)

    assert log.starts[-1] == pytest.approx(0.9)
    assert len(draws) == 2


async def test_an_interval_shorter_than_a_turn_of_the_loop_does_not_starve_it() -> None:
    ran: list[int] = []

    async def cycle(triggers: Sequence[Trigger]) -> None:
        ran.append(len(triggers))

    async with asyncio.timeout(10), running(cycle, interval=1e-9, overlap="cancel"):
        for _ in range(50):
            await asyncio.sleep(0)

    assert ran


async def test_a_trigger_starts_a_cycle_at_once(autojump: AutojumpClock) -> None:
    log = Log(autojump)

    async with running(log.cycle, interval=60.0) as scheduler:
        await asyncio.sleep(10)
        scheduler.trigger(Trigger(reason="alarm"))
        await asyncio.sleep(100)

    assert log.starts == [0, 10, 60]
    assert log.reasons == [["interval"], ["alarm"], ["interval"]]


async def test_a_trigger_during_a_cycle_starts_one_more_with_every_reason(autojump: AutojumpClock) -> None:
    log = Log(autojump, seconds=5)

    async with running(log.cycle, interval=60.0) as scheduler:
        await asyncio.sleep(1)
        for reason in ("a", "b", "a", "c"):
            scheduler.trigger(Trigger(reason=reason))
        await asyncio.sleep(20)

    assert log.starts == [0, 5]
    assert log.reasons[1] == ["a", "b", "c"]
    assert scheduler.coalesced == 3


async def test_a_storm_of_triggers_is_one_cycle_of_bounded_size(autojump: AutojumpClock) -> None:
    log = Log(autojump, seconds=5)
    context = SpanContext(1, 1, is_remote=False)

    async with running(log.cycle, interval=60.0) as scheduler:
        await asyncio.sleep(1)
        for number in range(10_000):
            scheduler.trigger(Trigger(reason=f"reason {number}", span_context=context))
        await asyncio.sleep(20)

    assert log.starts == [0, 5]
    assert len(log.reasons[1]) == 64
    assert scheduler.coalesced == 9_999


async def test_skip_drops_the_ticks_that_meet_a_cycle(autojump: AutojumpClock) -> None:
    log = Log(autojump, seconds=1.5)

    async with running(log.cycle, interval=1.0, overlap="skip") as scheduler:
        await asyncio.sleep(5.9)

    assert log.starts == [0, 2, 4]
    assert scheduler.skipped == 3


async def test_queue_starts_one_more_cycle_when_the_running_one_is_done(autojump: AutojumpClock) -> None:
    log = Log(autojump, seconds=1.5)

    async with running(log.cycle, interval=1.0, overlap="queue") as scheduler:
        await asyncio.sleep(5.9)

    assert log.starts == [0, 1.5, 3, 4.5]
    assert scheduler.skipped == 0
    assert log.cancelled == 0


async def test_cancel_ends_the_running_cycle_for_the_newer_one(autojump: AutojumpClock) -> None:
    log = Log(autojump, seconds=1.5)

    async with running(log.cycle, interval=1.0, overlap="cancel"):
        await asyncio.sleep(4.9)

    assert log.starts == [0, 1, 2, 3, 4]
    assert log.cancelled == 4
    assert log.ended == [5.5]


async def test_cancel_waits_for_a_cycle_that_takes_its_time_to_end(autojump: AutojumpClock) -> None:
    at_once: list[int] = []
    inside = 0

    async def stubborn(triggers: Sequence[Trigger]) -> None:
        nonlocal inside
        inside += 1
        at_once.append(inside)
        try:
            await asyncio.sleep(10)
        finally:
            await asyncio.sleep(0.5)
            inside -= 1

    async with running(stubborn, interval=1.0, overlap="cancel"):
        await asyncio.sleep(20)

    assert set(at_once) == {1}
    assert len(at_once) > 10


async def test_a_cycle_that_is_cancelled_before_its_first_step_does_not_stop_the_loop(
    autojump: AutojumpClock,
) -> None:
    log = Log(autojump, seconds=0.1)

    async with running(log.cycle, interval=1.0, overlap="cancel") as scheduler:
        await asyncio.sleep(0.5)
        scheduler.trigger(Trigger(reason="first"))
        await asyncio.sleep(0)
        assert scheduler.busy
        scheduler.trigger(Trigger(reason="second"))
        await asyncio.sleep(2)

    assert log.starts[-1] == 2
    assert ["second"] in log.reasons


async def test_stopping_while_a_cycle_is_being_cancelled_cancels_nobody_else(
    autojump: AutojumpClock,
) -> None:
    async def slow_to_end(triggers: Sequence[Trigger]) -> None:
        try:
            await asyncio.sleep(10)
        finally:
            await asyncio.sleep(0.5)

    scheduler = Scheduler(slow_to_end, interval=1.0, overlap="cancel")
    task = asyncio.create_task(scheduler.run())
    await asyncio.sleep(1.1)
    scheduler.stop()
    await task

    assert task.done()
    assert not task.cancelled()


async def test_a_paused_loop_starts_nothing_and_keeps_its_triggers(autojump: AutojumpClock) -> None:
    log = Log(autojump)

    async with running(log.cycle, interval=1.0) as scheduler:
        await asyncio.sleep(0.5)
        scheduler.pause()
        await asyncio.sleep(0.25)
        scheduler.trigger(Trigger(reason="alarm"))
        await asyncio.sleep(2.5)
        scheduler.resume()
        await asyncio.sleep(1)

    assert log.starts == [0, 3.25, 4]
    assert log.reasons[1] == ["alarm"]
    assert scheduler.skipped == 3


async def test_stop_lets_the_running_cycle_finish(autojump: AutojumpClock) -> None:
    log = Log(autojump, seconds=5)

    async with running(log.cycle, interval=1.0):
        await asyncio.sleep(1)

    assert log.ended == [5]
    assert log.cancelled == 0


async def test_a_cycle_that_is_lost_is_logged_and_the_next_one_runs(
    autojump: AutojumpClock, caplog: pytest.LogCaptureFixture
) -> None:
    starts: list[float] = []

    async def broken(triggers: Sequence[Trigger]) -> None:
        starts.append(autojump.elapsed)
        raise LookupError("a fault of the runtime itself")

    async with running(broken, interval=1.0):
        await asyncio.sleep(1.5)

    assert starts == [0, 1]
    assert "a cycle was lost: LookupError" in caplog.text
