"""A synchronous exporter of the SDK in its thread: deadlines hold, whatever the exporter does."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from mapek_runtime import BatchSpanProcessor, TracerProvider


class Stuck(SpanExporter):
    """Does not come back until it is shut down."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.calls = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.calls += 1
        self.stop.wait(20)
        return SpanExportResult.FAILURE

    def shutdown(self) -> None:
        self.stop.set()


class Listing(SpanExporter):
    """Remembers what it was given and in which thread."""

    def __init__(self) -> None:
        self.given: list[object] = []
        self.threads: set[str] = set()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.given.append(spans)
        self.threads.add(threading.current_thread().name)
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        self.threads.add(threading.current_thread().name)


def end_spans(processor: BatchSpanProcessor, count: int) -> None:
    """Let so many spans end before `processor`."""
    provider = TracerProvider(resource=Resource.get_empty(), shutdown_on_exit=False)
    provider.add_span_processor(processor)
    for _ in range(count):
        provider.get_tracer("tests").start_span("work").end()


def test_a_shutdown_without_a_loop_ends_an_export_that_hangs() -> None:
    exporter = Stuck()
    processor = BatchSpanProcessor(exporter, max_export_batch_size=1)
    end_spans(processor, 3)

    processor.shutdown(timeout_millis=50)

    statistics = processor.statistics()
    assert exporter.stop.is_set()
    assert exporter.calls == 1
    assert statistics.dropped == {"timeout": 3}
    assert statistics.balanced


async def test_a_shutdown_on_the_loop_ends_an_export_that_hangs() -> None:
    exporter = Stuck()
    processor = BatchSpanProcessor(exporter, max_export_batch_size=1)
    end_spans(processor, 3)

    assert not await processor.ashutdown(0.05)

    assert exporter.stop.is_set()
    assert exporter.calls == 1


def test_without_a_loop_the_exporter_is_called_in_its_own_thread_with_a_list() -> None:
    exporter = Listing()
    processor = BatchSpanProcessor(exporter)
    end_spans(processor, 2)

    assert processor.force_flush()
    processor.shutdown()

    (batch,) = exporter.given
    assert isinstance(batch, list)
    assert exporter.threads == {"mapek-Listing"}


def test_where_no_thread_can_be_started_the_last_drain_calls_the_exporter_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    exporter = Listing()
    processor = BatchSpanProcessor(exporter)
    end_spans(processor, 2)
    monkeypatch.setattr(threading.Thread, "start", refuse)

    processor.shutdown()

    assert exporter.threads == {threading.current_thread().name}
    assert processor.statistics().exported == 2


def test_the_exporter_can_be_asked_for() -> None:
    exporter = Listing()

    assert BatchSpanProcessor(exporter).span_exporter is exporter
