"""`BatchSpanProcessor`: what it sends, when, and how it is counted."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from opentelemetry import trace as trace_api
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor as StockProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from mapek_runtime.errors import TransportError, TransportRejected
from mapek_runtime.export.batch import BatchSpanProcessor
from mapek_runtime.export.encode import encode_spans
from mapek_runtime.export.memory import MemorySpanExporter
from mapek_runtime.trace import TracerProvider
from tests.unit.export.wire import RESOURCE, Stuck, Wire, end_spans, tracer_for, turns


def test_it_is_a_span_processor_of_the_sdk() -> None:
    assert isinstance(BatchSpanProcessor(MemorySpanExporter()), SpanProcessor)


@pytest.mark.parametrize("stock", [False, True], ids=["our provider", "the provider of the SDK"])
async def test_a_full_batch_is_sent_without_waiting_for_the_delay(stock: bool) -> None:
    memory = MemorySpanExporter()
    processor = BatchSpanProcessor(memory, max_export_batch_size=10, schedule_delay_millis=3_600_000)
    tracer = tracer_for(processor, stock=stock)

    end_spans(tracer, 9)
    await turns()
    assert memory.finished_spans == ()

    end_spans(tracer, 1)
    await turns()
    assert len(memory.finished_spans) == 10
    await processor.ashutdown(1)


async def test_what_is_less_than_a_batch_is_sent_after_the_delay() -> None:
    memory = MemorySpanExporter()
    processor = BatchSpanProcessor(memory, schedule_delay_millis=1)

    end_spans(tracer_for(processor), 3)
    async with asyncio.timeout(10):
        while not memory.finished_spans:  # noqa: ASYNC110 - the exporter is asked, as a user would
            await asyncio.sleep(0.001)

    assert len(memory.finished_spans) == 3
    await processor.ashutdown(1)


async def test_only_sampled_spans_are_exported() -> None:
    memory = MemorySpanExporter()
    processor = BatchSpanProcessor(memory)
    for cls in (TracerProvider, sdk.TracerProvider):
        provider = cls(ALWAYS_OFF, RESOURCE, shutdown_on_exit=False)
        provider.add_span_processor(processor)
        end_spans(provider.get_tracer("test"), 2)

    await processor.ashutdown(1)

    assert memory.finished_spans == ()
    assert processor.statistics().ended == 0


async def test_spans_are_encoded_once_and_the_bytes_shared() -> None:
    first, second = Wire(), Wire()
    processor = BatchSpanProcessor(first, second)

    spans = end_spans(tracer_for(processor), 5)
    await processor.ashutdown(1)

    assert first.requests == [(encode_spans(spans), 5)]
    assert first.requests[0][0] is second.requests[0][0]
    assert first.closed
    assert set(processor.statistics().sinks) == {"Wire", "Wire/2"}


async def test_no_more_requests_are_in_flight_than_allowed() -> None:
    wire = Wire()
    processor = BatchSpanProcessor(wire, max_export_batch_size=10, max_concurrency=3)

    end_spans(tracer_for(processor), 500)
    await processor.ashutdown(5)

    assert wire.most_at_once == 3
    assert sum(count for _, count in wire.requests) == 500
    assert max(count for _, count in wire.requests) == 10


async def test_what_a_collector_does_not_take_is_counted_by_reason() -> None:
    wire = Wire(
        [TransportError("no", error_type="400"), TransportRejected("some", rejected_spans=3), OSError("x")]
    )
    processor = BatchSpanProcessor(wire, max_export_batch_size=10, max_concurrency=1)
    tracer = tracer_for(processor)

    end_spans(tracer, 40)
    assert await processor.aforce_flush(5) is False

    statistics = processor.statistics()
    assert statistics.exported == 17
    assert statistics.dropped == {"400": 10, "rejected": 3, "OSError": 10}
    assert statistics.balanced
    await processor.ashutdown(1)


async def test_an_export_that_takes_too_long_is_given_up() -> None:
    stuck = Stuck()
    processor = BatchSpanProcessor(stuck, export_timeout_millis=10)

    end_spans(tracer_for(processor), 3)
    await processor.aforce_flush(5)

    assert stuck.cancelled == 1
    assert processor.statistics().dropped == {"timeout": 3}
    await processor.ashutdown(1)


async def test_a_flush_that_runs_out_of_time_keeps_the_spans() -> None:
    memory = MemorySpanExporter()
    memory.pause()
    processor = BatchSpanProcessor(memory)
    end_spans(tracer_for(processor), 3)

    assert await processor.aforce_flush(0.01) is False
    assert processor.statistics().in_flight == 3

    memory.resume()
    assert await processor.aforce_flush(5) is True
    assert len(memory.finished_spans) == 3
    await processor.ashutdown(1)


async def test_the_batch_task_lives_in_an_empty_context_without_instrumentation() -> None:
    seen: list[Any] = []

    class Curious(Wire):
        async def send(self, payload: bytes, count: int) -> None:
            seen.append(trace_api.get_current_span().get_span_context().is_valid)
            seen.append(is_instrumentation_enabled())

    processor = BatchSpanProcessor(Curious())
    tracer = tracer_for(processor)
    with tracer.start_as_current_span("outer"):
        end_spans(tracer, 1)
        await processor.aforce_flush(1)

    assert seen == [False, False]
    await processor.ashutdown(1)


async def test_a_wrong_variable_warns_and_counts_as_unset(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "many")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "7")

    memory = MemorySpanExporter()
    memory.pause()
    processor = BatchSpanProcessor(memory)
    end_spans(tracer_for(processor), 70_000)

    assert "OTEL_BSP_MAX_QUEUE_SIZE is 'many'" in caplog.text
    assert processor.statistics().queued == 65_536
    assert processor.statistics().dropped == {"queue_full": 70_000 - 65_536}
    await processor.ashutdown(0)
    lines = [record.getMessage() for record in caplog.records if "is full" in record.getMessage()]
    assert lines == ["the queue of 65536 spans is full; the oldest go (count 4464)"]


@pytest.mark.parametrize(
    "settings",
    [
        {"max_queue_size": 0},
        {"schedule_delay_millis": -1},
        {"max_export_batch_size": 0},
        {"export_timeout_millis": 0},
        {"max_concurrency": 0},
        {"max_queue_size": 10, "max_export_batch_size": 11},
    ],
    ids=str,
)
def test_wrong_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(reversed(settings))):
        BatchSpanProcessor(MemorySpanExporter(), **settings)


def test_what_is_no_exporter_is_refused() -> None:
    with pytest.raises(TypeError, match="is no exporter"):
        BatchSpanProcessor(object())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="at least one"):
        BatchSpanProcessor()


def test_our_exporters_fail_loudly_behind_the_processor_of_the_sdk(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The SDK's logger leaves out a line that resembles the one before, from any test.
    monkeypatch.setattr(logging.getLogger("opentelemetry.sdk._shared_internal"), "filters", [])
    with caplog.at_level(logging.ERROR):
        for exporter in (MemorySpanExporter(),):
            processor = StockProcessor(exporter)  # type: ignore[arg-type]
            tracer = tracer_for(processor, stock=True)
            end_spans(tracer, 1)
            processor.force_flush()

    assert "mapek_runtime.BatchSpanProcessor" in caplog.text
