"""The HTTP server of the service: its address, and what does not hold it up."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from opentelemetry.sdk.metrics import MeterProvider

from mapek_runtime.errors import ConfigError
from mapek_runtime.web import PrometheusReader, WebServer

from .running import address_of, start

pytestmark = pytest.mark.slow

LIMIT = 45.0


async def test_a_port_that_is_taken_is_one_clear_line_and_exit_2(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = await start(tmp_path, "--listen", f"127.0.0.1:{port}", "--duration", "5")
        async with asyncio.timeout(LIMIT):
            _, err = await process.communicate()

    assert process.returncode == 2, err
    (line,) = [line for line in err.decode().splitlines() if line.startswith("mapek: ")]
    assert f"web.listen is '127.0.0.1:{port}', which cannot be listened on" in line
    assert "in use" in line


async def test_without_a_page_no_port_is_opened_and_no_web_server_loaded(tmp_path: Path) -> None:
    process = await start(
        tmp_path, "--no-web", "--nodes", "1", "--duration", "1", MAPEK_WEB_LISTEN="127.0.0.1:1"
    )
    async with asyncio.timeout(LIMIT):
        out, err = await process.communicate()

    assert process.returncode == 0, err
    assert "listening" not in {json.loads(line)["event"] for line in out.splitlines()}


async def test_the_exporter_prometheus_has_the_address_of_the_specification(tmp_path: Path) -> None:
    process = await start(
        tmp_path, "--nodes", "1", "--duration", "30",
        OTEL_METRICS_EXPORTER="prometheus", OTEL_EXPORTER_PROMETHEUS_HOST="127.0.0.1",
        OTEL_EXPORTER_PROMETHEUS_PORT="0",
    )  # fmt: skip
    async with asyncio.timeout(LIMIT):
        url = await address_of(process, [])
        text = ""
        async with aiohttp.ClientSession() as client:
            # It is served before the loops have started.
            while "mapek_ticks" not in text:
                async with client.get(f"{url}/metrics") as reply:
                    text = await reply.text()
        process.terminate()
        await process.communicate()

    assert process.returncode == 0
    assert "# TYPE mapek_ticks_total counter" in text


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "[::1]:0", "localhost:0"])
async def test_an_address_of_any_family_is_served(listen: str) -> None:
    reader = PrometheusReader()
    MeterProvider([reader])
    try:
        async with (
            WebServer(listen, metrics=reader.render, health=lambda: {"status": "ok"}) as server,
            aiohttp.ClientSession() as client,
            client.get(f"{server.address}/health") as reply,
        ):
            assert await reply.json() == {"status": "ok"}
    except ConfigError as error:
        pytest.skip(f"this machine has no such address: {error}")


DEAF = """
import asyncio

class Deaf:
    async def monitor(self, cycle):
        while cycle.node_id == "node-2":
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                pass
        return []
"""


async def test_a_loop_that_has_stalled_is_a_503_that_says_which(tmp_path: Path) -> None:
    (tmp_path / "deaf.py").write_text(DEAF)
    short = {f"MAPEK_LOOP_{phase}_LIMIT": "0.1" for phase in ("MONITOR", "ANALYZE", "PLAN", "EXECUTE")}
    process = await start(
        tmp_path, "--nodes", "2", "--domains", "", "--plugin", "deaf:Deaf", "--listen", "127.0.0.1:0",
        MAPEK_LOOP_KNOWLEDGE_LIMIT="0.1", **short,
    )  # fmt: skip
    try:
        async with asyncio.timeout(LIMIT), aiohttp.ClientSession() as client:
            url = await address_of(process, [])
            seen: list[tuple[int, dict[str, Any]]] = []
            while not seen or seen[-1][0] == 200:
                async with client.get(f"{url}/health") as reply:
                    seen.append((reply.status, await reply.json()))
                await asyncio.sleep(0.1)
    finally:
        # It hears no other signal: its plugin does not let go.
        process.kill()
        await process.communicate()

    assert seen[0][1]["status"] == "ok"
    status, told = seen[-1]
    assert (status, told["status"]) == (503, "failing")
    ((node, why),) = told["faults"].items()
    assert node == "node-2"
    assert re.fullmatch(r"no cycle has ended for \d s; loop.interval and the limits of .* allow 1.6 s", why)
    assert told["cycles"]["node-1"] > 5


@pytest.mark.parametrize(("status", "code"), [("ok", 200), ("stopping", 200), ("failing", 503)])
async def test_only_a_process_that_fails_is_not_well(status: str, code: int) -> None:
    async with (
        WebServer("127.0.0.1:0", metrics=lambda _: (b"", ""), health=lambda: {"status": status}) as server,
        aiohttp.ClientSession() as client,
        client.get(f"{server.address}/health") as reply,
    ):
        assert reply.status == code
        assert await reply.json() == {"status": status}


async def test_a_slow_scrape_holds_up_neither_the_loop_nor_the_end(tmp_path: Path) -> None:
    asked, go = threading.Event(), threading.Event()

    def metrics(_accept: str) -> tuple[bytes, str]:
        asked.set()
        go.wait(LIMIT)
        return b"", "text/plain"

    async with asyncio.timeout(LIMIT), aiohttp.ClientSession() as client:
        async with WebServer("127.0.0.1:0", metrics=metrics, health=lambda: {"status": "ok"}) as server:
            scrape = asyncio.create_task(client.get(f"{server.address}/metrics"))
            await asyncio.to_thread(asked.wait, LIMIT)
            async with client.get(f"{server.address}/health") as reply:
                assert reply.status == 200
        go.set()
        with pytest.raises(aiohttp.ClientError):
            await scrape
