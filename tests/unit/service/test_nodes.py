"""The loops of several nodes: crash, restart, stop, and watching only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from mapek_runtime import Action, Cycle, Finding, Knowledge, Outcome
from mapek_runtime.config import LoopSettings
from mapek_runtime.errors import PluginConflict
from mapek_runtime.loop.knowledge_sqlite import SqliteStore
from mapek_runtime.service.nodes import NodeLoops, watching


class Everything:
    """Serves all phases, and remembers how often it was asked."""

    name = "everything"

    def __init__(self) -> None:
        self.acted = 0

    async def monitor(self, cycle: Cycle) -> list[object]:
        cycle.knowledge.remember("cycles", cycle.number)
        return []

    async def analyze(self, cycle: Cycle) -> list[Finding]:
        return [Finding(target="x", problem="y")]

    async def plan(self, cycle: Cycle) -> list[Action]:
        return [Action(name="do", target="x")]

    async def execute(self, cycle: Cycle, action: Action) -> Outcome:
        self.acted += 1
        return Outcome(action=action, success=True)


class Hands:
    async def execute(self, cycle: Cycle, action: Action) -> Outcome:
        return Outcome(action=action, success=True)


class Seen:
    """Waits for cycles of a node."""

    def __init__(self) -> None:
        self.cycles: list[Cycle] = []
        self._more = asyncio.Event()

    def __call__(self, cycle: Cycle) -> None:
        self.cycles.append(cycle)
        self._more.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                self._more.clear()
                await self._more.wait()

    def of(self, node: str) -> list[int]:
        return [cycle.number for cycle in self.cycles if cycle.node_id == node]


def loops(seen: Seen, plugins: Sequence[object], folder: Path | None = None) -> NodeLoops:
    return NodeLoops(
        settings=LoopSettings(interval=0.01),
        plugins=lambda _node: plugins,
        knowledge=lambda node: Knowledge(SqliteStore(folder / f"{node}.sqlite") if folder else None),
        on_cycle=seen,
    )


async def test_a_crashed_node_stops_and_a_restarted_one_begins_again() -> None:
    seen = Seen()
    nodes = loops(seen, [Everything()])
    await nodes.start(["a", "b"])
    await seen.until(lambda: len(seen.of("a")) >= 3)

    await nodes.crashed("a")
    at_crash = len(seen.of("a"))
    other = len(seen.of("b"))
    await seen.until(lambda: len(seen.of("b")) >= other + 3)
    assert len(seen.of("a")) == at_crash
    await nodes.restarted("a")
    await seen.until(lambda: len(seen.of("a")) > at_crash)
    await nodes.stop()

    assert seen.of("a")[at_crash] == 1
    statistics = nodes.statistics()
    assert statistics["a"].cycles >= len(seen.of("a"))
    assert statistics["b"].cycles == len(seen.of("b"))


async def test_after_the_stop_no_node_is_started_again() -> None:
    seen = Seen()
    nodes = loops(seen, [Everything()])
    await nodes.start(["a"])
    await nodes.stop()
    count = len(seen.cycles)

    await nodes.restarted("a")
    await nodes.cancel()

    assert len(seen.cycles) == count
    assert nodes.statistics()["a"].cycles == count


async def test_a_restarted_node_has_what_was_on_disk(tmp_path: Path) -> None:
    seen = Seen()
    nodes = loops(seen, [Everything()], tmp_path)
    await nodes.start(["a"])
    await seen.until(lambda: len(seen.cycles) >= 2)
    await nodes.crashed("a")
    await nodes.restarted("a")
    await nodes.stop()

    knowledge = Knowledge(SqliteStore(tmp_path / "a.sqlite"))
    await knowledge.load()
    assert knowledge.fact("cycles") is not None
    await knowledge.aclose()


async def test_a_conflict_of_plugins_stops_the_start() -> None:
    nodes = loops(Seen(), [Everything(), Everything()])

    with pytest.raises(PluginConflict, match="everything"):
        await nodes.start(["a"])

    await nodes.cancel()
    assert nodes.statistics() == {}


async def test_watching_observes_and_finds_and_does_not_act() -> None:
    seen, plugin = Seen(), Everything()
    kept = watching([plugin, Hands()])
    nodes = loops(seen, kept)
    await nodes.start(["a"])
    await seen.until(lambda: len(seen.cycles) >= 3)
    await nodes.stop()

    assert len(kept) == 1
    assert seen.cycles[-1].findings
    assert set(seen.cycles[-1].skipped) == {"plan", "execute"}
    assert plugin.acted == 0


class Deaf:
    """Does not hear that its time is over, until it is let go."""

    def __init__(self) -> None:
        self.go = asyncio.Event()

    async def monitor(self, cycle: Cycle) -> list[object]:
        while not self.go.is_set():
            with suppress(asyncio.CancelledError):
                await self.go.wait()
        return []


async def test_a_loop_that_runs_or_was_crashed_or_stopped_has_no_fault() -> None:
    seen = Seen()
    nodes = loops(seen, [Everything()])
    await nodes.start(["a", "b"])
    await seen.until(lambda: len(seen.of("a")) >= 2)
    running = nodes.faults()
    await nodes.crashed("a")
    crashed = nodes.faults()
    await nodes.stop()

    assert running == crashed == nodes.faults() == {}


async def test_a_loop_that_has_ended_is_named() -> None:
    nodes = loops(Seen(), [Everything()])
    await nodes.start(["a", "b"])
    (task,) = [each for each in asyncio.all_tasks() if each.get_name() == "mapek a"]

    task.cancel()
    await asyncio.wait((task,))
    faults = nodes.faults()
    await nodes.cancel()

    assert faults == {"a": "its loop has ended"}


async def test_a_loop_whose_cycle_outlasts_every_limit_is_named(autojump: object) -> None:
    deaf = Deaf()
    nodes = NodeLoops(
        settings=LoopSettings(monitor_limit=2, monitor_retries=2),
        plugins=lambda node: [deaf] if node == "a" else [Everything()],
        knowledge=lambda _node: Knowledge(),
    )
    await nodes.start(["a", "b"])

    # 1 s of interval, three times 2 s of monitor with 0.05 s and 0.1 s between, 60 s of the others, 1 s.
    await asyncio.sleep(68)
    before = nodes.faults()
    await asyncio.sleep(1)
    after = nodes.faults()
    deaf.go.set()
    await asyncio.sleep(2)
    again = nodes.faults()
    await nodes.stop()

    assert (before, again) == ({}, {})
    assert after == {
        "a": "no cycle has ended for 69 s; loop.interval and the limits of the phases allow 68.15 s"
    }


async def test_a_loop_that_could_not_be_started_again_is_named_until_it_can() -> None:
    plugins: list[object] = [Everything()]
    nodes = loops(Seen(), plugins)
    await nodes.start(["a"])
    await nodes.crashed("a")

    plugins.append(Everything())
    await nodes.restarted("a")
    lost = nodes.faults()
    plugins.pop()
    await nodes.restarted("a")
    found = nodes.faults()
    await nodes.stop()

    assert lost == {"a": "its loop could not be started again"}
    assert found == {}
