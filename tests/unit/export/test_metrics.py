"""The processor's own metrics: what a meter reads is what the account says."""

from __future__ import annotations

import gc
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, NumberDataPoint
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from mapek_runtime import BatchSpanProcessor, TracerProvider

PROCESSED = "otel.sdk.processor.span.processed"
SIZE = "otel.sdk.processor.span.queue.size"
CAPACITY = "otel.sdk.processor.span.queue.capacity"

Points = dict[str, dict[Any, float]]


def points(reader: InMemoryMetricReader) -> Points:
    """Each metric's values by `error.type`."""
    data = reader.get_metrics_data()
    if data is None:
        return {}
    (resource,) = data.resource_metrics
    (scope,) = resource.scope_metrics
    return {
        metric.name: {
            (point.attributes or {}).get("error.type"): point.value
            for point in metric.data.data_points
            if isinstance(point, NumberDataPoint)
        }
        for metric in scope.metrics
        if metric.name.startswith("otel.sdk.processor.")
    }


@pytest.fixture
def reader() -> InMemoryMetricReader:
    return InMemoryMetricReader()


async def use(reader: InMemoryMetricReader, spans: int, late: int = 0) -> tuple[Points, Points]:
    """What is read before a flush of `spans`, and after a shutdown that `late` spans follow."""
    meters = MeterProvider([reader])
    processor = BatchSpanProcessor(InMemorySpanExporter(), max_queue_size=4, meter_provider=meters)
    provider = TracerProvider(resource=Resource.get_empty(), shutdown_on_exit=False)
    provider.add_span_processor(processor)
    tracer = provider.get_tracer("tests")
    for _ in range(spans):
        tracer.start_span("work").end()
    before = points(reader)
    await processor.ashutdown()
    for _ in range(late):
        tracer.start_span("late").end()
    return before, points(reader)


async def test_spans_are_counted_when_they_are_passed_on(
    reader: InMemoryMetricReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED", "true")

    before, after = await use(reader, spans=3)

    assert before == {SIZE: {None: 3}, CAPACITY: {None: 4}}
    assert after == {PROCESSED: {None: 3}, SIZE: {None: 0}, CAPACITY: {None: 4}}


async def test_what_was_lost_before_an_exporter_saw_it_is_counted_with_its_reason(
    reader: InMemoryMetricReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED", "true")

    _, after = await use(reader, spans=6, late=1)

    assert after[PROCESSED] == {None: 4, "queue_full": 2, "already_shutdown": 1}


async def test_they_are_off_unless_switched_on(reader: InMemoryMetricReader) -> None:
    assert await use(reader, spans=3) == ({}, {})


async def test_a_meter_keeps_no_processor_alive(
    reader: InMemoryMetricReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED", "true")
    await use(reader, spans=3)
    gc.collect()

    assert points(reader) == {}
