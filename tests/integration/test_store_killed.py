"""A store whose writer is killed in the middle of its work: what it said is written, is there."""

from __future__ import annotations

import asyncio
import random
import signal
import sqlite3
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIMIT = 60.0
WRITER = """
import asyncio, os, sys
from pathlib import Path
from mapek_runtime.store import TraceStore
from tests.unit.store.filling import request, span

async def sender(store, turn, number):
    count = 0
    while True:
        count += 1
        trace = turn * 1_000_000_000 + number * 1_000_000 + count
        await store.send(request(*[span(trace, each + 1, name=f"work {each % 7}") for each in range(60)]), 60)
        os.write(1, b"%d\\n" % trace)

async def main():
    async with TraceStore(Path(sys.argv[1]), max_age=1e10) as store, asyncio.TaskGroup() as group:
        for number in range(8):
            group.create_task(sender(store, int(sys.argv[2]), number))

asyncio.run(main())
"""


@pytest.mark.parametrize("times", [3, pytest.param(10, marks=pytest.mark.slow)])
async def test_no_acknowledged_span_is_lost_by_kill(tmp_path: Path, times: int) -> None:
    path = tmp_path / "traces.sqlite"
    rng = random.Random(times)
    acknowledged: list[int] = []
    async with asyncio.timeout(LIMIT):
        for turn in range(times):
            acknowledged += await killed_after(rng.uniform(0.05, 0.5), path, turn)
    assert len(acknowledged) > 10 * times
    assert len(set(acknowledged)) == len(acknowledged)
    counts = await asyncio.to_thread(traces_in, path)
    short = [trace for trace in acknowledged if counts.get(trace) != 60]
    assert not short
    # What was written and not yet said may be there as well, but only whole.
    assert set(counts.values()) == {60}


async def killed_after(seconds: float, path: Path, turn: int) -> list[int]:
    """The traces that a process said it had written before it was killed under load."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITER, str(path), str(turn), stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    assert process.stdout is not None
    said = [await process.stdout.readline()]
    assert said[0], "it ended before it wrote anything"
    reading = asyncio.create_task(process.stdout.read())
    await asyncio.sleep(seconds)
    process.kill()
    said += (await reading).splitlines(keepends=True)
    assert await process.wait() == -signal.SIGKILL
    return [int(line) for line in said if line.endswith(b"\n")]


def traces_in(path: Path) -> dict[int, int]:
    """How many spans there are of each trace; the file and its counts are sound."""
    connection = sqlite3.connect(path)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        (spans,) = connection.execute("SELECT count(*) FROM span").fetchone()
        assert connection.execute("SELECT sum(spans) FROM minute").fetchone() == (spans,)
        assert connection.execute("SELECT sum(last - first + 1) FROM part").fetchone() == (spans,)
        rows = connection.execute("SELECT trace_id, count(DISTINCT span_id) FROM span GROUP BY trace_id")
        return {int.from_bytes(trace, "big"): count for trace, count in rows}
    finally:
        connection.close()
