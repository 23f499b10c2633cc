"""The law of accounting at every instant, whatever happens: bursts, pauses, floods, loops that end.

One exporter, and three of different kinds and tempers behind one processor, each with its account.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from tempfile import TemporaryDirectory
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

from mapek_runtime.errors import TransportError, TransportRejected
from mapek_runtime.export.batch import BatchSpanProcessor
from mapek_runtime.export.memory import MemorySpanExporter
from mapek_runtime.export.retry import Backoff
from mapek_runtime.export.spool import SpooledExporter
from mapek_runtime.trace import TracerProvider

RESOURCE = Resource({"service.name": "test"})
QUEUE = 24
BATCH = 5
AT_ONCE = 48 + 1
"""Batches that one exporter may have in flight, and the one in the making."""


class Moody:
    """A byte exporter that does what its mood says, and remembers what it took."""

    def __init__(self) -> None:
        self.mood = "takes"
        self.taken = 0

    async def send(self, payload: bytes, count: int) -> None:
        await asyncio.sleep(0)
        if self.mood == "hangs":
            await asyncio.get_running_loop().create_future()
        if self.mood == "fails":
            raise TransportError("no", retryable=True, error_type="503")
        if self.mood == "breaks":
            raise ZeroDivisionError
        refused = min(2, count) if self.mood == "refuses" else 0
        self.taken += count - refused
        if refused:
            raise TransportRejected("some", rejected_spans=refused)

    async def aclose(self) -> None:
        """Nothing is open."""


class Law(RuleBasedStateMachine):
    """A processor with small limits, on loops that come and go."""

    def __init__(self) -> None:
        super().__init__()
        logging.disable(logging.CRITICAL)
        self.memory = MemorySpanExporter(capacity=100_000)
        self.loop = asyncio.new_event_loop()
        self.begin()

    def begin(self) -> None:
        self.processor = BatchSpanProcessor(
            *self.exporters(),
            max_queue_size=QUEUE,
            max_export_batch_size=BATCH,
            schedule_delay_millis=1,
            export_timeout_millis=20,
        )
        self.provider = TracerProvider(ALWAYS_ON, RESOURCE, shutdown_on_exit=False)
        self.provider.add_span_processor(self.processor)
        self.tracer = self.provider.get_tracer("law")
        self.ended = 0
        self.stopped = False

    def exporters(self) -> list[Any]:
        return [self.memory]

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

    @rule(count=st.integers(1, 40), threads=st.integers(1, 3))
    def end_in_other_threads(self, count: int, threads: int) -> None:
        def work() -> None:
            for _ in range(count):
                self.tracer.start_span("thread", context=Context()).end()

        async def body() -> None:
            running = [threading.Thread(target=work) for _ in range(threads)]
            for thread in running:
                thread.start()
            while any(thread.is_alive() for thread in running):
                statistics = self.processor.statistics()
                assert statistics.balanced, statistics
                await asyncio.sleep(0)

        self.loop.run_until_complete(body())
        self.ended += count * threads

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
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.close_the_loop_and_nothing_else()

    @rule()
    def close_the_loop_and_nothing_else(self) -> None:
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
        assert min(statistics.queued, statistics.in_flight, statistics.exported) >= 0
        # In the ring, encoded for the slowest exporter, and what came back from a loop that ended.
        assert statistics.queued <= 2 * (QUEUE + BATCH) + BATCH * AT_ONCE
        for sink in statistics.sinks.values():
            assert sink.balanced, sink
            assert sink.exported <= statistics.exported or len(statistics.sinks) > 1
            assert sink.accepted <= statistics.ended
            assert min(sink.queued, sink.in_flight, sink.exported, sink.spooled) >= 0
        self.what_is_exported_arrived()

    def what_is_exported_arrived(self) -> None:
        assert self.processor.statistics().exported <= len(self.memory.finished_spans)

    def teardown(self) -> None:
        self.memory.resume()
        self.loop.run_until_complete(self.processor.ashutdown(1))
        self.end_the_loop_as_asyncio_run_does()
        self.loop.close()
        statistics = self.processor.statistics()
        assert statistics.balanced
        assert statistics.held == statistics.queued == statistics.in_flight == 0
        logging.disable(logging.NOTSET)


class LawOfSeveral(Law):
    """The same with an exporter of each kind; what one does never shows in the account of another."""

    def exporters(self) -> list[Any]:
        self.moody = Moody()
        self.stock = InMemorySpanExporter()
        return [self.moody, self.memory, self.stock]

    @rule(mood=st.sampled_from(["takes", "hangs", "fails", "breaks", "refuses"]))
    def change_the_mood(self, mood: str) -> None:
        self.moody.mood = mood

    def what_is_exported_arrived(self) -> None:
        sinks = self.processor.statistics().sinks
        assert sinks["Moody"].exported <= self.moody.taken
        assert sinks["MemorySpanExporter"].exported <= len(self.memory.finished_spans)
        assert sinks["InMemorySpanExporter"].exported <= len(self.stock.get_finished_spans())

    def teardown(self) -> None:
        self.moody.mood = "takes"
        super().teardown()
        statistics = self.processor.statistics()
        for sink in statistics.sinks.values():
            assert sink.queued == sink.in_flight == 0
            assert sink.exported <= statistics.exported


class LawOfSpool(Law):
    """A collector that comes and goes, with a spool that outlives the process."""

    def __init__(self) -> None:
        # A process that is given no time to close its spool may still be in it.
        self.folder = TemporaryDirectory(ignore_cleanup_errors=True)
        self.moody = Moody()
        super().__init__()

    def exporters(self) -> list[Any]:
        return [SpooledExporter(self.moody, self.folder.name, backoff=Backoff(initial=0.001, maximum=0.002))]

    @rule(mood=st.sampled_from(["takes", "hangs", "fails", "breaks", "refuses"]))
    def change_the_mood(self, mood: str) -> None:
        self.moody.mood = mood

    @rule()
    def wait_a_little(self) -> None:
        self.loop.run_until_complete(asyncio.sleep(0.02))

    @precondition(lambda self: self.stopped)
    @rule()
    def start_the_next_process(self) -> None:
        left = self.processor.statistics()
        self.moody.taken = 0
        self.begin()

        async def body() -> None:
            self.processor.start()
            async with asyncio.timeout(5):
                while self.processor.statistics().recovered < left.spooled:  # noqa: ASYNC110 - it is asked
                    await asyncio.sleep(0.001)

        self.loop.run_until_complete(body())
        # More, where a loop stopped between a write, or an answer, and the note that was to be taken of it.
        assert self.processor.statistics().recovered >= left.spooled

    def what_is_exported_arrived(self) -> None:
        assert self.processor.statistics().exported <= self.moody.taken

    def teardown(self) -> None:
        super().teardown()
        self.folder.cleanup()


class LawOfSpoolBeside(LawOfSpool):
    """The same beside an exporter that has no spool: what is on disk may be known to it as well."""

    def exporters(self) -> list[Any]:
        return [*super().exporters(), self.memory]

    def what_is_exported_arrived(self) -> None:
        sinks = self.processor.statistics().sinks
        assert sinks["Moody"].exported <= self.moody.taken
        assert sinks["MemorySpanExporter"].exported <= len(self.memory.finished_spans)


FEW = settings(
    max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
TestLaw = pytest.mark.filterwarnings("error")(Law.TestCase)
Law.TestCase.settings = FEW
TestLawOfSeveral = pytest.mark.filterwarnings("error")(LawOfSeveral.TestCase)
LawOfSeveral.TestCase.settings = FEW
TestLawOfSpool = pytest.mark.filterwarnings("error")(LawOfSpool.TestCase)
LawOfSpool.TestCase.settings = settings(FEW, max_examples=20)
TestLawOfSpoolBeside = pytest.mark.filterwarnings("error")(LawOfSpoolBeside.TestCase)
LawOfSpoolBeside.TestCase.settings = settings(FEW, max_examples=20)


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
