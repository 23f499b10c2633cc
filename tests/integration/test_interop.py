"""Receivers that nobody here wrote get every cycle as one trace."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

oteltap = pytest.importorskip("oteltap", reason="oteltap is not installed (pip install oteltap)")
pytest.importorskip("sonar", reason="sonar-tui is not installed (pip install sonar-tui)")

PHASES = ["mape_k.monitor", "mape_k.analyze", "mape_k.plan", "mape_k.execute", "mape_k.knowledge"]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


async def run_mapek(endpoint: str, *options: str) -> dict[str, Any]:
    """The main job, sending to `endpoint`; gives its summary."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "MAPEK_"))}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "mapek_runtime.service.cli", "run", "--json", *options,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        env={**environment, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_BSP_SCHEDULE_DELAY": "200"},
    )  # fmt: skip
    output, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0
    summary: dict[str, Any] = json.loads(output.splitlines()[-1])
    return summary


@contextlib.asynccontextmanager
async def sonar() -> AsyncIterator[httpx.AsyncClient]:
    """sonar-tui's receiver, in a process of its own."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "uvicorn", "sonar.ingestion.server:app",
        "--host", "127.0.0.1", "--port", str(port), "--log-level", "error",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            for _ in range(100):
                with contextlib.suppress(httpx.TransportError):
                    await client.get("/traces")
                    break
                await asyncio.sleep(0.1)
            else:
                pytest.fail("sonar-tui's receiver did not start within 10 s")
            yield client
    finally:
        process.terminate()
        await process.wait()


def walk(nodes: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for node in nodes:
        yield node
        yield from walk(node["children"])


@pytest.mark.slow
async def test_sonar_gets_every_cycle_as_one_trace_with_five_phases() -> None:
    async with sonar() as client:
        summary = await run_mapek(str(client.base_url), "--nodes", "3", "--duration", "3")
        listed = (await client.get("/traces")).json()
        cycles = [t for t in listed if t["root_span_name"] == "mape_k.cycle"]
        trees = [(await client.get(f"/traces/{t['trace_id']}")).json()["tree"] for t in cycles[:40]]

    assert summary["spans"]["exported"] == summary["spans"]["ended"]
    # The receiver keeps the newest five hundred traces.
    assert len(cycles) == summary["cycles"] or len(listed) == 500
    for tree in trees:
        (root,) = tree
        assert [child["span"]["name"] for child in root["children"]] == PHASES
        below = [node["span"]["name"] for node in walk(root["children"][0]["children"])]
        assert "mesh.node_discovery" in below
        assert root["span"]["service_name"] == "x0tta6bl4"


@pytest.mark.slow
async def test_oteltap_sees_each_cycle_linked_to_the_one_before() -> None:
    port = free_port()
    settings = oteltap.OtelTapHttpProtobufReceiverSettings(http_port=port, listen_on_all_interfaces=False)
    spans: list[Any] = []
    async with oteltap.OtelTapHttpProtobufReceiver(settings) as receiver:

        async def collect() -> None:
            async for span in receiver.stream_traces():
                spans.append(span)  # noqa: PERF401 - the stream has no end

        collector = asyncio.create_task(collect())
        await asyncio.sleep(0.1)
        summary = await run_mapek(f"http://127.0.0.1:{port}", "--nodes", "2", "--duration", "2")
        await asyncio.sleep(0.5)
        collector.cancel()
        await asyncio.wait((collector,))

    cycles = [span for span in spans if span.name == "mape_k.cycle"]
    assert len(cycles) == summary["cycles"]
    assert max(Counter(span.trace_id for span in cycles).values()) == 1
    known = {(span.trace_id, span.span_id) for span in cycles}
    linked = [span for span in cycles if any((ln.trace_id, ln.span_id) in known for ln in span.links)]
    assert len(linked) == len(cycles) - 2, "all but the first cycle of each of the two nodes"
