"""The scheduler, for every interval, length of cycle and burst of triggers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from hypothesis import given, settings
from hypothesis import strategies as st

from mapek_runtime import Trigger
from mapek_runtime.loop.scheduler import Scheduler
from mapek_runtime.testing import AutojumpClock

Overlap = Literal["skip", "queue", "cancel"]

overlaps = st.sampled_from(["skip", "queue", "cancel"])
# Round numbers among them, so that things happen at the same moment.
seconds = st.sampled_from([0.0, 0.5, 1.0, 2.0]) | st.floats(0.0, 5.0, allow_nan=False)
intervals = st.sampled_from([0.5, 1.0, 2.0]) | st.floats(0.01, 10.0, allow_nan=False)


class Run:
    """What a scheduler did; the n-th cycle takes the n-th of `lengths`, over and over."""

    def __init__(self, clock: AutojumpClock, lengths: Sequence[float]) -> None:
        self.clock = clock
        self.lengths = lengths
        self.started: list[tuple[float, list[str]]] = []
        self.inside = 0
        self.most_inside = 0

    async def cycle(self, triggers: Sequence[Trigger]) -> None:
        length = self.lengths[len(self.started) % len(self.lengths)]
        self.started.append((self.clock.elapsed, [trigger.reason for trigger in triggers]))
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        try:
            await asyncio.sleep(length)
        finally:
            self.inside -= 1


@settings(max_examples=60, deadline=None)
@given(
    overlap=overlaps,
    interval=intervals,
    lengths=st.lists(seconds, min_size=1, max_size=5),
    gaps=st.lists(seconds, max_size=20),
    pauses=st.sets(st.integers(0, 19), max_size=4),
)
async def test_no_trigger_is_lost(
    overlap: Overlap, interval: float, lengths: list[float], gaps: list[float], pauses: set[int]
) -> None:
    with AutojumpClock() as clock:
        run = Run(clock, lengths)
        scheduler = Scheduler(run.cycle, interval=interval, overlap=overlap)
        task = asyncio.create_task(scheduler.run())
        asked: list[tuple[float, str]] = []
        for number, gap in enumerate(gaps):
            await asyncio.sleep(gap)
            if number in pauses:
                scheduler.pause()
            asked.append((clock.elapsed, f"t{number}"))
            scheduler.trigger(Trigger(reason=f"t{number}"))
            if number - 1 in pauses:
                scheduler.resume()
        scheduler.resume()
        await asyncio.sleep(max(lengths) + 0.001)
        scheduler.stop()
        await task

        for when, reason in asked:
            assert [start >= when for start, reasons in run.started if reason in reasons] == [True]
        assert run.most_inside <= 1


@settings(max_examples=60, deadline=None)
@given(
    overlap=overlaps,
    interval=intervals,
    lengths=st.lists(seconds, min_size=1, max_size=5),
    ticks=st.integers(1, 60),
)
async def test_the_rate_never_drifts(
    overlap: Overlap, interval: float, lengths: list[float], ticks: int
) -> None:
    with AutojumpClock() as clock:
        run = Run(clock, lengths)
        scheduler = Scheduler(run.cycle, interval=interval, overlap=overlap)
        task = asyncio.create_task(scheduler.run())
        await asyncio.sleep((ticks - 0.5) * interval)
        skipped = scheduler.skipped
        scheduler.stop()
        await task

        # Every start but a queued one lies on the grid, within what a float can say of it.
        starts = [start for start, _ in run.started]
        if overlap == "skip":
            assert all(abs(start - round(start / interval) * interval) < 1e-6 for start in starts)
            assert len(starts) + skipped == ticks
        if overlap == "cancel":
            assert len(starts) == ticks
            assert all(abs(start - number * interval) < 1e-6 for number, start in enumerate(starts))
        if overlap == "queue":
            # It starts on the grid, or the moment the cycle before has ended.
            ends = {0.0} | {start + lengths[n % len(lengths)] for n, start in enumerate(starts)}
            for start in starts:
                on_grid = abs(start - round(start / interval) * interval) < 1e-6
                assert on_grid or min(abs(start - end) for end in ends) < 1e-6
        assert all(before < after or before == after == 0 for before, after in pairwise(starts)) or (
            overlap == "queue"
        )
