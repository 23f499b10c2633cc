"""A collector that goes away, and a process that is killed meanwhile: with a spool nothing is lost."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.integration.receiver import free_port, receiver, until

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="reads memory and standard input as Linux has them"
)


class Program:
    """The spooling program, and the newest account that it has printed."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.now: dict[str, Any] = {"spooled": 0, "created": 0, "exported": 0, "recovered": 0}
        self.reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.now = json.loads(line)
            assert self.now["balanced"], self.now

    async def until(self, holds: Callable[[dict[str, Any]], bool], limit: float = 20) -> None:
        assert await until(lambda: self.reading.done() or holds(self.now), limit), self.now
        if self.reading.done():
            self.reading.result()

    async def stop(self) -> dict[str, Any]:
        """Let it shut down; gives its last account."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        async with asyncio.timeout(20):
            await self.reading
            assert await self.process.wait() == 0
        return self.now

    async def kill(self) -> None:
        """End it with SIGKILL."""
        self.process.kill()
        async with asyncio.timeout(20):
            await self.process.wait()
            await self.reading


@asynccontextmanager
async def program(port: int, folder: Path, rate: float = 1000) -> AsyncIterator[Program]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "error::ResourceWarning", "-m", "tests.integration.spooling_program",
        f"http://127.0.0.1:{port}/v1/traces", str(folder), str(rate),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=ROOT,
    )  # fmt: skip
    made = Program(process)
    try:
        yield made
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        made.reading.cancel()
        await asyncio.wait({made.reading})


async def goes_away_for(seconds: float, folder: Path) -> dict[str, Any]:
    """Take the collector away under 1,000 spans/s; gives the last account, and memory before and after."""
    port = free_port()
    async with program(port, folder) as made:
        async with receiver(port) as first:
            await made.until(lambda now: now["exported"] > 1500)
        await made.until(lambda now: now["spooled"] > 500)
        before = made.now["resident_kb"]
        await asyncio.sleep(seconds)
        away = made.now
        assert away["spooled"] >= 900 * seconds
        async with receiver(port) as second:
            await made.until(lambda now: now["spooled"] == 0, seconds + 20)
            last = await made.stop()
            ids = first.ids + second.ids
    assert len(set(ids)) == last["created"]
    return last | {
        "before_kb": before,
        "away_kb": away["resident_kb"],
        "duplicates": len(ids) - len(set(ids)),
    }


async def test_what_a_collector_missed_arrives_when_it_is_back(tmp_path: Path) -> None:
    last = await goes_away_for(2, tmp_path)

    assert last["exported"] == last["ended"] == last["created"]
    assert last["dropped"] == {}


@pytest.mark.slow
async def test_a_minute_without_a_collector_loses_nothing_and_takes_no_memory(tmp_path: Path) -> None:
    last = await goes_away_for(60, tmp_path)

    assert last["exported"] == last["ended"] == last["created"]
    assert last["dropped"] == {}
    assert last["away_kb"] - last["before_kb"] < 8_000


async def test_what_was_spooled_survives_a_kill_and_the_next_process_sends_it(tmp_path: Path) -> None:
    port = free_port()
    async with program(port, tmp_path) as first:
        await first.until(lambda now: now["spooled"] > 2000)
        spooled = first.now["spooled"]
        await first.kill()

    async with program(port, tmp_path, rate=10) as second, receiver(port) as came:
        await second.until(lambda now: now["recovered"] >= spooled and now["spooled"] == 0)
        last = await second.stop()

    assert last["recovered"] >= spooled
    assert len(set(came.ids)) == len(came.ids) == last["recovered"] + last["ended"]
    assert last["exported"] == last["recovered"] + last["ended"]
