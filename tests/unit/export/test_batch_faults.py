"""`BatchSpanProcessor`: exporters that misbehave harm neither the program nor one another."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Sequence
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from mapek_runtime.errors import TransportError
from mapek_runtime.export.batch import BatchSpanProcessor
from mapek_runtime.export.memory import MemorySpanExporter
from mapek_runtime.export.retry import Backoff
from mapek_runtime.export.spool import SpooledExporter
from mapek_runtime.trace import TracerProvider
from tests.unit.export.wire import RESOURCE, Stuck, Wire, end_spans, tracer_for


class Cancelling(Wire):
    """Its channel is closed under it: what it awaits is cancelled, though nobody cancelled it."""

    async def send(self, payload: bytes, count: int) -> None:
        gone = asyncio.get_running_loop().create_future()
        gone.cancel()
        await gone


async def test_an_exporter_that_cancels_itself_has_failed_and_does_not_keep_its_place() -> None:
    processor = BatchSpanProcessor(Cancelling(), max_export_batch_size=2, max_concurrency=1)

    end_spans(tracer_for(processor), 4)
    assert await processor.aforce_flush(5) is False

    assert processor.statistics().dropped == {"cancelled": 4}
    assert await processor.ashutdown(1) is True


async def test_a_synchronous_exporter_that_wants_to_exit_ends_no_thread() -> None:
    class Exiting(SpanExporter):
        calls = 0

        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            self.calls += 1
            if self.calls == 1:
                raise SystemExit(3)
            return SpanExportResult.SUCCESS

    processor = BatchSpanProcessor(Exiting(), max_export_batch_size=2)

    end_spans(tracer_for(processor), 4)
    assert await processor.aforce_flush(5) is False

    assert processor.statistics().dropped == {"RuntimeError": 2}
    assert processor.statistics().exported == 2
    assert await processor.ashutdown(1)


async def test_an_error_that_comes_too_late_is_not_reported_as_missed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    go, gone = threading.Event(), threading.Event()

    class Late(SpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            go.wait(30)
            raise ValueError

        def shutdown(self) -> None:
            gone.set()

    processor = BatchSpanProcessor(Late(), export_timeout_millis=10)
    end_spans(tracer_for(processor), 3)
    await processor.aforce_flush(5)
    go.set()
    await processor.ashutdown(5)
    assert await asyncio.to_thread(gone.wait, 5)
    gc.collect()

    assert processor.statistics().dropped == {"timeout": 3}
    assert [record for record in caplog.records if record.name == "asyncio"] == []


async def test_an_exporter_that_does_not_close_keeps_no_other_from_it() -> None:
    class Clinging(Wire):
        async def aclose(self) -> None:
            await asyncio.get_running_loop().create_future()

    wire = Wire()
    processor = BatchSpanProcessor(Clinging(), wire)
    end_spans(tracer_for(processor), 3)

    assert await processor.ashutdown(0.1)

    assert wire.closed


async def test_a_sink_that_cannot_be_attended_ends_no_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    wire, away = Wire(), Wire([TransportError("away", retryable=True)] * 9)
    spooled = SpooledExporter(away, tmp_path, backoff=Backoff(initial=3600, maximum=3600))
    processor = BatchSpanProcessor(spooled, wire, max_export_batch_size=2)
    monkeypatch.setattr(threading.Thread, "start", refuse)

    end_spans(tracer_for(processor), 4)
    await processor.aforce_flush(1)

    assert processor.statistics().sinks["Wire/2"].exported == 4
    assert processor.statistics().balanced
    assert "it is not attended any more" in caplog.text
    await processor.ashutdown(0.1)


async def test_spans_do_not_wait_with_the_bytes_for_a_slow_collector() -> None:
    processor = BatchSpanProcessor(Stuck(), MemorySpanExporter(1), max_export_batch_size=10)
    tracer = tracer_for(processor)
    alive = [weakref.ref(span) for span in end_spans(tracer, 200)]

    await processor.aforce_flush(0.1)
    gc.collect()

    statistics = processor.statistics().sinks
    assert statistics["MemorySpanExporter"].exported == 200
    assert statistics["Stuck"].queued + statistics["Stuck"].in_flight == 200
    assert sum(span() is not None for span in alive) == 1
    await processor.ashutdown(0)


async def test_one_processor_takes_no_time_from_another() -> None:
    wire = Wire()
    dead, healthy = BatchSpanProcessor(Stuck()), BatchSpanProcessor(wire)
    provider = TracerProvider(ALWAYS_ON, RESOURCE, shutdown_on_exit=False)
    provider.add_span_processor(dead)
    provider.add_span_processor(healthy)
    end_spans(provider.get_tracer("test"), 5)

    assert await provider.ashutdown(0.1) is False

    assert sum(count for _, count in wire.requests) == 5
    assert dead.statistics().dropped == {"timeout": 5}


async def test_a_flush_is_no_success_when_the_queue_overflowed() -> None:
    memory = MemorySpanExporter()
    memory.pause()
    processor = BatchSpanProcessor(memory, max_queue_size=10, max_export_batch_size=5)
    tracer = tracer_for(processor)
    end_spans(tracer, 10)
    flush = asyncio.create_task(processor.aforce_flush(5))
    await asyncio.sleep(0)

    end_spans(tracer, 30)
    memory.resume()

    assert await flush is False
    assert processor.statistics().dropped["queue_full"] > 0
    await processor.ashutdown(1)
