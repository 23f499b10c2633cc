"""The metrics of a run over OTLP: by gRPC, and to a collector that never answers."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from .collector import collector
from .grpc_collector import grpc_collector
from .running import start
from .stubborn import black_hole

METHOD = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
LIMIT = 45.0


async def a_run(folder: Path, *arguments: str, **variables: str) -> tuple[dict[str, Any], str, float]:
    """The summary of a run of 1 s, its log, and how many seconds it took to end when its time was over."""
    process = await start(
        folder, "--domains", "", "--nodes", "1", "--duration", "1", *arguments,
        MAPEK_SPOOL_ENABLED="false", OTEL_METRICS_EXPORTER="otlp", **variables,
    )  # fmt: skip
    try:
        async with asyncio.timeout(LIMIT):
            assert process.stdout is not None
            lines = [json.loads(await process.stdout.readline())]
            while lines[-1]["event"] != "started":
                lines.append(json.loads(await process.stdout.readline()))
            began = time.monotonic()
            out, err = await process.communicate()
            took = time.monotonic() - began
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1]), err.decode(), took - 1


@pytest.mark.parametrize("variable", ["OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL"])
async def test_metrics_go_by_grpc_where_the_protocol_says_so(variable: str, tmp_path: Path) -> None:
    variables = {variable: "grpc", "OTEL_TRACES_EXPORTER": "none"}
    async with grpc_collector(method=METHOD) as there:
        summary, log, _ = await a_run(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=there.url, **variables)

    metrics = {
        metric.name: metric
        for body in there.bodies
        for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    ticks = {
        point.attributes[0].value.string_value: point.as_int
        for point in metrics["mapek.ticks"].sum.data_points
    }
    assert ticks["ran"] == summary["cycles"] > 0
    assert "warning" not in log


@pytest.mark.slow
async def test_collectors_that_never_answer_share_the_time_there_is_to_end(tmp_path: Path) -> None:
    async with black_hole() as spans, black_hole() as metrics:
        summary, log, took = await a_run(
            tmp_path,
            OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=spans,
            OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=metrics,
            MAPEK_EXPORT_SHUTDOWN="2",
            MAPEK_STORE_ENABLED="false",
        )

    # One after the other they would take 4 s.
    assert 2 <= took < 3.5
    assert summary["spans"]["dropped"] == {"timeout": summary["spans"]["ended"]}
    assert "the last metrics were not sent" in log


@pytest.mark.slow
async def test_a_collector_of_metrics_that_never_answers_takes_no_span_with_it(tmp_path: Path) -> None:
    async with collector() as spans, black_hole() as metrics:
        summary, log, took = await a_run(
            tmp_path,
            OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=spans.url,
            OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=metrics,
            MAPEK_EXPORT_SHUTDOWN="2",
        )

    assert took < 3.5
    assert len(spans.names) == summary["spans"]["exported"] == summary["spans"]["ended"] > 0
    assert "the last metrics were not sent" in log
