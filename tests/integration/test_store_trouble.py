"""A store whose file cannot be written for a while: it says so, hangs nobody, and goes on afterwards."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
from pathlib import Path

from mapek_runtime import BatchSpanProcessor, TracerProvider
from mapek_runtime.store import TraceStore

ROOT = Path(__file__).parents[2]
LIMIT = 60.0
FULL = """
import asyncio, json, resource, sys
from mapek_runtime.errors import TransportError
from mapek_runtime.store import TraceStore
from tests.unit.store.filling import request, span

async def send(store, number):
    try:
        spans = [span(number, each, attributes={"text": "x" * 200}) for each in range(1, 101)]
        await store.send(request(*spans), 100)
    except TransportError as error:
        return str(error)

async def main():
    async with TraceStore(sys.argv[1], max_age=1e10) as store:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
        said = {number: await send(store, number) for number in range(1, 61)}
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        said |= {number: await send(store, number) for number in range(61, 71)}
    print(json.dumps(said))

asyncio.run(main())
"""


async def test_a_disk_that_is_full_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "traces.sqlite"
    async with asyncio.timeout(LIMIT):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", FULL, str(path), stdout=asyncio.subprocess.PIPE, cwd=ROOT
        )
        output, _ = await process.communicate()
    said = {int(number): error for number, error in json.loads(output).items()}
    refused = {number for number, error in said.items() if error is not None}
    assert 0 < len(refused) < 60
    assert all(str(path) in said[number] for number in refused)
    assert refused.isdisjoint(range(61, 71))
    counts, integrity = await asyncio.to_thread(look, path)
    assert counts == {number: 100 for number in said if number not in refused}
    assert integrity == "ok"


async def test_a_file_that_another_program_holds_does_not_hold_up_the_end(tmp_path: Path) -> None:
    path = tmp_path / "traces.sqlite"
    store = TraceStore(path)
    processor = BatchSpanProcessor(store)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    async with asyncio.timeout(LIMIT):
        await store.open()
        other = await asyncio.to_thread(hold, path)
        with provider.get_tracer("tests").start_as_current_span("work"):
            pass
        # The other program does not let go before this has returned.
        delivered = await provider.ashutdown(0.5)
        await asyncio.to_thread(other.close)
        await store.aclose()
        counts, _ = await asyncio.to_thread(look, path)
    told = processor.statistics()
    assert not delivered
    assert (told.ended, dict(told.dropped)) == (1, {"timeout": 1})
    # It was told that it is lost: it does not come afterwards.
    assert counts == {}


def look(path: Path) -> tuple[dict[int, int], str]:
    """How many spans there are of each trace, and what SQLite thinks of the file."""
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT trace_id, count(*) FROM span GROUP BY trace_id").fetchall()
    (integrity,) = connection.execute("PRAGMA integrity_check").fetchone()
    connection.close()
    return {int.from_bytes(trace, "big"): count for trace, count in rows}, integrity


def hold(path: Path) -> sqlite3.Connection:
    """A program that has begun to write the file."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("BEGIN IMMEDIATE")
    return connection
