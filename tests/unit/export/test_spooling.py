"""A sink with a spool: what it writes, when it sends it, and how it is counted."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan

from mapek_runtime.errors import TransportError, TransportRejected
from mapek_runtime.export.account import Account, Fate, Outcome, Place, SinkAccount
from mapek_runtime.export.batch import BatchSpanProcessor
from mapek_runtime.export.memory import MemorySpanExporter
from mapek_runtime.export.retry import Backoff
from mapek_runtime.export.spool import SpooledExporter
from mapek_runtime.export.spool.stock import Stock
from mapek_runtime.trace.ring import Ring
from tests.unit.export.wire import Stuck, end_spans, tracer_for

QUICK = Backoff(initial=0.001, maximum=0.002)
AWAY = TransportError("nobody is there", retryable=True, error_type="ClientConnectorError")


class Collector:
    """A byte exporter at the edge whose collector is there, or away, or refuses."""

    def __init__(self) -> None:
        self.fault: Exception | None = None
        self.names: list[str] = []
        self.asked = 0

    async def send(self, payload: bytes, count: int) -> None:
        self.asked += 1
        await asyncio.sleep(0)
        if self.fault is not None:
            raise self.fault
        request = ExportTraceServiceRequest.FromString(payload)
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self.names += [span.name for span in scope.spans]

    async def aclose(self) -> None:
        """Nothing is open."""


def spooled(collector: Any, folder: Path, **options: Any) -> BatchSpanProcessor:
    """A processor of small batches in front of a spooled exporter."""
    spool = {name: options.pop(name) for name in ("max_bytes", "max_age", "rate") if name in options}
    exporter = SpooledExporter(collector, folder, backoff=QUICK, **spool)
    return BatchSpanProcessor(exporter, max_export_batch_size=5, **options)


def written(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - the processor is asked, as a user would
            await asyncio.sleep(0.001)


async def test_while_the_collector_answers_nothing_is_written(tmp_path: Path) -> None:
    collector = Collector()
    processor = spooled(collector, tmp_path)

    end_spans(tracer_for(processor), 20)

    assert await processor.ashutdown(5)
    assert len(collector.names) == 20
    assert written(tmp_path) == 0


async def test_what_an_absent_collector_missed_follows_in_order_when_it_is_back(tmp_path: Path) -> None:
    collector = Collector()
    processor = spooled(collector, tmp_path)
    tracer = tracer_for(processor)
    collector.fault = AWAY
    end_spans(tracer, 40)
    await until(lambda: processor.statistics().spooled == 40)
    assert processor.statistics().balanced

    collector.fault = None
    await until(lambda: processor.statistics().exported == 40)

    assert sorted(collector.names) == sorted(f"span-{number}" for number in range(40))
    assert processor.statistics().dropped == {}
    assert await processor.ashutdown(5)


async def test_an_absent_collector_is_not_asked_for_every_batch(tmp_path: Path) -> None:
    collector = Collector()
    collector.fault = AWAY
    exporter = SpooledExporter(collector, tmp_path, backoff=Backoff(initial=60, maximum=60))
    processor = BatchSpanProcessor(exporter, max_export_batch_size=5, max_concurrency=1)
    end_spans(tracer_for(processor), 100)

    await until(lambda: processor.statistics().spooled == 100)

    assert collector.asked == 1
    await processor.ashutdown(1)


async def test_a_shutdown_without_a_collector_leaves_everything_to_the_next_process(tmp_path: Path) -> None:
    collector = Collector()
    collector.fault = AWAY
    processor = spooled(collector, tmp_path)
    end_spans(tracer_for(processor), 23)
    assert await processor.ashutdown(2) is False
    left = processor.statistics()
    assert (left.spooled, left.dropped) == (23, {})
    assert left.balanced

    collector.fault = None
    second = spooled(collector, tmp_path)
    second.start()
    await until(lambda: second.statistics().exported == 23)

    assert sorted(collector.names) == sorted(f"span-{number}" for number in range(23))
    statistics = second.statistics()
    assert (statistics.ended, statistics.recovered) == (0, 23)
    assert statistics.balanced
    assert statistics.sinks["Collector"].recovered == 23
    await second.ashutdown(1)


async def test_a_collector_that_never_answers_does_not_cost_spans_at_the_shutdown(tmp_path: Path) -> None:
    processor = spooled(Stuck(), tmp_path)
    end_spans(tracer_for(processor), 200)

    async with asyncio.timeout(5):
        assert await processor.ashutdown(0.4) is False

    statistics = processor.statistics()
    assert (statistics.spooled, statistics.dropped) == (200, {})


async def test_what_a_collector_refuses_for_good_is_not_spooled(tmp_path: Path) -> None:
    collector = Collector()
    collector.fault = TransportError("no such path", error_type="404")
    processor = spooled(collector, tmp_path)
    end_spans(tracer_for(processor), 5)
    await processor.aforce_flush(5)
    collector.fault = TransportRejected("two are bad", rejected_spans=2)
    end_spans(tracer_for(processor), 5)
    await processor.aforce_flush(5)

    statistics = processor.statistics()
    assert (statistics.exported, statistics.spooled) == (3, 0)
    assert statistics.dropped == {"404": 5, "rejected": 2}
    await processor.ashutdown(1)


async def test_spooled_spans_that_are_refused_when_the_collector_is_back_are_counted(tmp_path: Path) -> None:
    collector = Collector()
    collector.fault = AWAY
    processor = spooled(collector, tmp_path)
    end_spans(tracer_for(processor), 5)
    await until(lambda: processor.statistics().spooled == 5)

    collector.fault = TransportError("too large", error_type="413")
    await until(lambda: processor.statistics().spooled == 0)

    assert processor.statistics().dropped == {"413": 5}
    await processor.ashutdown(1)


async def test_what_does_not_fit_into_the_spool_goes_from_the_oldest_and_is_counted(tmp_path: Path) -> None:
    collector = Collector()
    collector.fault = AWAY
    processor = spooled(collector, tmp_path, max_bytes=8 << 20)
    tracer = tracer_for(processor)
    big = "x" * 1_000_000
    for number in range(20):
        tracer.start_span(f"span-{number}", attributes={"big": big}).end()
        await processor.aforce_flush(5)

    statistics = processor.statistics()
    lost = statistics.dropped["spool_full"]
    assert 8 <= lost <= 18
    assert statistics.spooled + statistics.in_flight == 20 - lost
    assert statistics.balanced
    collector.fault = None
    await until(lambda: processor.statistics().spooled == 0)
    assert sorted(collector.names) == sorted(f"span-{number}" for number in range(lost, 20))
    await processor.ashutdown(1)


async def test_a_folder_that_cannot_be_used_leaves_the_exporter_as_it_was(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    taken = tmp_path / "file"
    taken.write_text("here already")
    collector = Collector()
    processor = spooled(collector, taken)
    end_spans(tracer_for(processor), 5)
    await processor.aforce_flush(5)
    collector.fault = AWAY
    end_spans(tracer_for(processor), 5)
    await processor.aforce_flush(5)

    statistics = processor.statistics()
    assert statistics.exported == 5
    assert statistics.dropped == {"ClientConnectorError": 5}
    assert "there is no spool" in caplog.text
    await processor.ashutdown(1)


async def test_what_one_collector_took_is_exported_though_another_ones_copy_is_spooled(
    tmp_path: Path,
) -> None:
    memory = MemorySpanExporter()
    collector = Collector()
    collector.fault = AWAY
    processor = BatchSpanProcessor(
        SpooledExporter(collector, tmp_path, backoff=QUICK), memory, max_export_batch_size=5
    )
    end_spans(tracer_for(processor), 10)
    await until(lambda: processor.statistics().sinks["Collector"].spooled == 10)
    await until(lambda: processor.statistics().exported == 10)

    assert processor.statistics().spooled == 0
    collector.fault = None
    await until(lambda: processor.statistics().sinks["Collector"].exported == 10)
    assert processor.statistics().exported == 10
    assert processor.statistics().balanced
    await processor.ashutdown(1)


def test_a_spool_outlives_the_loop(tmp_path: Path) -> None:
    collector = Collector()
    collector.fault = AWAY
    processor = spooled(collector, tmp_path)
    tracer = tracer_for(processor)

    async def first() -> None:
        end_spans(tracer, 10)
        await until(lambda: processor.statistics().spooled == 10)

    async def second() -> None:
        collector.fault = None
        end_spans(tracer, 10)
        await until(lambda: processor.statistics().exported == 20)

    asyncio.run(first())
    assert processor.statistics().balanced
    asyncio.run(second())
    processor.shutdown()

    assert len(collector.names) == len(set(collector.names)) * 2 == 20
    assert processor.statistics().balanced


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_the_child_of_a_fork_does_not_send_what_its_parent_spooled(tmp_path: Path) -> None:
    collector = Collector()
    collector.fault = AWAY
    processor = spooled(collector, tmp_path)
    tracer = tracer_for(processor)

    async def spool() -> None:
        end_spans(tracer, 10)
        await until(lambda: processor.statistics().spooled == 10)

    async def child() -> bool:
        collector.fault = None
        end_spans(tracer, 3)
        done = await processor.ashutdown(5)
        return done and sorted(collector.names) == ["span-0", "span-1", "span-2"]

    asyncio.run(spool())
    number = os.fork()
    if not number:
        right = False
        try:
            right = asyncio.run(child())
        finally:
            os._exit(0 if right else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]) == 0
    collector.fault = None
    processor.force_flush()
    asyncio.run(until_sent(processor))

    assert len(collector.names) == 10
    processor.shutdown()


async def until_sent(processor: BatchSpanProcessor) -> None:
    processor.start()
    await until(lambda: processor.statistics().spooled == 0)


@pytest.mark.parametrize(
    ("options", "error"),
    [({"rate": 0}, ValueError), ({"max_bytes": -1}, ValueError), ({"fsync": "sometimes"}, ValueError)],
    ids=str,
)
def test_wrong_settings_are_refused(tmp_path: Path, options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(options))):
        SpooledExporter(Collector(), tmp_path, **options)


def test_only_exporters_of_bytes_can_have_a_spool(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="cannot have a spool"):
        SpooledExporter(MemorySpanExporter(), tmp_path)


@pytest.mark.parametrize(("written", "claimed"), [(4, 0), (10, 10), (15, 10)])
def test_a_batch_that_another_exporter_has_too_is_never_split(written: int, claimed: int) -> None:
    ring = Ring(100, on_due=lambda: None)
    account = Account(ring)
    spooling, other = SinkAccount(), SinkAccount()
    for _ in range(10):
        ring.append(ReadableSpan("span"))
    fate = Fate(len(account.take(10)))
    account.offer(fate, [spooling, other])
    account.move(fate, spooling, Place.QUEUED, Place.SPOOLED)
    stock = Stock()
    stock.put(fate)

    # What the disk has first was written for a loop that was gone before it could count it.
    mine = stock.claim(written)
    for each in mine:
        account.settle(each, spooling, Place.SPOOLED, Outcome(each.count))
    account.settle(fate, other, Place.QUEUED, Outcome(3, 7, "rejected"))

    assert sum(each.count for each in mine) == claimed
    statistics = account.statistics({"spooling": spooling, "other": other})
    assert statistics.balanced
    assert all(sink.balanced for sink in statistics.sinks.values()), statistics.sinks
