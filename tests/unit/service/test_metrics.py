"""What is measured of a run as a whole, and where it is shown."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from mapek_runtime import TracerProvider
from mapek_runtime.config import Settings
from mapek_runtime.service.metrics import MeteredLag, Metering, TraceCounter, open_metrics


def count_with(sampler: Sampler) -> int:
    """How many traces are counted of two, one of which began elsewhere, with a child each."""
    traces = TraceCounter()
    provider = TracerProvider(sampler, Resource.get_empty(), shutdown_on_exit=False)
    provider.add_span_processor(traces)
    tracer = provider.get_tracer("tests")
    elsewhere = SpanContext(1 << 100, 1 << 20, is_remote=True, trace_flags=TraceFlags(1))
    for context in (None, set_span_in_context(NonRecordingSpan(elsewhere))):
        with tracer.start_as_current_span("root", context), tracer.start_as_current_span("child"):
            pass
    return traces.count


@pytest.mark.parametrize(("sampler", "count"), [(ALWAYS_ON, 2), (ALWAYS_OFF, 0)], ids=["on", "off"])
def test_a_trace_is_counted_with_its_first_span_here_if_it_is_sampled(sampler: Sampler, count: int) -> None:
    assert count_with(sampler) == count


def test_a_delay_is_told_as_often_as_it_is_counted() -> None:
    reader = InMemoryMetricReader()
    lag: MeteredLag = Metering(MeterProvider([reader], Resource.get_empty()), None).lag_histogram()

    lag.record(0.001, every=0.2)
    lag.record(0.9, every=0.2)

    data = reader.get_metrics_data()
    assert data is not None
    (metric,) = data.resource_metrics[0].scope_metrics[0].metrics
    (point,) = metric.data.data_points
    assert isinstance(point, HistogramDataPoint)
    assert (metric.name, metric.unit, point.count) == ("mapek.loop.lag", "s", lag.count)
    assert point.max == 0.9
    assert point.sum == pytest.approx(0.001 + 0.9 + 0.7 + 0.5 + 0.3 + 0.1)


async def test_nothing_is_made_where_metrics_go_nowhere() -> None:
    async with open_metrics(Settings()) as metering:
        assert metering is None
