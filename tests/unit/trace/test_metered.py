"""The tracer's own metrics; upstream's tests, run on our classes, hold their names and values."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, NumberDataPoint
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler

from mapek_runtime import TracerProvider
from mapek_runtime.trace.metered import MeteredTracer
from mapek_runtime.trace.tracer import Tracer

STARTED = "otel.sdk.span.started"
LIVE = "otel.sdk.span.live"


@pytest.fixture
def reader() -> InMemoryMetricReader:
    return InMemoryMetricReader()


def values(reader: InMemoryMetricReader, name: str) -> dict[tuple[Any, ...], float]:
    """The values of one metric by its attributes."""
    data = reader.get_metrics_data()
    metrics = data.resource_metrics[0].scope_metrics[0].metrics if data else []
    return {
        tuple(sorted((point.attributes or {}).values(), key=str)): point.value
        for metric in metrics
        if metric.name == name
        for point in metric.data.data_points
        if isinstance(point, NumberDataPoint)
    }


def make_tracer(reader: InMemoryMetricReader, sampler: Sampler, *processors: SpanProcessor) -> Tracer:
    """A tracer of a provider whose metrics `reader` reads."""
    provider = TracerProvider(
        sampler, Resource.get_empty(), shutdown_on_exit=False, meter_provider=MeterProvider([reader])
    )
    tracer = provider.get_tracer("tests")
    for processor in processors:
        provider.add_span_processor(processor)
    assert isinstance(tracer, Tracer)
    return tracer


def test_blocks_and_their_children_are_counted_and_handed_on(
    reader: InMemoryMetricReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED", "true")
    exporter = InMemorySpanExporter()
    tracer = make_tracer(reader, ALWAYS_ON, SimpleSpanProcessor(exporter))

    with tracer.start_as_current_span("outer"), tracer.start_as_current_span("inner"):
        inside = values(reader, LIVE)

    assert inside == {("RECORD_AND_SAMPLE",): 2}
    assert values(reader, LIVE) == {("RECORD_AND_SAMPLE",): 0}
    assert values(reader, STARTED) == {("RECORD_AND_SAMPLE", "none"): 1, ("RECORD_AND_SAMPLE", "local"): 1}
    assert [span.name for span in exporter.get_finished_spans()] == ["inner", "outer"]


def test_what_is_never_sampled_is_counted_as_started_only(
    reader: InMemoryMetricReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED", "true")
    tracer = make_tracer(reader, ALWAYS_OFF)

    with tracer.start_as_current_span("outer"), tracer.start_as_current_span("inner"):
        pass

    assert values(reader, STARTED) == {("DROP", "none"): 1, ("DROP", "local"): 1}
    assert values(reader, LIVE) == {}


def test_a_tracer_that_is_not_asked_to_does_not_count(reader: InMemoryMetricReader) -> None:
    tracer = make_tracer(reader, ALWAYS_ON)
    tracer.start_span("work").end()

    assert not isinstance(tracer, MeteredTracer)
    assert values(reader, STARTED) == {}
