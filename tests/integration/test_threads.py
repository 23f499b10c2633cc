"""Export has no thread: with OTLP over HTTP, no compression, no spool and a numeric address."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from tests.integration.collector import collector

PROGRAM = """
import asyncio, json, os, sys, threading
import uvloop
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
import mapek_runtime

runner, kind, url, count = sys.argv[1:]
seen = {"names": set(), "native": set(), "looks": 0}

def look():
    seen["names"].update(thread.name for thread in threading.enumerate())
    for number in os.listdir("/proc/self/task"):
        if int(number) != os.getpid():
            with open(f"/proc/self/task/{number}/comm") as file:
                seen["native"].add(file.read().strip())
    seen["looks"] += 1

async def main():
    look()
    processor = mapek_runtime.BatchSpanProcessor(mapek_runtime.OTLPSpanExporter(url))
    # A resource of its own: the SDK asks its detectors in threads, which may still be ending.
    classes = {"ours": mapek_runtime.TracerProvider, "the SDK's": sdk.TracerProvider}
    provider = classes[kind](ALWAYS_ON, Resource({}))
    provider.add_span_processor(processor)
    tracer = provider.get_tracer("t")
    for number in range(int(count)):
        tracer.start_span("span").end()
        if not number % 50:
            await asyncio.sleep(0)
            look()
    assert await processor.ashutdown(60), processor.statistics()
    look()
    seen["exported"] = processor.statistics().exported

{"asyncio": asyncio.run, "uvloop": uvloop.run}[runner](main())
look()
print(json.dumps({name: sorted(value) if isinstance(value, set) else value for name, value in seen.items()}))
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="this system does not list native threads")
@pytest.mark.parametrize(
    ("runner", "kind", "count"),
    [
        ("asyncio", "ours", 100_000),
        ("uvloop", "ours", 100_000),
        ("asyncio", "the SDK's", 20_000),
    ],
)
async def test_there_is_no_thread_but_the_main_one_while_spans_are_exported(
    runner: str, kind: str, count: int
) -> None:
    if runner == "uvloop" and sys.version_info >= (3, 12):
        pytest.skip("from Python 3.12 on uvloop's own resolver cannot be passed by, and has native threads")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "MAPEK_"))}
    async with collector() as there:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PROGRAM, runner, kind, there.url, str(count),
            env=kept, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            async with asyncio.timeout(100):
                output, log = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()
        assert (process.returncode, log.decode()) == (0, "")
        received = len(await asyncio.to_thread(lambda: there.names))

    seen = json.loads(output)
    assert received == seen["exported"] == count
    assert seen["looks"] > count / 100
    assert seen["names"] == ["MainThread"]
    assert seen["native"] == []
