"""Exporters as the service chooses them, with a receiver on a real socket: each has its own account."""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mapek_runtime.config import Configuration, decode, read_sources
from mapek_runtime.export import SinkStatistics
from mapek_runtime.service.tracing import Tracing, open_tracing
from tests.integration.collector import answer, collector
from tests.integration.receiver import free_port, receiver, silence, until

pytestmark = pytest.mark.slow

COUNT = 3000
PROTOCOLS = ("http/protobuf", "grpc")


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("OTEL_", "MAPEK_")):
            monkeypatch.delenv(name)


def configuration(**variables: str) -> Configuration:
    found = decode(read_sources(environ=variables))
    assert found.warnings == ()
    return found


@asynccontextmanager
async def exporting(console: io.StringIO | None = None, **variables: str) -> AsyncIterator[Tracing]:
    async with open_tracing(configuration(**variables), instrument=False, console=console) as opened:
        yield opened


async def create(opened: Tracing, count: int = COUNT) -> None:
    """End `count` spans, looking at the law all the while."""
    tracer = opened.provider.get_tracer("test")
    for number in range(count):
        tracer.start_span(f"span-{number}").end()
        if number % 50 == 0:
            await asyncio.sleep(0)
            assert_law(opened)
    assert_law(opened)


def assert_law(opened: Tracing) -> None:
    now = opened.statistics()
    assert now.balanced, now
    for sink in now.sinks.values():
        assert sink_holds(sink), sink


def sink_holds(sink: SinkStatistics) -> bool:
    """The law of one sink; a term that it does not have counts as 0."""
    terms: dict[str, Any] = {"recovered": 0, "queued": 0, "spooled": 0, **sink._asdict()}
    given = terms["accepted"] + terms["recovered"]
    waiting = terms["queued"] + terms["in_flight"] + terms["spooled"]
    return bool(given == terms["exported"] + sum(terms["dropped"].values()) + waiting)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", ["otlp", "otlp-sdk"])
