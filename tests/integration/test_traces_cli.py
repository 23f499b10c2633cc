"""`mapek traces` as people and programs use it: over the file that a run has left, and while one writes."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from pathlib import Path

import pytest

from mapek_runtime.store import TraceStore
from tests.unit.store.filling import request, span

from .running import environment

pytestmark = pytest.mark.slow

LIMIT = 45.0
MS = 1_000_000


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with three cycles, one of them failed, and a call between services."""
    path = tmp_path_factory.mktemp("store") / "traces.sqlite"
    now = time.time_ns()
    async with TraceStore(path) as store:
        for number in (1, 2, 3):
            start = now - (10 - number) * 1000 * MS
            cycle = {"node_id": f"node-{number}", "cycle": number, "success": number != 3}
            await store.send(
                request(
                    span(number, 1, name="mape_k.cycle", start=start, duration=20 * MS, attributes=cycle),
                    span(number, 2, 1, name="mape_k.monitor", start=start + MS, duration=5 * MS),
                    span(
                        number, 3, 1, name="mape_k.plan", start=start + 7 * MS, duration=9 * MS,
                        status=2 if number == 3 else 0,
                    ),
                    service="x0tta6bl4",
                ),
                3,
            )  # fmt: skip
    return path


async def mapek(*arguments: str, folder: Path, **more: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of `mapek traces`."""
    async with asyncio.timeout(LIMIT):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "mapek_runtime.service.cli", "traces", *arguments,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            env=environment(folder, COLUMNS="160", **more),
        )  # fmt: skip
        output, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode(), errors.decode()


async def test_search_lists_the_newest_first(path: Path, tmp_path: Path) -> None:
    code, output, _ = await mapek("search", 'name="mape_k.*"', "--store", str(path), folder=tmp_path)
    assert code == 0
    lines = output.splitlines()
    assert [line.split()[0] for line in lines[1:]] == [f"{number:032x}" for number in (3, 2, 1)]
    assert "x0tta6bl4 mape_k.cycle" in lines[1]
    assert "3 (1 failed)" in lines[1]


@pytest.mark.slow
async def test_search_writes_objects_for_programs(path: Path, tmp_path: Path) -> None:
    code, output, _ = await mapek(
        "search", "{ status = error }", "--json", "--since", "1h", "--store", str(path), folder=tmp_path
    )
    (found,) = map(json.loads, output.splitlines())
    assert code == 0
    assert (found["trace_id"], found["spans"], found["errors"]) == (f"{3:032x}", 3, 1)
    assert found["sets"][0]["spans"][0]["name"] == "mape_k.plan"


async def test_a_query_that_cannot_be_read_is_pointed_at(path: Path, tmp_path: Path) -> None:
    code, output, errors = await mapek("search", "name = = 3", "--store", str(path), folder=tmp_path)
    assert (code, output) == (2, "")
    message, text, caret = errors.splitlines()
    assert message.startswith("mapek: column 8:")
    assert text == "name = = 3"
    assert caret == "       ^"


@pytest.mark.slow
async def test_nothing_found_says_what_was_looked_at(path: Path, tmp_path: Path) -> None:
    code, output, _ = await mapek("search", "node_id=nobody", "--store", str(path), folder=tmp_path)
    assert code == 2
    code, output, _ = await mapek("search", 'node_id="nobody"', "--store", str(path), folder=tmp_path)
    assert code == 0
    assert "nothing found" in output
    assert "mapek traces stats" in output


@pytest.mark.slow
async def test_a_store_that_is_not_there_is_named(tmp_path: Path) -> None:
    code, _, errors = await mapek("stats", folder=tmp_path)
    assert code == 1
    assert errors.startswith(f"mapek: there is no trace store in '{tmp_path}/mapek/traces.sqlite'")


async def test_show_draws_a_waterfall(path: Path, tmp_path: Path) -> None:
    code, output, _ = await mapek("show", "latest", "--store", str(path), folder=tmp_path)
    assert code == 0
    head, cycle, monitor, plan = output.splitlines()
    assert head.startswith(f"trace {3:032x}")
    assert "1 failed" in head
    assert cycle.startswith("mape_k.cycle")
    assert monitor.startswith("├╴mape_k.monitor")
    assert plan.startswith("└╴mape_k.plan")
    assert plan.index("━") > monitor.rindex("━")


async def test_show_takes_the_beginning_of_an_id(path: Path, tmp_path: Path) -> None:
    code, _, errors = await mapek("show", "0000", "--store", str(path), folder=tmp_path)
    assert code == 2
    assert "more than one" in errors
    code, output, _ = await mapek("show", f"{2:032x}", "--json", "--store", str(path), folder=tmp_path)
    (group,) = json.loads(output)["resourceSpans"]
    assert [each["name"] for each in group["scopeSpans"][0]["spans"]] == [
        "mape_k.cycle", "mape_k.monitor", "mape_k.plan"
    ]  # fmt: skip
    code, _, errors = await mapek("show", "latest of", "--store", str(path), folder=tmp_path)
    assert code == 2
    assert "hexadecimal" in errors


@pytest.mark.slow
async def test_stats_count_each_operation(path: Path, tmp_path: Path) -> None:
    code, output, _ = await mapek("stats", "--json", "--store", str(path), folder=tmp_path)
    found = json.loads(output)
    assert (code, found["spans"]) == (0, 9)
    by_name = {each["name"]: each for each in found["operations"]}
    assert by_name["mape_k.plan"]["errors"] == 1
    assert by_name["mape_k.plan"]["p95_ms"] == pytest.approx(9, rel=0.05)
    code, output, _ = await mapek("stats", "--store", str(path), folder=tmp_path)
    assert "9 spans" in output.splitlines()[0]


@pytest.mark.parametrize("ends", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
async def test_tail_follows_what_another_process_writes(tmp_path: Path, ends: signal.Signals) -> None:
    path = tmp_path / "traces.sqlite"
    async with asyncio.timeout(LIMIT), TraceStore(path) as store:
        await store.send(request(span(1, name="mape_k.cycle", start=time.time_ns())), 1)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "mapek_runtime.service.cli", "traces", "tail", "--json", "--store",
            str(path),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=environment(tmp_path),
        )  # fmt: skip
        assert process.stdout is not None
        said = asyncio.create_task(process.stdout.readline())
        number = 1
        while not said.done():
            # What is there before it begins to follow is not told.
            number += 1
            now = time.time_ns()
            await store.send(
                request(
                    span(number, name="other", start=now), span(number, 2, name="mape_k.cycle", start=now)
                ),
                2,
            )
            await asyncio.wait({said}, timeout=0.2)
        found = json.loads(said.result())
        assert found["name"] == "mape_k.cycle"
        assert int(found["trace_id"], 16) > 1
        process.send_signal(ends)
        _, errors = await process.communicate()
    assert (process.returncode, errors) == (0, b"")
