"""The metrics of processor and exporters: what a meter reads is what the account says."""

from __future__ import annotations

import gc
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    HistogramDataPoint,
    InMemoryMetricReader,
    Metric,
    NumberDataPoint,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import SpanExporter

from mapek_runtime import BatchSpanProcessor, TracerProvider
from mapek_runtime.errors import TransportError, TransportRejected
from mapek_runtime.export.component import describe_component
from mapek_runtime.export.metrics import ExporterMeter

from .wire import Stuck, Wire, end_spans, tracer_for, turns

PROCESSED = "otel.sdk.processor.span.processed"
SIZE = "otel.sdk.processor.span.queue.size"
CAPACITY = "otel.sdk.processor.span.queue.capacity"
IN_FLIGHT = "otel.sdk.exporter.span.inflight"
EXPORTED = "otel.sdk.exporter.span.exported"
DURATION = "otel.sdk.exporter.operation.duration"
SWITCH = "OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED"

Points = dict[str, dict[Any, float]]


def metrics(reader: InMemoryMetricReader) -> dict[str, Metric]:
    """Every `otel.sdk.*` metric of spans by its name."""
    data = reader.get_metrics_data()
    return {
        metric.name: metric
        for resource in (data.resource_metrics if data is not None else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name.startswith(("otel.sdk.processor.span.", "otel.sdk.exporter."))
    }


def points(reader: InMemoryMetricReader) -> Points:
    """Each metric's values by `error.type`; of a histogram the counts."""
    found: Points = {}
    for name, metric in metrics(reader).items():
        values = found.setdefault(name, {})
        for point in metric.data.data_points:
            assert isinstance(point, NumberDataPoint | HistogramDataPoint)
            value = point.value if isinstance(point, NumberDataPoint) else point.count
            error = (point.attributes or {}).get("error.type")
            values[error] = values.get(error, 0) + value
    return found


def components(reader: InMemoryMetricReader, metric: str) -> set[Any]:
    """The components that a metric has values of."""
    return {
        (point.attributes or {})["otel.component.name"] for point in metrics(reader)[metric].data.data_points
    }


@pytest.fixture
def reader() -> InMemoryMetricReader:
    return InMemoryMetricReader()


async def use(reader: InMemoryMetricReader, spans: int, late: int = 0) -> tuple[Points, Points]:
    """What is read before a flush of `spans`, and after a shutdown that `late` spans follow."""
    meters = MeterProvider([reader])
    processor = BatchSpanProcessor(Wire(), max_queue_size=4, meter_provider=meters)
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


async def test_spans_are_counted_when_they_are_passed_on(reader: InMemoryMetricReader) -> None:
    before, after = await use(reader, spans=3)

    assert before == {SIZE: {None: 3}, CAPACITY: {None: 4}, IN_FLIGHT: {None: 0}}
    assert after == {
        PROCESSED: {None: 3},
        SIZE: {None: 0},
        CAPACITY: {None: 4},
        IN_FLIGHT: {None: 0},
        EXPORTED: {None: 3},
        DURATION: {None: 1},
    }


async def test_what_was_lost_before_an_exporter_saw_it_is_counted_with_its_reason(
    reader: InMemoryMetricReader,
) -> None:
    _, after = await use(reader, spans=6, late=1)

    assert after[PROCESSED] == {None: 4, "queue_full": 2, "already_shutdown": 1}
    assert after[EXPORTED] == {None: 4}


async def test_a_span_is_processed_as_soon_as_an_exporter_has_it(reader: InMemoryMetricReader) -> None:
    processor = BatchSpanProcessor(Stuck(), meter_provider=MeterProvider([reader]))
    end_spans(tracer_for(processor), 3)
    processor.force_flush()
    await turns()

    during = points(reader)
    await processor.ashutdown(0)

    assert during[PROCESSED] == {None: 3}
    assert during[IN_FLIGHT] == {None: 3}
    assert EXPORTED not in during
    assert points(reader)[PROCESSED] == {None: 3}


async def test_each_exporter_has_its_own_outcomes(reader: InMemoryMetricReader) -> None:
    unwilling = Wire([TransportRejected("two are wrong", rejected_spans=2)])
    broken = Wire([TransportError("gone", error_type="503", status_code=503)])
    processor = BatchSpanProcessor(Wire(), unwilling, broken, meter_provider=MeterProvider([reader]))
    end_spans(tracer_for(processor), 5)
    await processor.ashutdown()

    after = points(reader)

    assert after[PROCESSED] == {None: 5}
    assert after[EXPORTED] == {None: 5 + 3, "rejected": 2, "503": 5}
    assert after[DURATION] == {None: 1, "rejected": 1, "503": 1}
    assert len(components(reader, EXPORTED)) == 3


async def test_two_processors_of_one_provider_are_both_observed(reader: InMemoryMetricReader) -> None:
    meters = MeterProvider([reader])
    first = BatchSpanProcessor(Wire(), meter_provider=meters)
    second = BatchSpanProcessor(Wire(), meter_provider=meters)
    end_spans(tracer_for(first), 1)
    end_spans(tracer_for(second), 2)
    await first.ashutdown()
    await second.ashutdown()

    assert points(reader)[PROCESSED] == {None: 3}
    assert len(components(reader, PROCESSED)) == 2


@pytest.mark.parametrize(
    ("name", "unit", "monotonic"),
    [
        (PROCESSED, "{span}", True),
        (SIZE, "{span}", False),
        (CAPACITY, "{span}", False),
        (IN_FLIGHT, "{span}", False),
        (EXPORTED, "{span}", True),
        (DURATION, "s", None),
    ],
)
async def test_names_units_and_kinds_are_those_of_the_conventions(
    name: str, unit: str, monotonic: bool | None, reader: InMemoryMetricReader
) -> None:
    await use(reader, spans=1)

    metric = metrics(reader)[name]

    assert metric.unit == unit
    assert (metric.data.is_monotonic if isinstance(metric.data, Sum) else None) is monotonic


async def test_they_are_off_where_the_environment_says_so(
    reader: InMemoryMetricReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SWITCH, "false")

    assert await use(reader, spans=3) == ({}, {})


async def test_a_meter_keeps_no_processor_alive(reader: InMemoryMetricReader) -> None:
    await use(reader, spans=3)
    await turns()
    gc.collect()

    assert set(points(reader)) <= {DURATION}


class Elsewhere(Wire):
    component_type = "com.example.Exporter"

    def __init__(self, endpoint: str) -> None:
        super().__init__()
        self.endpoint = endpoint


class Plain(SpanExporter):
    def export(self, spans: Any) -> Any: ...


@pytest.mark.parametrize(
    ("endpoint", "address", "port"),
    [
        ("http://collector:4318/v1/traces", "collector", 4318),
        ("https://user:secret@collector/v1/traces?key=secret", "collector", 443),
        ("http://collector", "collector", 80),
        ("http://[::1]:4318", "::1", 4318),
        ("collector:4317", "collector", 4317),
        ("unix:/run/collector.sock", "/run/collector.sock", None),
        ("unix:///run/collector.sock", "/run/collector.sock", None),
        ("http://[nonsense", None, None),
        ("", None, None),
    ],
)
def test_where_an_exporter_sends_is_told_without_its_secrets(
    endpoint: str, address: str | None, port: int | None
) -> None:
    attributes = describe_component(Elsewhere(endpoint)).attributes

    assert attributes.get("server.address") == address
    assert attributes.get("server.port") == port
    assert "secret" not in repr(attributes)


def test_exporters_of_one_type_are_numbered_and_one_without_a_type_has_the_name_of_its_class() -> None:
    first, second = (describe_component(Elsewhere("")).attributes for _ in range(2))
    plain = describe_component(Plain()).attributes

    number = int(str(first["otel.component.name"]).removeprefix("com.example.Exporter/"))
    assert second["otel.component.name"] == f"com.example.Exporter/{number + 1}"
    assert str(plain["otel.component.type"]).endswith(".Plain")


class OverGrpc(Wire):
    component_type = "otlp_grpc_span_exporter"
    endpoint = "collector:4317"


@pytest.mark.parametrize(
    ("exporter", "error", "code", "expected"),
    [
        (OverGrpc(), None, None, {"rpc.response.status_code": "OK"}),
        (OverGrpc(), "UNAVAILABLE", 14, {"rpc.response.status_code": "UNAVAILABLE"}),
        (OverGrpc(), "99", 99, {"rpc.response.status_code": "99"}),
        (OverGrpc(), "timeout", None, {}),
        (OverGrpc(), "rejected", None, {"rpc.response.status_code": "OK"}),
        (Wire(), "503", 503, {"http.response.status_code": 503}),
        (Wire(), None, 200, {"http.response.status_code": 200}),
        (Wire(), "ConnectionRefusedError", None, {}),
    ],
    ids=["ok", "unavailable", "unknown", "no answer", "partly", "503", "200", "refused"],
)
def test_the_duration_of_an_export_has_the_last_status(
    exporter: Any, error: str | None, code: int | None, expected: dict[str, Any], reader: InMemoryMetricReader
) -> None:
    meter = ExporterMeter(exporter, MeterProvider([reader]))
    meter.finished(0.25, error_type=error, status_code=code)

    (point,) = metrics(reader)[DURATION].data.data_points

    assert isinstance(point, HistogramDataPoint)
    assert point.sum == 0.25
    attributes = dict(point.attributes or {})
    assert {key: value for key, value in attributes.items() if key.endswith("status_code")} == expected
    assert attributes.get("error.type") == error


async def test_an_exporter_of_the_sdk_that_meters_itself_is_not_counted_again(
    reader: InMemoryMetricReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SWITCH, "true")
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    meters = MeterProvider([reader])
    exporter = OTLPSpanExporter("http://127.0.0.1:9/v1/traces", timeout=0.01, meter_provider=meters)
    meter = ExporterMeter(exporter, meters)
    meter.finished(1.0)
    exporter.shutdown()  # type: ignore[no-untyped-call]

    assert not meter.counts
    assert DURATION not in metrics(reader)