@pytest.mark.parametrize("compression", ["none", "gzip"])
async def test_everything_arrives_once_by_either_exporter_and_protocol(
    name: str, protocol: str, compression: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", compression)
    async with receiver() as there:
        async with exporting(
            OTEL_TRACES_EXPORTER=name,
            OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
            OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=there.endpoint(protocol),
        ) as opened:
            await create(opened)

        assert len(there.ids) == len(set(there.ids)) == COUNT
        assert there.ways == {protocol}
    now = opened.statistics()
    assert now.exported == COUNT
    assert [sink.exported for sink in now.sinks.values()] == [COUNT]
    assert_law(opened)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", ["otlp", "otlp-sdk"])
async def test_a_collector_that_never_answers_does_not_hold_up_another(name: str, protocol: str) -> None:
    async with receiver() as there, silence() as silent:
        async with exporting(
            MAPEK_EXPORT_EXPORTER=name,
            MAPEK_EXPORT_PROTOCOL=protocol,
            MAPEK_EXPORT_ENDPOINT=silent,
            MAPEK_EXPORT_COPIES=there.endpoint(protocol),
            MAPEK_EXPORT_SHUTDOWN="0.5",
            MAPEK_EXPORT_DELAY="0.05",
        ) as opened:
            await create(opened)
            # While the silent one still waits for its answer.
            delivered = await until(lambda: [*opened.statistics().sinks.values()][1].exported == COUNT, 8)
            dead, healthy = opened.statistics().sinks.values()

        assert delivered, (dead, healthy)
        assert dead.exported == 0
        assert dead.accepted + healthy.accepted == 2 * COUNT
        assert len(there.ids) == COUNT
    dead, healthy = opened.statistics().sinks.values()
    assert sum(dead.dropped.values()) == COUNT
    assert healthy.dropped == {}
    assert opened.statistics().exported == COUNT
    assert_law(opened)


@pytest.mark.parametrize("fault", ["refuses connections", "answers 400"])
@pytest.mark.parametrize("name", ["otlp", "otlp-sdk"])
async def test_a_collector_that_fails_costs_another_nothing(name: str, fault: str) -> None:
    async with receiver() as there, collector(*[answer(400)] * 100) as failing:
        address = failing.url if fault == "answers 400" else f"http://127.0.0.1:{free_port()}/v1/traces"
        async with exporting(
            MAPEK_EXPORT_EXPORTER=name,
            MAPEK_EXPORT_ENDPOINT=address,
            MAPEK_EXPORT_COPIES=there.http,
            MAPEK_EXPORT_SHUTDOWN="1",
        ) as opened:
            await create(opened)

        assert sorted(set(there.ids)) == sorted(there.ids)
        assert len(there.ids) == COUNT
    lost, healthy = opened.statistics().sinks.values()
    assert (lost.exported, sum(lost.dropped.values())) == (0, COUNT)
    assert (healthy.exported, sum(healthy.dropped.values())) == (COUNT, 0)
    assert opened.statistics().exported == COUNT
    assert_law(opened)


async def test_the_console_and_a_collector_get_the_same_spans() -> None:
    console = io.StringIO()
    async with receiver() as there:
        async with exporting(
            console, OTEL_TRACES_EXPORTER="console,OTLP", OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=there.http
        ) as opened:
            await create(opened, 300)

        written = [line.split(" ")[:2] for line in console.getvalue().splitlines()]
        assert sorted(bytes.fromhex("".join(ids)) for ids in written) == sorted(there.ids)
    assert [sink.exported for sink in opened.statistics().sinks.values()] == [300, 300]


async def test_headers_are_for_one_collector_and_a_copy_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-key=first")
    async with collector() as first, collector() as second, collector() as third:
        copies = f'["{second.url}", {{endpoint = "{third.url}", headers = {{x-key = "third"}}}}]'
        async with exporting(MAPEK_EXPORT_ENDPOINT=first.url, MAPEK_EXPORT_COPIES=copies) as opened:
            await create(opened, 3)

        keys = [
            [line for line in there.heads[0].lower().splitlines() if line.startswith("x-key")]
            for there in (first, second, third)
        ]
        assert keys == [["x-key: first"], [], ["x-key: third"]]
        assert [sorted(there.names) for there in (second, third)] == [sorted(first.names)] * 2


@pytest.mark.parametrize("name", ["otlp", "otlp-sdk"])
async def test_the_timeout_is_in_milliseconds_for_both(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Read as seconds, as the SDK does by itself, it would be five minutes.
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "300")
    async with (
        silence() as silent,
        exporting(
            MAPEK_EXPORT_EXPORTER=name, MAPEK_EXPORT_ENDPOINT=silent, MAPEK_EXPORT_DELAY="0.05"
        ) as opened,
    ):
        await create(opened, 3)
        gave_up = await until(lambda: sum(opened.statistics().dropped.values()) == 3)

    assert gave_up, opened.statistics()
    assert_law(opened)


async def run(folder: Path, variables: Mapping[str, str], *, seconds: str = "3") -> dict[str, Any]:
    """`mapek run` for some seconds; its summary."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "mapek_runtime.service.cli", "run", "--duration", seconds, "--json",
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        cwd=folder, env={**os.environ, "XDG_STATE_HOME": str(folder), **variables},
    )  # fmt: skip
    try:
        async with asyncio.timeout(60):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, err.decode()
    summary: dict[str, Any] = json.loads(out.splitlines()[-1])
    return summary


@pytest.mark.slow
async def test_a_run_with_the_exporter_of_the_sdk_loses_nothing(tmp_path: Path) -> None:
    async def check(protocol: str) -> None:
        async with receiver() as there:
            summary = await run(
                tmp_path,
                {
                    "OTEL_TRACES_EXPORTER": "otlp-sdk",
                    "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
                    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": there.endpoint(protocol),
                },
            )

            spans = summary["spans"]
            assert spans["ended"] >= 6 * summary["cycles"] > 0
            assert spans["exported"] == spans["ended"] == len(set(there.ids)) == len(there.ids)
            assert sum(spans["dropped"].values()) == 0
            assert there.ways == {protocol}

    async with asyncio.TaskGroup() as group:
        for protocol in PROTOCOLS:
            group.create_task(check(protocol))


@pytest.mark.slow
async def test_a_run_without_its_collector_leaves_its_spans_for_the_next(tmp_path: Path) -> None:
    port = free_port()
    variables = {
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"http://127.0.0.1:{port}/v1/traces",
        "MAPEK_EXPORT_SHUTDOWN": "1",
        # What the store has got counts as delivered.
        "MAPEK_STORE_ENABLED": "false",
    }

    first = (await run(tmp_path, variables, seconds="1"))["spans"]
    async with receiver(port) as there:
        second = (await run(tmp_path, {**variables, "MAPEK_EXPORT_SHUTDOWN": "10"}, seconds="1"))["spans"]

        assert first["spooled"] == first["ended"] > 0
        assert second["recovered"] == first["spooled"]
        assert second["exported"] == second["ended"] + second["recovered"] == len(there.ids)
        assert len(set(there.ids)) == len(there.ids)
