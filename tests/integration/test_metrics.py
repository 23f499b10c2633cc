"""Metrics where they arrive: of exporters against a scripted collector, of a run over HTTP and OTLP."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader, NumberDataPoint
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_parser
from prometheus_client.parser import text_string_to_metric_families as parse_plain

from mapek_runtime import BatchSpanProcessor

from .collector import answer, collector, end_spans, exporter
from .running import address_of, start

DOCTOR = """
from mapek_runtime import Action, Finding, Observation, Outcome

class Doctor:
    cycles = 0
    ill = False

    async def monitor(self, cycle):
        self.cycles += 1
        self.ill = self.ill or self.cycles % 5 == 1
        return [Observation(name="degrees", value=40.0 if self.ill else 37.0)]

    async def analyze(self, cycle):
        return [Finding(problem="fever", target="patient", anomaly=True)] if self.ill else []

    async def plan(self, cycle):
        return [Action(name="cool", target="patient", finding=each) for each in cycle.findings]

    async def execute(self, cycle, action):
        self.ill = False
        return Outcome(action=action, success=True)
"""
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
LIMIT = 45.0


# The exporter's own metrics


def read(reader: InMemoryMetricReader) -> dict[str, list[tuple[dict[str, Any], float]]]:
    """Of each metric of spans its values with their attributes; of a histogram the counts."""
    found: dict[str, list[tuple[dict[str, Any], float]]] = {}
    data = reader.get_metrics_data()
    assert data is not None
    for scope in data.resource_metrics[0].scope_metrics:
        for metric in scope.metrics:
            for point in metric.data.data_points:
                assert isinstance(point, NumberDataPoint | HistogramDataPoint)
                value = point.value if isinstance(point, NumberDataPoint) else point.count
                found.setdefault(metric.name, []).append((dict(point.attributes or {}), value))
    return found


async def test_a_503_a_200_an_overflow_and_a_shutdown_are_told_as_the_conventions_say() -> None:
    reader = InMemoryMetricReader()
    async with collector(answer(400), answer(503), answer(200)) as told, exporter(told.url) as made:
        processor = BatchSpanProcessor(made, max_queue_size=4, meter_provider=MeterProvider([reader]))
        end_spans(processor, 3)
        assert not await processor.aforce_flush(5)
        end_spans(processor, 6)
        assert await processor.aforce_flush(5)
        await processor.ashutdown(5)
        end_spans(processor, 1)
        seen = read(reader)

    port = int(told.url.split(":")[2].split("/")[0])
    (((inflight_of, in_flight)),) = seen["otel.sdk.exporter.span.inflight"]
    name = inflight_of["otel.component.name"]
    here = {
        "otel.component.type": "otlp_http_span_exporter",
        "otel.component.name": name,
        "server.address": "127.0.0.1",
        "server.port": port,
    }
    assert re.fullmatch(r"otlp_http_span_exporter/\d+", name)
    assert (inflight_of, in_flight) == (here, 0)
    # One try that is not to be repeated; then a 503 and a 200, which are one operation.
    assert sorted(seen["otel.sdk.exporter.span.exported"], key=repr) == sorted(
        [({**here, "error.type": "400"}, 3), (here, 4)], key=repr
    )
    durations = {attributes.get("error.type"): attributes for attributes, _ in
                 seen["otel.sdk.exporter.operation.duration"]}  # fmt: skip
    assert durations["400"] == {**here, "error.type": "400", "http.response.status_code": 400}
    assert durations[None].items() >= here.items()
    assert set(durations[None]) - set(here) <= {"http.response.status_code"}
    assert [count for _, count in seen["otel.sdk.exporter.operation.duration"]] == [1, 1]

    (((processor_of, capacity)),) = seen["otel.sdk.processor.span.queue.capacity"]
    assert re.fullmatch(r"batching_span_processor/\d+", processor_of["otel.component.name"])
    assert processor_of["otel.component.type"] == "batching_span_processor"
    assert set(processor_of) == {"otel.component.name", "otel.component.type"}
    assert capacity == 4
    assert seen["otel.sdk.processor.span.queue.size"] == [(processor_of, 0)]
    assert seen["otel.sdk.processor.span.processed"] == [
        (processor_of, 3 + 4),
        ({**processor_of, "error.type": "queue_full"}, 2),
        ({**processor_of, "error.type": "already_shutdown"}, 1),
    ]


# A run


@dataclass
class Observed:
    """A run, as those saw it who looked from outside."""

    openmetrics: str
    plain: str
    squeezed: tuple[int, str]
    types: tuple[str, str]
    health: dict[str, Any]
    spans: list[Span]
    metrics: list[Any]
    lines: list[dict[str, Any]]
    errors: str
    code: int


async def observe_a_run(folder: Path) -> Observed:
    (folder / "doctor.py").write_text(DOCTOR)
    async with asyncio.timeout(LIMIT), collector() as told:
        base = told.url.removesuffix("/v1/traces")
        process = await start(
            folder, "--nodes", "2", "--plugin", "doctor:Doctor", "--duration", "4", "--listen", "127.0.0.1:0",
            OTEL_EXPORTER_OTLP_ENDPOINT=base, OTEL_METRICS_EXPORTER="otlp",
            OTEL_METRIC_EXPORT_INTERVAL="500", OTEL_BSP_SCHEDULE_DELAY="200",
            MAPEK_LOOP_GUARD_COOLDOWN="0",
        )  # fmt: skip
        lines: list[dict[str, Any]] = []
        try:
            url = await address_of(process, lines)
            async with aiohttp.ClientSession(auto_decompress=False) as client:
                await asyncio.sleep(3)
                plain_headers = {"Accept-Encoding": "identity"}
                async with client.get(f"{url}/metrics", headers=plain_headers) as reply:
                    plain, plain_type = await reply.text(), reply.headers["Content-Type"]
                async with client.get(
                    f"{url}/metrics", headers={"Accept": OPENMETRICS, **plain_headers}
                ) as reply:
                    openmetrics, open_type = await reply.text(), reply.headers["Content-Type"]
                async with client.get(
                    f"{url}/metrics", headers={"Accept": OPENMETRICS, "Accept-Encoding": "gzip"}
                ) as reply:
                    body = await reply.read()
                    assert reply.headers["Content-Encoding"] == "gzip"
                async with client.get(f"{url}/health") as reply:
                    assert reply.status == 200
                    health = await reply.json()
            out, err = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    requests = list(zip(told.heads, told.bodies, strict=True))
    return Observed(
        openmetrics=openmetrics,
        plain=plain,
        squeezed=(len(body), gzip.decompress(body).decode()),
        types=(plain_type, open_type),
        health=health,
        spans=[
            span
            for head, body in requests if head.startswith("POST /v1/traces ")
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ],
        metrics=[
            metric
            for head, body in requests if head.startswith("POST /v1/metrics ")
            for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        ],
        lines=lines + [json.loads(line) for line in out.splitlines()],
        errors=err.decode(),
        code=process.returncode or 0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Observed:
    return asyncio.run(observe_a_run(tmp_path_factory.mktemp("state")))


def parse_openmetrics(text: str) -> list[Metric]:
    return list(openmetrics_parser(text))  # type: ignore[no-untyped-call]


def samples(text: str, name: str) -> list[Any]:
    return [sample for family in parse_openmetrics(text) for sample in family.samples if sample.name == name]


def value(text: str, name: str, **labels: str) -> float:
    (sample,) = [each for each in samples(text, name) if each.labels == labels]
    return float(sample.value)


def test_a_run_shows_its_loop_under_the_names_that_dashboards_use(observed: Observed) -> None:
    text = observed.openmetrics

    assert observed.code == 0, observed.errors
    ran = value(text, "mapek_ticks_total", result="ran")
    assert ran > 20
    assert {each.labels["result"] for each in samples(text, "mapek_ticks_total")} == {
        "ran", "skipped", "coalesced"
    }  # fmt: skip
    assert value(text, "mapek_cycle_duration_seconds_count") == ran
    assert value(text, "mapek_phase_duration_seconds_count", phase="monitor") == ran
    assert value(text, "mapek_actions_total", result="success") > 0
    assert value(text, "mapek_repair_seconds_count") > 0
    assert value(text, "mapek_loop_lag_seconds_count") > 0
    buckets = samples(text, "mapek_cycle_duration_seconds_bucket")
    assert {"0.005", "0.1", "1.0", "+Inf"} <= {each.labels["le"] for each in buckets}


def test_the_queries_of_the_first_dashboards_find_their_counters(observed: Observed) -> None:
    traces = value(observed.openmetrics, "otel_traces_received_total")
    spans = value(observed.openmetrics, "otel_spans_processed_total")

    assert 20 < traces < spans
    assert value(observed.openmetrics, "mapek_ticks_total", result="ran") <= traces


def test_the_exporters_own_metrics_are_on_the_page(observed: Observed) -> None:
    (exported,) = (
        each
        for each in samples(observed.openmetrics, "otel_sdk_exporter_span_exported_total")
        if each.labels["otel_component_type"] == "otlp_http_span_exporter"
    )

    assert exported.labels["server_address"] == "127.0.0.1"
    assert exported.value > 100
    assert samples(observed.openmetrics, "otel_sdk_exporter_operation_duration_seconds_count")


@pytest.mark.parametrize(
    ("metric", "span"),
    [
        ("mapek_cycle_duration_seconds_bucket", "mape_k.cycle"),
        ("mapek_phase_duration_seconds_bucket", ""),
        ("mapek_repair_seconds_bucket", "mape_k.execute"),
        ("mapek_actions_total", "mape_k.cycle"),
    ],
)
def test_every_example_is_a_span_that_the_collector_has(observed: Observed, metric: str, span: str) -> None:
    names = {(each.trace_id.hex(), each.span_id.hex()): each.name for each in observed.spans}
    found = [each for each in samples(observed.openmetrics, metric) if each.exemplar]

    assert found
    for each in found:
        labels = each.exemplar.labels
        name = names[labels["trace_id"], labels["span_id"]]
        assert name == (span or f"mape_k.{each.labels['phase']}")
        if "le" in each.labels:
            assert each.exemplar.value <= float(each.labels["le"])


def test_a_scrape_is_no_trace(observed: Observed) -> None:
    names = {span.name for span in observed.spans}

    assert "mape_k.cycle" in names
    assert not {name for name in names if name.startswith(("GET", "POST", "HTTP"))}
    paths = [each for span in observed.spans for each in span.attributes if "/metrics" in str(each)]
    assert paths == []


def test_the_page_is_written_in_the_format_that_is_asked_for(observed: Observed) -> None:
    plain, opened = observed.types

    assert plain.startswith("text/plain")
    assert opened.startswith("application/openmetrics-text")
    assert observed.openmetrics.endswith("# EOF\n")
    assert "trace_id" not in observed.plain
    names = {family.name for family in parse_plain(observed.plain)}
    assert {"mapek_ticks", "mapek_cycle_duration_seconds", "otel_traces_received"} <= names
    size, text = observed.squeezed
    assert {family.name for family in parse_openmetrics(text)} >= names - {"target_info"}
    assert size < len(text) / 4


def test_the_same_metrics_reach_a_collector_over_otlp(observed: Observed) -> None:
    by_name = {metric.name: metric for metric in observed.metrics}
    last = {
        point.attributes[0].value.string_value: point.as_int
        for point in by_name["mapek.ticks"].sum.data_points
    }
    (summary,) = [line for line in observed.lines if line["event"] == "summary"]

    assert by_name["mapek.ticks"].unit == "{tick}"
    assert by_name["mapek.cycle.duration"].unit == "s"
    assert {"otel.sdk.exporter.span.exported", "otel.traces.received", "otel.spans.processed"} <= set(by_name)
    # The last export comes after the last cycle: nothing that was counted is missing.
    assert last["ran"] == summary["cycles"]
    (spans,) = by_name["otel.spans.processed"].sum.data_points
    assert spans.as_int == summary["spans"]["exported"]
    ids = {span.trace_id for span in observed.spans}
    (cycles,) = by_name["mapek.cycle.duration"].histogram.data_points
    assert {exemplar.trace_id for exemplar in cycles.exemplars} <= ids


def test_health_says_that_the_loop_turns(observed: Observed) -> None:
    assert observed.health["status"] == "ok"
    assert observed.health["uptime_seconds"] > 2
    assert set(observed.health["cycles"]) == {f"node-{number}" for number in (1, 2)}
    assert min(observed.health["cycles"].values()) > 5
