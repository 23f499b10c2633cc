"""`BatchSpanProcessor`: loops that stop, end and are closed while somebody counts on them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from mapek_runtime.errors import TransportError
from mapek_runtime.export import batch
from mapek_runtime.export.batch import BatchSpanProcessor
from mapek_runtime.export.elsewhere import do_elsewhere, do_elsewhere_and_block
from mapek_runtime.export.memory import MemorySpanExporter
from mapek_runtime.export.retry import Backoff
from mapek_runtime.export.spool import SpooledExporter
from mapek_runtime.export.task import BatchTask
from tests.unit.export.wire import Stuck, end_spans, tracer_for, turns


class Stopped:
    """A loop that stopped while its batch task was at work."""

    def __init__(self, count: int, **settings: Any) -> None:
        self.memory = MemorySpanExporter()
        self.processor = BatchSpanProcessor(self.memory, max_export_batch_size=5, **settings)
        self.tracer = tracer_for(self.processor)
        self.loop = asyncio.new_event_loop()
        self.loop.run_until_complete(self.end(count))

    async def end(self, count: int) -> None:
        end_spans(self.tracer, count)


def test_a_loop_that_stopped_at_work_does_not_keep_another_from_it() -> None:
    stopped = Stopped(90, max_queue_size=100)

    async def program() -> None:
        for _ in range(300):
            await stopped.end(1)
            await asyncio.sleep(0)

    asyncio.run(program())
    stopped.processor.shutdown()
    stopped.loop.close()

    assert stopped.processor.statistics().dropped == {}
    assert stopped.processor.statistics().exported == 390


def test_a_loop_that_stopped_at_work_does_not_keep_a_program_without_loop_from_it() -> None:
    stopped = Stopped(90, max_queue_size=100)

    end_spans(stopped.tracer, 300)
    stopped.processor.shutdown()
    stopped.loop.close()

    assert stopped.processor.statistics().dropped == {}
    assert stopped.processor.statistics().exported == 390


def test_a_batch_is_enough_to_notice_that_a_loop_stopped() -> None:
    stopped = Stopped(90)

    async def program() -> None:
        for _ in range(520):
            await stopped.end(1)
            await asyncio.sleep(0)

    asyncio.run(program())

    assert stopped.processor.statistics().exported > 0
    stopped.processor.shutdown()
    stopped.loop.close()


def test_a_loop_may_go_on_in_another_thread() -> None:
    memory = MemorySpanExporter()
    processor = BatchSpanProcessor(memory, max_export_batch_size=5)
    tracer = tracer_for(processor)
    loop = asyncio.new_event_loop()
    loop.set_debug(True)

    async def begin() -> None:
        end_spans(tracer, 5)
        await turns()

    loop.run_until_complete(begin())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(turns(1), loop).result()

    # In debug mode a loop raises when it is touched from a thread that is not its own.
    end_spans(tracer, 10)
    assert processor.force_flush(5_000)

    assert len(memory.finished_spans) == 15
    processor.shutdown()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_a_task_factory_need_not_know_of_contexts() -> None:
    memory = MemorySpanExporter()
    processor = BatchSpanProcessor(memory)

    def factory(loop: asyncio.AbstractEventLoop, coroutine: Any) -> asyncio.Task[Any]:
        return asyncio.Task(coroutine, loop=loop)

    async def program() -> None:
        asyncio.get_running_loop().set_task_factory(factory)
        end_spans(tracer_for(processor), 3)
        assert await processor.ashutdown(5)

    asyncio.run(program())

    assert len(memory.finished_spans) == 3


def test_a_flush_whose_loop_ends_is_no_success_and_raises_nothing() -> None:
    processor = BatchSpanProcessor(Stuck())
    answers: list[bool] = []

    async def program() -> threading.Thread:
        end_spans(tracer_for(processor), 3)
        await turns()
        thread = threading.Thread(target=lambda: answers.append(processor.force_flush(100)))
        thread.start()
        # Until the flush has its task here.
        while len(asyncio.all_tasks()) < 2:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.001)
        return thread

    asyncio.run(program()).join()

    assert answers == [False]
    processor.shutdown(0)


def test_a_shutdown_whose_loop_ends_goes_on_where_it_was_asked_for() -> None:
    memory = MemorySpanExporter()
    memory.pause()
    processor = BatchSpanProcessor(memory)
    answers: list[bool] = []

    def work() -> None:
        answers.append(asyncio.run(processor.ashutdown(10)))

    async def program() -> threading.Thread:
        end_spans(tracer_for(processor), 3)
        await turns()
        thread = threading.Thread(target=work)
        thread.start()
        while len(asyncio.all_tasks()) < 2:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.001)
        # What is in flight here stays so; what is sent elsewhere goes through.
        memory._paused = False
        return thread

    asyncio.run(program()).join()

    assert answers == [True]
    assert len(memory.finished_spans) == 3


def test_a_shutdown_in_the_midst_of_a_loops_end_has_its_time_all_the_same() -> None:
    memory = MemorySpanExporter()
    memory.pause()
    processor = BatchSpanProcessor(memory, max_export_batch_size=2)
    tracer = tracer_for(processor)
    kept: list[AsyncGenerator[None, None]] = []
    answers: list[bool] = []

    async def lifetime() -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            # The batch task waits for what is in flight for half a second, and then ends with the loop.
            asyncio.get_running_loop().call_later(0.6, memory.resume)
            answers.append(await processor.ashutdown(10))

    async def program() -> None:
        end_spans(tracer, 5)
        kept.append(lifetime())
        await anext(kept[0])
        await turns()

    asyncio.run(program())

    assert answers == [True]
    assert processor.statistics().exported == 5
    assert processor.statistics().dropped == {}


def test_a_shutdown_that_its_loop_cut_short_is_made_good() -> None:
    calls: list[str] = []

    class Buffering(SpanExporter):
        def export(self, spans: Any) -> SpanExportResult:
            return SpanExportResult.SUCCESS

        def shutdown(self) -> None:
            calls.append("shutdown")

    processor = BatchSpanProcessor(Buffering())

    async def program() -> None:
        end_spans(tracer_for(processor), 3)
        assert await processor.aforce_flush(5)
        processor.shutdown()

    asyncio.run(program())
    processor.shutdown()

    assert calls == ["shutdown"]


def test_a_loop_that_ends_late_leaves_the_spool_to_who_took_over(tmp_path: Path) -> None:
    class Moody:
        away = True

        async def send(self, payload: bytes, count: int) -> None:
            if self.away:
                raise TransportError("away", retryable=True)

        async def aclose(self) -> None:
            """Nothing is open."""

    moody = Moody()
    spooled = SpooledExporter(moody, tmp_path, backoff=Backoff(initial=0.001, maximum=0.001))
    processor = BatchSpanProcessor(spooled, max_export_batch_size=5)
    tracer = tracer_for(processor)

    async def program() -> None:
        end_spans(tracer, 5)
        await processor.aforce_flush(5)

    async def wait_for_the_spooled() -> None:
        async with asyncio.timeout(10):
            while processor.statistics().exported < 10:  # noqa: ASYNC110 - it is asked
                await asyncio.sleep(0.001)

    with asyncio.Runner() as second:
        with asyncio.Runner() as first:
            first.run(program())
            second.run(program())
        moody.away = False
        second.run(wait_for_the_spooled())
        second.run(processor.ashutdown(5))

    assert processor.statistics().exported == 10


async def test_work_elsewhere_is_told_from_work_that_was_cut_short() -> None:
    other = asyncio.new_event_loop()
    thread = threading.Thread(target=other.run_forever)
    thread.start()

    async def yes() -> bool:
        return True

    async def never() -> bool:
        return bool(await asyncio.get_running_loop().create_future())

    assert await do_elsewhere(other, yes, 5) is True
    assert await asyncio.to_thread(do_elsewhere_and_block, other, yes, 5) is True
    assert await do_elsewhere(other, never, 0) is False
    other.call_soon_threadsafe(other.stop)
    thread.join()
    assert await do_elsewhere(other, yes, 5) is None
    other.close()
    assert await do_elsewhere(other, yes, 5) is None
    assert await asyncio.to_thread(do_elsewhere_and_block, other, never, 5) is None


def test_loops_in_several_threads_start_one_task(monkeypatch: pytest.MonkeyPatch) -> None:
    processor = BatchSpanProcessor(MemorySpanExporter())
    here: list[int] = []
    made: list[int] = []

    class Slow(BatchTask):
        def __init__(self, *arguments: Any) -> None:
            made.append(1)
            for _ in range(1_000_000):
                """Time enough for every other thread to ask; a loop may not be blocked in these tests."""
            super().__init__(*arguments)

    async def program() -> None:
        here.append(1)
        while len(here) < 3:
            """The others are not there yet."""
        processor.start()
        here.append(1)
        while len(here) < 6:
            """Nor are they done."""

    monkeypatch.setattr(batch, "BatchTask", Slow)
    running = [threading.Thread(target=lambda: asyncio.run(program())) for _ in range(3)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()

    assert len(made) == 1
    monkeypatch.undo()
    processor.shutdown()
