"""The batch task: how much of a backlog one turn of the loop has to bear."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from mapek_runtime.export import outbox
from mapek_runtime.export.batch import BatchSpanProcessor
from tests.unit.export.wire import Stuck, Wire, end_spans, tracer_for, turns

CHUNK = 0.00025
"""Seconds that encoding a chunk takes here, on a clock that goes on at every look."""
MOST = outbox.CHUNK * (1 + round(0.005 / CHUNK))
"""Spans that fit into the longest slice, and the chunk in which it ends."""


@pytest.fixture(autouse=True)
def even_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = itertools.count()

    class Clock:
        @staticmethod
        def perf_counter() -> float:
            return next(looks) * CHUNK

    monkeypatch.setattr(outbox, "time", Clock)


class Gate(Wire):
    """A collector that answers when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = asyncio.Event()

    async def send(self, payload: bytes, count: int) -> None:
        await self.opened.wait()
        await super().send(payload, count)


class Steps:
    """Counts the spans that are taken from the ring in each turn of the loop."""

    def __init__(self, processor: BatchSpanProcessor) -> None:
        self._ring = processor._ring
        self._before = self._ring.taken
        self.largest = 0

    async def watch(self, count: int) -> None:
        for _ in range(count):
            await asyncio.sleep(0)
            taken = self._ring.taken
            self.largest = max(self.largest, taken - self._before)
            self._before = taken


@pytest.mark.parametrize("created", [20_000, 60_000])
async def test_what_was_created_while_the_collector_was_busy_is_no_debt_of_one_step(created: int) -> None:
    gate = Gate()
    processor = BatchSpanProcessor(gate, max_concurrency=1)
    tracer = tracer_for(processor)
    end_spans(tracer, 512)
    await turns()
    steps = Steps(processor)

    # A little at a time, as a program does that is never faster than the exporter usually is.
    for _ in range(created // 100):
        end_spans(tracer, 100)
        await steps.watch(1)
    gate.opened.set()
    await steps.watch(2_000)

    assert 0 < steps.largest <= MOST
    assert await processor.ashutdown(5)
    assert processor.statistics().exported == created + 512


async def test_a_dead_collector_costs_no_more_in_a_turn() -> None:
    processor = BatchSpanProcessor(Stuck(), max_concurrency=1, export_timeout_millis=1)
    tracer = tracer_for(processor)
    steps = Steps(processor)

    for _ in range(600):
        end_spans(tracer, 100)
        await steps.watch(1)
    # Each attempt that is given up frees a place, and wakes the task.
    for _ in range(20):
        await asyncio.sleep(0.002)
        await steps.watch(1)

    assert 0 < steps.largest <= MOST
    await processor.ashutdown(0)


async def test_a_program_that_is_faster_than_a_slice_is_kept_up_with() -> None:
    wire = Wire()
    processor = BatchSpanProcessor(wire)
    tracer = tracer_for(processor)
    steps = Steps(processor)

    waiting: list[Any] = []
    for _ in range(30):
        end_spans(tracer, 6_000)
        await steps.watch(1)
        waiting.append(processor.statistics().queued)

    assert steps.largest > MOST
    assert processor.statistics().dropped == {}
    assert await processor.ashutdown(5)
