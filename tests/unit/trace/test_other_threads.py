"""Spans may end in any thread: each is accounted for, and the loop is not disturbed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource

from mapek_runtime import BatchSpanProcessor, TracerProvider
from mapek_runtime.export.memory import MemorySpanExporter
from mapek_runtime.trace.handover import thread

pytestmark = pytest.mark.every_loop

RESOURCE = Resource({"service.name": "tests"})


class Counting(MemorySpanExporter):
    batches = 0

    def export(self, spans: Any, /) -> Coroutine[Any, Any, None]:
        self.batches += 1
        return super().export(spans)


def end_many(tracer: trace.Tracer, count: int) -> None:
    for number in range(count):
        if not number % 500:
            time.sleep(0.001)  # so that the loop gets its turns meanwhile
        tracer.start_span("x").end()


@pytest.mark.parametrize("capacity", [100_000, 1024], ids=["room for all", "too little room"])
async def test_spans_ended_in_eight_threads_are_all_accounted_for(capacity: int) -> None:
    memory = Counting(capacity=100_000)
    processor = BatchSpanProcessor(memory, max_queue_size=capacity, max_export_batch_size=512)
    provider = TracerProvider(resource=RESOURCE, shutdown_on_exit=False)
    provider.add_span_processor(processor)
    processor.start()
    threads = [thread(end_many, provider.get_tracer("x"), 10_000) for _ in range(8)]
    missing = []

    for started in threads:
        started.start()
    while any(started.is_alive() for started in threads):
        statistics = processor.statistics()
        settled = statistics.exported + sum(statistics.dropped.values())
        missing.append(abs(statistics.ended - settled - statistics.queued - statistics.in_flight))
        await asyncio.sleep(0.001)
    delivered = await processor.ashutdown(30)

    statistics = processor.statistics()
    assert delivered
    # A thread may be stopped between putting a span in and counting it: one span each, no more.
    assert max(missing, default=0) <= len(threads)
    assert statistics.balanced
    assert statistics.ended == 80_000
    assert statistics.exported == len(memory.finished_spans) == len({id(s) for s in memory.finished_spans})
    assert statistics.exported + sum(statistics.dropped.values()) == 80_000
    assert set(statistics.dropped) <= ({"queue_full"} if capacity < 80_000 else set())


async def test_threads_wake_the_loop_at_most_once_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    if not isinstance(loop, asyncio.BaseEventLoop):
        pytest.skip("a loop in C does not let its calls be counted")
    memory = Counting(capacity=100_000)
    processor = BatchSpanProcessor(memory, max_queue_size=100_000, max_export_batch_size=512)
    provider = TracerProvider(resource=RESOURCE, shutdown_on_exit=False)
    provider.add_span_processor(processor)
    processor.start()
    wakes = []
    wake = loop.call_soon_threadsafe

    def counted(*args: Any, **kwargs: Any) -> asyncio.Handle:
        wakes.append(args)
        return wake(*args, **kwargs)

    monkeypatch.setattr(loop, "call_soon_threadsafe", counted)

    threads = [thread(end_many, provider.get_tracer("x"), 2_000) for _ in range(8)]
    for started in threads:
        started.start()
    # Looked at, not joined in a thread: that would wake the loop too.
    while any(started.is_alive() for started in threads):  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    await processor.ashutdown(30)

    assert len(memory.finished_spans) == 16_000
    assert len(wakes) <= memory.batches


def test_spans_may_end_in_threads_after_the_loop_has_closed() -> None:
    memory = MemorySpanExporter(capacity=100_000)
    processor = BatchSpanProcessor(memory, max_export_batch_size=512)
    provider = TracerProvider(resource=RESOURCE, shutdown_on_exit=False)
    provider.add_span_processor(processor)
    errors: list[BaseException] = []

    async def main() -> trace.Span:
        processor.start()
        return provider.get_tracer("x").start_span("late")

    def end(span: trace.Span) -> None:
        try:
            span.end()
            # More than a batch: one span would not ask for the batch task.
            end_many(provider.get_tracer("x"), 2_000)
        except BaseException as error:  # noqa: BLE001 - what a thread raises is lost otherwise
            errors.append(error)

    late = asyncio.run(main())
    threads = [thread(end, late), *(thread(end, trace.INVALID_SPAN) for _ in range(7))]
    for started in threads:
        started.start()
    for started in threads:
        started.join()

    assert errors == []
    assert processor.force_flush(10_000)
    assert sorted(span.name for span in memory.finished_spans) == ["late", *["x"] * 16_000]
    processor.shutdown()
