"""A real Prometheus scrapes a run: the queries of dashboards find something, and exemplars lead to traces."""

from __future__ import annotations

import asyncio
import re
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.parser import text_string_to_metric_families as parse

from .collector import Collector, collector
from .running import address_of, environment
from .test_metrics import DOCTOR

PROGRAM = shutil.which("prometheus")
LIMIT = 60.0
CONFIGURATION = """
global:
  scrape_interval: 200ms
  scrape_timeout: 200ms
scrape_configs:
  - job_name: mapek
    static_configs:
      - targets: ["{target}"]
"""
OF_THE_SEED = ("rate(otel_traces_received_total[5m])", "rate(otel_spans_processed_total[5m])")
OF_A_DASHBOARD = (
    'rate(mapek_ticks_total{result="ran"}[5m])',
    "histogram_quantile(0.95, sum by (le) (rate(mapek_cycle_duration_seconds_bucket[5m])))",
    'histogram_quantile(0.95, sum by (le) (rate(mapek_phase_duration_seconds_bucket{phase="plan"}[5m])))',
    'increase(mapek_actions_total{result="success"}[5m])',
    "histogram_quantile(0.5, sum by (le) (rate(mapek_repair_seconds_bucket[5m])))",
    "rate(otel_sdk_exporter_span_exported_total[5m])",
    "otel_sdk_processor_span_queue_size / otel_sdk_processor_span_queue_capacity",
)

pytestmark = pytest.mark.skipif(
    PROGRAM is None, reason="there is no program 'prometheus' here (Debian: apt-get install prometheus)"
)


@asynccontextmanager
async def a_run(folder: Path, there: Collector) -> AsyncIterator[str]:
    """`mapek run` with a plugin that acts, and the address that it serves."""
    (folder / "doctor.py").write_text(DOCTOR)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "mapek_runtime.service.cli", "run", "--json", "--nodes", "2",
        "--plugin", "doctor:Doctor", "--listen", "127.0.0.1:0",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, cwd=folder,
        env=environment(
            folder, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=there.url, OTEL_BSP_SCHEDULE_DELAY="200",
            MAPEK_LOOP_GUARD_COOLDOWN="0", MAPEK_LOOP_GUARD_ACTIONS_PER_MINUTE="600",
        ),
    )  # fmt: skip
    try:
        yield await address_of(process, [])
        process.terminate()
        await process.communicate()
        assert process.returncode == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


@dataclass
class Prometheus:
    """A server, and what it answers."""

    url: str
    client: aiohttp.ClientSession

    async def until_ready(self) -> None:
        while True:
            async with self.client.get(f"{self.url}/-/ready") as reply:
                if reply.status == 200:
                    return
            await asyncio.sleep(0.05)

    async def ask(self, path: str, **parameters: str) -> Any:
        async with self.client.get(f"{self.url}/api/v1/{path}", params=parameters) as reply:
            answer = await reply.json()
        assert answer["status"] == "success", (path, parameters, answer)
        return answer["data"]

    async def values(self, query: str) -> list[float]:
        """The values that the query gives now, in no order."""
        return [float(each["value"][1]) for each in (await self.ask("query", query=query))["result"]]


@asynccontextmanager
async def prometheus(folder: Path, target: str) -> AsyncIterator[Prometheus]:
    configuration = folder / "prometheus.yml"
    configuration.write_text(CONFIGURATION.format(target=target))
    process = await asyncio.create_subprocess_exec(
        str(PROGRAM), f"--config.file={configuration}", f"--storage.tsdb.path={folder / 'tsdb'}",
        "--web.listen-address=127.0.0.1:0", "--enable-feature=exemplar-storage",
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    log: list[str] = []
    reading: asyncio.Task[None] | None = None
    try:
        async for line in process.stderr:
            log.append(line.decode())
            found = re.search(r'"?Listening on"? address="?(127\.0\.0\.1:[1-9]\d*)', log[-1])
            if found:
                break
        else:
            raise AssertionError("prometheus has ended: " + "".join(log[-5:]))
        reading = asyncio.create_task(_read(process.stderr, log))
        async with aiohttp.ClientSession() as client:
            server = Prometheus(f"http://{found[1]}", client)
            await server.until_ready()
            yield server
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
        if reading is not None:
            await reading


async def _read(stream: asyncio.StreamReader, log: list[str]) -> None:
    log.extend([line.decode() async for line in stream])


async def until_there(server: Prometheus, query: str) -> list[float]:
    """The query's values, when there are some that are more than 0."""
    while True:
        values = [value for value in await server.values(query) if value > 0]
        if values:
            return values
        await asyncio.sleep(0.1)


@pytest.mark.slow
async def test_a_prometheus_finds_every_metric_and_the_traces_behind_them(tmp_path: Path) -> None:
    async with (
        asyncio.timeout(LIMIT),
        collector() as there,
        a_run(tmp_path, there) as url,
        prometheus(tmp_path, url.removeprefix("http://")) as server,
    ):
        waiting = (*OF_THE_SEED, "mapek_repair_seconds_count", 'mapek_actions_total{result="success"}')
        found = {query: await until_there(server, query) for query in waiting}
        found |= {query: await server.values(query) for query in OF_A_DASHBOARD}
        async with server.client.get(f"{url}/metrics") as reply:
            page = list(parse(await reply.text()))
        names = {sample.name for family in page for sample in family.samples}
        found |= {name: await server.values(name) for name in sorted(names)}
        examples = {
            name: await server.ask("query_exemplars", query=name, start="0", end="9999999999")
            for name in ("mapek_cycle_duration_seconds_bucket", "mapek_phase_duration_seconds_bucket",
                         "mapek_actions_total")
        }  # fmt: skip
        (target,) = (await server.ask("targets"))["activeTargets"]

    assert (target["health"], target["lastError"]) == ("up", "")
    assert [query for query, values in found.items() if not values] == []
    assert {
        "mapek_ticks_total", "mapek_actions_total", "mapek_cycle_duration_seconds_bucket",
        "mapek_phase_duration_seconds_bucket", "mapek_repair_seconds_bucket", "mapek_loop_lag_seconds_bucket",
    } <= names  # fmt: skip
    sent = {
        span.trace_id.hex()
        for body in there.bodies
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    }
    for name, series in examples.items():
        ids = {each["labels"]["trace_id"] for one in series for each in one["exemplars"]}
        assert ids, name
        assert ids <= sent
