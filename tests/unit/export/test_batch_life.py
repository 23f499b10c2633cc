"""`BatchSpanProcessor`: loops, threads and processes that come and go, and how it ends."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Sequence

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from mapek_runtime.export.batch import BatchSpanProcessor
from mapek_runtime.export.memory import MemorySpanExporter
from tests.unit.export.wire import Stuck, Wire, end_spans, tracer_for, turns


async def test_no_thread_is_started_for_asyncio_exporters() -> None:
    before = threading.active_count()
    processor = BatchSpanProcessor(Wire(), MemorySpanExporter())

    end_spans(tracer_for(processor), 2_000)
    await processor.aforce_flush(5)

    assert threading.active_count() == before
    await processor.ashutdown(1)


async def test_a_shutdown_is_bounded_and_counts_what_was_not_sent() -> None:
    stuck = Stuck()
    processor = BatchSpanProcessor(stuck, max_export_batch_size=4, max_concurrency=2)
    end_spans(tracer_for(processor), 20)
    heartbeats = 0

    async def beat() -> None:
        nonlocal heartbeats
        while True:
            heartbeats += 1
            await asyncio.sleep(0.005)

    heart = asyncio.create_task(beat())
    async with asyncio.timeout(5):
        assert await processor.ashutdown(0.1) is False
    heart.cancel()

    assert stuck.cancelled == 2
    assert processor.statistics().dropped == {"timeout": 20}
    assert processor.statistics().balanced
    assert heartbeats > 3


async def test_after_the_shutdown_spans_are_refused_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    memory = MemorySpanExporter()
    processor = BatchSpanProcessor(memory)
    tracer = tracer_for(processor)
    await processor.ashutdown(1)

    end_spans(tracer, 50)

    assert processor.statistics().dropped == {"already_shutdown": 50}
    assert processor.statistics().balanced
    assert await processor.aforce_flush(1) is False
    assert await processor.ashutdown(1) is True
    assert len([record for record in caplog.records if "after the shutdown" in record.message]) == 1


async def test_the_synchronous_forms_do_not_wait_on_the_thread_of_the_loop(
    caplog: pytest.LogCaptureFixture,
) -> None:
    memory = MemorySpanExporter()
    processor = BatchSpanProcessor(memory)
    end_spans(tracer_for(processor), 3)

    assert processor.force_flush(60_000) is False
    assert processor.force_flush(60_000) is False
    await turns()
    assert len(memory.finished_spans) == 3
    assert processor.force_flush(60_000) is True
    processor.shutdown(60_000)
    await turns()

    told = [record.message for record in caplog.records]
    assert len([line for line in told if "await aforce_flush()" in line]) == 1
    assert len([line for line in told if "await ashutdown()" in line]) == 1
    assert processor.statistics().exported == 3


async def test_another_thread_may_flush_and_wait() -> None:
    memory = MemorySpanExporter()
    processor = BatchSpanProcessor(memory)
    end_spans(tracer_for(processor), 3)
    await turns(1)

    assert await asyncio.to_thread(processor.force_flush, 5_000) is True

    assert len(memory.finished_spans) == 3
    await asyncio.to_thread(processor.shutdown, 1_000)
    assert processor.statistics().balanced


def test_without_a_loop_a_full_queue_is_exported_in_place() -> None:
    memory = MemorySpanExporter()
    processor = BatchSpanProcessor(memory, max_queue_size=10, max_export_batch_size=5)

    end_spans(tracer_for(processor), 25)
    assert len(memory.finished_spans) == 20

    assert processor.force_flush(5_000)
    assert len(memory.finished_spans) == 25
    processor.shutdown()


def test_one_processor_serves_several_loops_one_after_another() -> None:
    memory = MemorySpanExporter()
    processor = BatchSpanProcessor(memory, max_export_batch_size=2)
    tracer = tracer_for(processor)

    async def program() -> None:
        end_spans(tracer, 5)
        await turns()

    for _ in range(3):
        asyncio.run(program())
    processor.shutdown()

    assert len(memory.finished_spans) == 15
    assert processor.statistics().exported == 15


def test_what_is_in_flight_when_the_loop_ends_is_not_lost() -> None:
    memory = MemorySpanExporter()
    memory.pause()
    processor = BatchSpanProcessor(memory, max_export_batch_size=2)
    tracer = tracer_for(processor)

    async def program() -> None:
        end_spans(tracer, 5)
        await turns()
        assert processor.statistics().in_flight > 0

    asyncio.run(program())
    assert processor.statistics().queued == 5
    memory.resume()
    processor.shutdown()

    assert len(memory.finished_spans) == 5


def test_a_loop_that_stopped_may_be_replaced_and_come_back(caplog: pytest.LogCaptureFixture) -> None:
    memory = MemorySpanExporter()
    memory.pause()
    processor = BatchSpanProcessor(memory, max_export_batch_size=2)
    tracer = tracer_for(processor)

    async def program() -> None:
        end_spans(tracer, 4)
        await turns()

    with asyncio.Runner() as first:
        first.run(program())
        assert processor.statistics().in_flight == 2
        memory.resume()
        with asyncio.Runner() as second:
            second.run(program())
            second.run(processor.aforce_flush(5))
        assert processor.statistics().exported == 8
        # What the first loop had in flight was sent by the second, and is not counted twice.
        first.run(turns())
        assert processor.statistics().exported == 8
        assert processor.statistics().balanced
    processor.shutdown()
    assert caplog.records == []


def test_a_loop_that_stops_and_goes_on_is_followed() -> None:
    memory = MemorySpanExporter()
    processor = BatchSpanProcessor(memory, max_export_batch_size=2)
    tracer = tracer_for(processor)

    async def program() -> None:
        end_spans(tracer, 4)
        await turns()

    with asyncio.Runner() as runner:
        runner.run(program())
        end_spans(tracer, 4)
        runner.run(program())
    processor.shutdown()

    assert processor.statistics().exported == len(memory.finished_spans) == 12


async def test_spans_that_end_in_other_threads_are_exported() -> None:
    memory = MemorySpanExporter()
    processor = BatchSpanProcessor(memory, max_export_batch_size=100)
    tracer = tracer_for(processor)
    end_spans(tracer, 1)

    await asyncio.gather(*(asyncio.to_thread(end_spans, tracer, 500) for _ in range(4)))
    assert await processor.aforce_flush(5)

    assert len(memory.finished_spans) == 2_001
    assert processor.statistics().balanced
    await processor.ashutdown(1)


async def test_a_synchronous_exporter_works_in_one_thread() -> None:
    threads: set[str] = set()
    at_once = [0, 0]

    class Slow(SpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            at_once[0] += 1
            at_once[1] = max(at_once)
            threads.add(threading.current_thread().name)
            at_once[0] -= 1
            return SpanExportResult.SUCCESS

    stock = InMemorySpanExporter()
    processor = BatchSpanProcessor(Slow(), stock, max_export_batch_size=10)
    end_spans(tracer_for(processor), 100)

    assert await processor.ashutdown(5)

    assert threads == {"mapek-Slow"}
    assert at_once == [0, 1]
    assert len(stock.get_finished_spans()) == 100
    assert processor.statistics().exported == 100


async def test_a_synchronous_exporter_that_hangs_does_not_hold_up_the_shutdown() -> None:
    go = threading.Event()

    class Hanging(SpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            go.wait(30)
            return SpanExportResult.SUCCESS

    processor = BatchSpanProcessor(Hanging())
    end_spans(tracer_for(processor), 3)

    async with asyncio.timeout(5):
        assert await processor.ashutdown(0.05) is False
    go.set()

    assert processor.statistics().dropped == {"timeout": 3}


async def test_a_synchronous_exporter_that_fails_is_counted() -> None:
    class Failing(SpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            return SpanExportResult.FAILURE

    processor = BatchSpanProcessor(Failing())
    end_spans(tracer_for(processor), 3)
    await processor.ashutdown(1)

    assert processor.statistics().dropped == {"failure": 3}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_the_child_of_a_fork_starts_empty() -> None:
    program = """
