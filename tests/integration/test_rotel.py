"""A collector that nobody here wrote, rotel, between our exporters and a receiver that keeps every id."""

from __future__ import annotations

import asyncio
import importlib.util
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mapek_runtime.config import decode, read_sources
from mapek_runtime.service.tracing import open_tracing
from tests.integration.receiver import Receiver, free_port, receiver, until

COUNT = 10_000
ATTEMPTS = 3


def program() -> Path:
    """The binary in the package `rotel`; skips where it is not installed."""
    found = importlib.util.find_spec("rotel")
    if found is None or found.origin is None:
        pytest.skip("rotel is not installed: pip install rotel (it has no wheel for every platform)")
    path = Path(found.origin).parent / "rotel-agent"
    if not os.access(path, os.X_OK):
        pytest.skip(f"the package rotel brings no program for this platform ({path.name} is not there)")
    return path


async def is_open(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


@asynccontextmanager
async def rotel(there: Receiver, protocol: str, folder: Path) -> AsyncIterator[dict[str, str]]:
    """The collector, sending to `there` by `protocol`; gives its address for each protocol."""
    path = program()
    for _ in range(ATTEMPTS):
        # It takes no port 0, so that another may take the port in between.
        ports = {"http/protobuf": free_port(), "grpc": free_port()}
        said = (folder / "out").open("wb")
        process = await asyncio.create_subprocess_exec(
            path, "start",
            "--otlp-http-endpoint", f"127.0.0.1:{ports['http/protobuf']}",
            "--otlp-grpc-endpoint", f"127.0.0.1:{ports['grpc']}",
            "--exporter", "otlp",
            "--otlp-exporter-protocol", "grpc" if protocol == "grpc" else "http",
            "--otlp-exporter-endpoint", there.endpoint(protocol).removesuffix("/v1/traces"),
            "--pid-file", folder / "pid", "--log-file", folder / "log",
            env={name: text for name, text in os.environ.items() if not name.startswith(("ROTEL_", "OTEL_"))},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=said, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        said.close()
        try:
            if await started(process, list(ports.values())):
                yield {
                    "http/protobuf": f"http://127.0.0.1:{ports['http/protobuf']}/v1/traces",
                    "grpc": f"http://127.0.0.1:{ports['grpc']}",
                }
                return
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
    pytest.fail(f"rotel does not start: {(folder / 'out').read_text()}")


async def started(process: asyncio.subprocess.Process, ports: list[int]) -> bool:
    """Whether it listens on all ports; False when it has ended."""
    async with asyncio.timeout(20):
        while process.returncode is None:
            if all([await is_open(port) for port in ports]):
                return True
            await asyncio.sleep(0.02)
    return False


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
@pytest.mark.parametrize("name", ["otlp", "otlp-sdk"])
async def test_everything_created_comes_out_of_a_foreign_collector(
    name: str, protocol: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in os.environ:
        if variable.startswith(("OTEL_", "MAPEK_")):
            monkeypatch.delenv(variable)
    created: set[bytes] = set()
    async with receiver() as there, rotel(there, protocol, tmp_path) as addresses:
        settings = decode(
            read_sources(
                environ={
                    "OTEL_TRACES_EXPORTER": name,
                    "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
                    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": addresses[protocol],
                    "MAPEK_EXPORT_SHUTDOWN": "20",
                }
            )
        )
        async with open_tracing(settings, instrument=False) as opened:
            tracer = opened.provider.get_tracer("test")
            for number in range(COUNT):
                span = tracer.start_span(f"span-{number % 7}", attributes={"number": number})
                context = span.get_span_context()
                created.add(context.trace_id.to_bytes(16) + context.span_id.to_bytes(8))
                span.end()
                if number % 6 == 0:
                    await asyncio.sleep(0)

        statistics = opened.statistics()
        assert statistics.exported == COUNT
        assert statistics.balanced
        # It sends what it has in batches of its own; what comes is waited for, not how long it takes.
        await until(lambda: len(set(there.ids)) >= COUNT)
        assert set(there.ids) == created
        assert there.ways == {protocol}
