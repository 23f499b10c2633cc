"""The law of accounting at every instant, whatever happens: bursts, pauses, floods, loops that end."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import StatusCode, set_span_in_context

from mapek_runtime.export.batch import BatchSpanProcessor
from mapek_runtime.export.memory import MemorySpanExporter
from mapek_runtime.trace import TracerProvider

RESOURCE = Resource({"service.name": "test"})


class Law(RuleBasedStateMachine):
    """A processor with small limits, on loops that come and go."""

    def __init__(self) -> None:
        super().__init__()
        logging.disable(logging.CRITICAL)
        self.memory = MemorySpanExporter(capacity=100_000)
        self.processor = BatchSpanProcessor(
            self.memory,
            max_queue_size=24,
            max_export_batch_size=5,
            schedule_delay_millis=1,
            export_timeout_millis=20,
        )
        self.provider = TracerProvider(ALWAYS_ON, RESOURCE, shutdown_on_exit=False)
        self.provider.add_span_processor(self.processor)
        self.tracer = self.provider.get_tracer("law")
        self.loop = asyncio.new_event_loop()
        self.ended = 0
        self.stopped = False

    def end_spans(self, count: int, *, root: bool = True, error: bool = False) -> None:
        parent = self.tracer.start_span("parent", context=Context())
        context = Context() if root else set_span_in_context(parent, Context())
        for _ in range(count):
            span = self.tracer.start_span("span", context=context)
            if error:
                span.set_status(StatusCode.ERROR)
            span.end()
            self.ended += 1
            self.the_law_holds()

    @rule(count=st.integers(1, 40), root=st.booleans(), error=st.booleans())
    def end_on_the_loop(self, count: int, root: bool, error: bool) -> None:
        async def body() -> None:
            self.end_spans(count, root=root, error=error)

        self.loop.run_until_complete(body())

    @rule(count=st.integers(1, 40))
    def end_without_a_loop(self, count: int) -> None:
        self.end_spans(count)

    @rule(turns=st.integers(1, 12))
    def let_the_loop_turn(self, turns: int) -> None:
        async def body() -> None:
            for _ in range(turns):
                await asyncio.sleep(0)
                self.the_law_holds()

        self.loop.run_until_complete(body())

    @rule()
    def pause(self) -> None:
        self.memory.pause()

    @rule()
    def resume(self) -> None:
        self.memory.resume()

    @rule(timeout=st.sampled_from([0.0, 0.005]))
    def flush(self, timeout: float) -> None:
        self.loop.run_until_complete(self.processor.aforce_flush(timeout))

    @rule()
    def flush_without_a_loop(self) -> None:
        self.processor.force_flush(5)

    @rule()
    def end_the_loop_as_asyncio_run_does(self) -> None:
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()

        async def end() -> None:
            await asyncio.gather(*tasks, return_exceptions=True)

        self.loop.run_until_complete(end())
        self.loop.close()
        self.loop = asyncio.new_event_loop()

    @precondition(lambda self: not self.stopped)
    @rule(timeout=st.sampled_from([0.0, 0.01]), inside=st.booleans())
    def shut_down(self, timeout: float, inside: bool) -> None:
        self.stopped = True
        if inside:
            self.loop.run_until_complete(self.processor.ashutdown(timeout))
        else:
            self.processor.shutdown(int(timeout * 1000))
        statistics = self.processor.statistics()
        assert statistics.queued == 0
        assert statistics.in_flight == 0

    @invariant()
    def the_law_holds(self) -> None:
        statistics = self.processor.statistics()
        assert statistics.balanced, statistics
        assert statistics.ended == self.ended
        assert statistics.exported <= len(self.memory.finished_spans)
        assert min(statistics.queued, statistics.in_flight, statistics.exported) >= 0
        (sink,) = statistics.sinks.values()
        assert sink.accepted == sink.exported + sum(sink.dropped.values()) + sink.in_flight
        assert statistics.queued <= 24 + 5 * 6

    def teardown(self) -> None:
        self.memory.resume()
        self.loop.run_until_complete(self.processor.ashutdown(1))
        self.end_the_loop_as_asyncio_run_does()
        self.loop.close()
        statistics = self.processor.statistics()
        assert statistics.ended == statistics.exported + sum(statistics.dropped.values())
        logging.disable(logging.NOTSET)


TestLaw = pytest.mark.filterwarnings("error")(Law.TestCase)
Law.TestCase.settings = settings(
    max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)


async def test_what_is_exported_is_what_ended_span_by_span() -> None:
    memory = MemorySpanExporter()
    stock = InMemorySpanExporter()
    processor = BatchSpanProcessor(memory, stock, max_export_batch_size=7)
    provider = TracerProvider(ALWAYS_ON, RESOURCE, shutdown_on_exit=False)
    provider.add_span_processor(processor)
    tracer = provider.get_tracer("law")
    ended: list[Any] = []
    for number in range(100):
        span = tracer.start_span(f"span-{number}")
        span.end()
        ended.append(span)

    assert await processor.ashutdown(5)

    received: tuple[ReadableSpan, ...] = memory.finished_spans
    assert list(received) == ended
    statistics = processor.statistics()
    assert statistics.exported == 100
    assert {name: sink.exported for name, sink in statistics.sinks.items()} == {
        "MemorySpanExporter": 100,
        "InMemorySpanExporter": 100,
    }