import asyncio, os
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from mapek_runtime.export.batch import BatchSpanProcessor
from mapek_runtime.export.memory import MemorySpanExporter
from mapek_runtime.trace import TracerProvider
memory = MemorySpanExporter()
processor = BatchSpanProcessor(memory)
provider = TracerProvider(ALWAYS_ON, shutdown_on_exit=False)
provider.add_span_processor(processor)
tracer = provider.get_tracer("fork")
for _ in range(10):
    tracer.start_span("parent").end()
child = os.fork()
async def program():
    for _ in range(4):
        tracer.start_span("child").end()
    assert await processor.ashutdown(5)
if not child:
    assert processor.statistics().ended == 0
    asyncio.run(program())
    assert [span.name for span in memory.finished_spans] == ["child"] * 4
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
processor.shutdown()
assert [span.name for span in memory.finished_spans] == ["parent"] * 10
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")


def test_what_is_left_when_the_interpreter_exits_is_exported() -> None:
    program = """
import asyncio
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from mapek_runtime.export.batch import BatchSpanProcessor
from mapek_runtime.export.console import ConsoleSpanExporter
from mapek_runtime.trace import TracerProvider
provider = TracerProvider(ALWAYS_ON, shutdown_on_exit=False)
provider.add_span_processor(BatchSpanProcessor(ConsoleSpanExporter()))
tracer = provider.get_tracer("exit")
async def program():
    tracer.start_span("inside").end()
asyncio.run(program())
tracer.start_span("outside").end()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[4] for line in done.stdout.splitlines()] == ["inside", "outside"]


async def test_a_shutdown_leaves_no_task_behind() -> None:
    processor = BatchSpanProcessor(MemorySpanExporter())
    end_spans(tracer_for(processor), 3)
    await processor.ashutdown(1)

    assert not [task for task in asyncio.all_tasks() if task.get_name() == "mapek-batch"]
