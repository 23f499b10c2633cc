"""The feed of the page: cycles and events as they happen, everything else only for who listens."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mapek_runtime.export.account import Statistics
from mapek_runtime.export.encode import encode_spans
from mapek_runtime.loop import FaultInjector, FaultReport, LinkView, RuntimeStatistics, Topology
from mapek_runtime.service.controls import RunControls
from mapek_runtime.service.faults import FaultsInForce
from mapek_runtime.service.feed import CYCLES, EVENTS, Feed, RunFacts
from mapek_runtime.service.state import halt
from mapek_runtime.store import TraceStore
from mapek_runtime.testing import Recorder, run_cycle
from mapek_runtime.web.live import Listener
from mapek_runtime.web.state import State
from tests.unit.service.links import Calm, Link


class Run:
    """A run with one mesh of one link, and a count of how often it was looked at."""

    def __init__(self) -> None:
        self.looks = 0
        self.link = LinkView(a="a", b="b", state="up", loss=0.0, rtt=0.001)
        self.counts = {"a": RuntimeStatistics(5, 1, 0, 0, 0, 2, 0, 3)}

    def links(self) -> Sequence[LinkView]:
        self.looks += 1
        return (self.link,)

    def alive(self) -> Mapping[str, bool]:
        return {"a": True, "b": False}

    def route(self, source: str, destination: str) -> Sequence[str]:
        return ()

    def statistics(self) -> Mapping[str, RuntimeStatistics]:
        return self.counts

    def leader(self) -> str:
        return "a"

    def topologies(self) -> Sequence[Topology]:
        return (self,)

    def injectors(self) -> Sequence[FaultInjector]:
        return ()

    def loop_lag_ms(self) -> Mapping[str, float]:
        return {"median": 0.1, "p99": 1.5, "max": 7.0}

    def health(self) -> Mapping[str, Any]:
        return {"status": "ok", "faults": {}}

    def spans(self) -> Statistics:
        return Statistics(6, 0, 6, {}, 0, 0, 0, 0, {})


class Stage:
    """A feed over a run, and what stands around it."""

    def __init__(self, folder: Path, store: TraceStore | None = None) -> None:
        self.run = Run()
        self.faults = FaultsInForce()
        self.controls = RunControls(
            injectors=self.run.injectors, in_force=self.faults, folder=folder, emit=self.emit
        )
        facts = RunFacts(service="s", version="1", nodes=("a", "b"), domains=("mesh",))
        self.feed = Feed(
            facts,
            self.run,
            controls=self.controls,
            faults=self.faults,
            store=store,
        )

    def emit(self, name: str, fields: Mapping[str, Any]) -> None:
        self.feed.event(name, fields)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Feed]:
        task = asyncio.create_task(self.feed.run())
        try:
            yield self.feed
        finally:
            task.cancel()
            await asyncio.wait((task,))
            assert task.cancelled(), task.exception()


def told(listener: Listener) -> list[tuple[str, Any]]:
    read = []
    for block in listener.take().decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines())
        if fields:
            read.append((fields["event"], json.loads(fields["data"])))
    return read


async def test_what_is_shown_first_is_complete_and_is_json(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    cycle = await run_cycle(Link(), node="a")
    stage.feed.cycle(cycle)
    stage.feed.event("fault.injected", {"number": 1, "kind": "link.down", "target": "a~b", "seconds": 8.0})
    await asyncio.to_thread(halt, tmp_path, "visitors")

    state = json.loads(msgspec.json.encode(await stage.feed.state()))

    assert set(state) == set(State.__struct_fields__)
    assert state["nodes"] == [
        {"id": "a", "alive": True, "leads": True, "cycles": 5, "failed": 1, "actions": 2, "refused": 3},
        {"id": "b", "alive": False, "leads": False, "cycles": 0, "failed": 0, "actions": 0, "refused": 0},
    ]
    assert state["links"] == [{"a": "a", "b": "b", "state": "up", "loss": 0.0, "rtt": 0.001, "fault": ""}]
    assert [(f["number"], f["by"], f["seconds"]) for f in state["faults"]] == [(1, "chaos", 8.0)]
    assert len(state["cycles"]["a"][0]["phases"]) == 5
    assert state["cycles"]["a"][0]["cycle"] == 1
    assert state["cycles"]["b"] == []
    assert [event["name"] for event in state["recent"]] == ["fault.injected"]
    assert state["halted"].startswith("visitors (since ")
    assert state["health"]["loop_lag_ms"] == {"p50": 0.1, "p99": 1.5, "max": 7.0}
    assert state["health"]["spans"]["ended"] == 6
    assert state["controls"] == {"faults": False, "halt": True, "kinds": [], "targets": {}}
    assert state["report"] is None
    assert state["last_event_id"] == stage.feed.live.last_id
    for moment in (
        state["started"],
        state["now"],
        state["cycles"]["a"][0]["start"],
        state["faults"][0]["since"],
    ):
        assert isinstance(moment, str)
        assert moment.isdigit()


async def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    cycle = await run_cycle(Calm(), node="a")
    for number in range(1, CYCLES + 11):
        cycle.number = number
        stage.feed.cycle(cycle)
    for number in range(EVENTS + 10):
        stage.feed.event("x", {"n": number})

    state = await stage.feed.state()

    assert [each.cycle for each in state.cycles["a"]] == list(range(11, CYCLES + 11))
    assert [each.fields["n"] for each in state.recent] == list(range(10, EVENTS + 10))


async def test_cycles_and_events_are_told_at_once_and_once(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    cycle = await run_cycle(Calm(), node="a")

    with stage.feed.live.listening() as listener:
        stage.feed.cycle(cycle)
        stage.feed.event("cycle", {"node": "a"})
        stage.feed.event("tea.ready", {"cups": 2})

        names = [(name, data["line"]) for name, data in told(listener)]
    assert names == [("cycle", "nothing found"), ("event", "tea.ready cups=2")]


@pytest.mark.usefixtures("autojump")
async def test_nothing_is_looked_at_while_nobody_listens(tmp_path: Path) -> None:
    stage = Stage(tmp_path)

    async with stage.running() as feed:
        await asyncio.sleep(60)
        before = stage.run.looks
        with feed.live.listening():
            await asyncio.sleep(10)
            during = stage.run.looks
        await asyncio.sleep(60)

    assert before == 0
    assert during > 10
    assert stage.run.looks <= during + 1


async def test_the_mesh_is_told_when_it_changes_and_seldom_when_only_counts_do(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    with stage.feed.live.listening() as listener:
        await stage.feed._tell_mesh()
        first = told(listener)
        await stage.feed._tell_mesh()
        same = told(listener)
        stage.run.counts = {"a": RuntimeStatistics(6, 1, 0, 0, 0, 2, 0, 3)}
        await stage.feed._tell_mesh()
        counted = told(listener)
        stage.run.link = LinkView(a="a", b="b", state="drained", loss=0.4, rtt=0.001)
        await stage.feed._tell_mesh()
        drained = told(listener)

    assert [name for name, _ in first] == ["mesh"]
    assert (same, counted) == ([], [])
    assert drained[0][1]["links"][0]["state"] == "drained"
    assert drained[0][1]["nodes"][0]["cycles"] == 6


@pytest.mark.usefixtures("autojump")
async def test_a_look_that_fails_is_logged_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stage = Stage(tmp_path)
    links = stage.run.links
    stage.run.links = lambda: 1 / 0  # type: ignore[assignment, method-assign, return-value]

    async with stage.running() as feed:
        with feed.live.listening() as listener:
            await asyncio.sleep(5)
            stage.run.links = links  # type: ignore[method-assign]
            failed = [name for name, _ in told(listener)]
            await asyncio.sleep(2)
            mended = [name for name, _ in told(listener)]

    assert "mesh" not in failed
    assert "health" in failed
    assert "mesh" in mended
    assert caplog.text.count("ZeroDivisionError: division by zero") >= 1


async def test_of_very_many_nodes_each_shows_fewer_cycles(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    cycle = await run_cycle(Calm(), node="a")
    for node in range(300):
        cycle.node_id = f"n-{node}"
        for _ in range(30):
            stage.feed.cycle(cycle)

    state = await stage.feed.state()

    assert sum(len(cycles) for cycles in state.cycles.values()) <= 3000
    assert len(state.cycles["n-7"]) > 5


async def test_other_nodes_have_strips_and_counts_of_their_own(tmp_path: Path, recorder: Recorder) -> None:
    async with TraceStore(tmp_path / "t.sqlite") as store:
        stage = Stage(tmp_path, store)
        await run_cycle(Link(), node="far-1")
        await store.send(encode_spans(recorder.spans), len(recorder.spans))
        with stage.feed.live.listening() as listener:
            await stage.feed._tell_elsewhere()
            names = [(name, data["node"]) for name, data in told(listener)]
            await stage.feed._tell_mesh()
            mesh = dict(told(listener))
        state = await stage.feed.state()

    assert names == [("cycle", "far-1")]
    assert mesh["stored"] == {"last": len(recorder.spans)}
    far = next(node for node in state.nodes if node.id == "far-1")
    assert (far.alive, far.cycles, far.actions, far.refused) == (True, 1, 1, 1)
    assert [cycle.cycle for cycle in state.cycles["far-1"]] == [1]
    assert state.health.store is not None
    assert state.health.store["spans"] == len(recorder.spans)


async def test_nodes_that_are_gone_make_room_for_new_ones_and_live_ones_do_not(
    tmp_path: Path, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mapek_runtime.service.feed._MOST_NODES", 4)

    async def hear(store: TraceStore, stage: Stage, *nodes: str) -> list[str]:
        for node in nodes:
            recorder.clear()
            await run_cycle(Calm(), node=node)
            await store.send(encode_spans(recorder.spans), len(recorder.spans))
            await stage.feed._tell_elsewhere()
        return sorted((await stage.feed.state()).cycles)

    async with TraceStore(tmp_path / "t.sqlite") as store:
        stage = Stage(tmp_path, store)
        full = await hear(store, stage, "far-1", "far-2", "far-3")
        # From here on each counts as gone once it was heard.
        monkeypatch.setattr("mapek_runtime.service.feed._PRESENT", 0.0)
        later = await hear(store, stage, "far-1", "far-4")

    assert full == ["a", "b", "far-1", "far-2"]
    # Of the two that were there far-2 was silent for longer.
    assert later == ["a", "b", "far-1", "far-4"]


def test_a_report_adds_up_what_every_domain_saw() -> None:
    from mapek_runtime.service.mesh_shapes import show_report

    class Injector:
        def __init__(self, *repairs: float) -> None:
            self.repairs = repairs

        def report(self) -> FaultReport:
            return FaultReport(
                injected=3, healed=len(self.repairs), repair_seconds=self.repairs, wrong_actions=1, sent=10,
                delivered=9,
            )  # fmt: skip

    report = show_report([Injector(0.1, 0.3), Injector(0.2)])  # type: ignore[list-item]

    assert report is not None
    assert (report.injected, report.healed, report.wrong_actions) == (6, 3, 2)
    assert (report.sent, report.delivered) == (20, 18)
    assert report.repair_ms is not None
    assert (report.repair_ms.median, report.repair_ms.p95) == (200.0, 300.0)
