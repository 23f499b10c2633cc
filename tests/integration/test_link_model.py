"""The UDP mesh with the model that its nodes learn, under faults that no threshold sees: real time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from benchmarks.linkmodel_trial import train
from mapek_domains.fl.plugin import domain as fl_domain
from mapek_domains.fl.session import FlSession
from mapek_domains.fl.settings import FlSettings
from mapek_domains.fl.wire import Version
from mapek_domains.mesh.plugin import domain as mesh_domain
from mapek_domains.mesh.settings import MeshSettings
from mapek_domains.mesh.udp.demo import DemoSession
from mapek_domains.mesh.watch import MeshWatcher
from mapek_runtime import Cycle, Finding, Runtime
from mapek_runtime.loop.domain import DomainContext, Fault, Normality

NAMES = tuple(f"node-{number}" for number in range(1, 6))
QUICK = FlSettings(interval=2.0, gap=1.0)


class Loops:
    """A supervisor of two domains: one runtime a node."""

    def __init__(self) -> None:
        self.sessions: list[Any] = []
        self.running: dict[str, Runtime] = {}
        self.watchers: list[MeshWatcher] = []
        self.cycles: list[Cycle] = []

    def find(self, protocol: type[Any], /) -> Any:
        return next((session for session in self.sessions if isinstance(session, protocol)), None)

    async def crashed(self, node_id: str) -> None: ...

    async def restarted(self, node_id: str) -> None: ...

    async def start(self, node_id: str) -> None:
        plugins = [plugin for session in self.sessions for plugin in session.plugins(node_id)]
        self.watchers += [plugin for plugin in plugins if isinstance(plugin, MeshWatcher)]
        runtime = Runtime(*plugins, node_id=node_id, interval=0.1, on_cycle=self.cycles.append)
        self.running[node_id] = await runtime.__aenter__()

    def actions(self) -> list[tuple[str, str]]:
        return [(o.action.name, o.action.target) for cycle in self.cycles for o in cycle.outcomes]

    def findings(self) -> list[Finding]:
        return [finding for cycle in self.cycles for finding in cycle.findings if finding.anomaly]


@asynccontextmanager
async def learning_mesh(settings: FlSettings = QUICK) -> AsyncIterator[tuple[DemoSession, FlSession, Loops]]:
    loops = Loops()
    context = DomainContext(nodes=NAMES, supervisor=loops, rng=random.Random(1), find=loops.find)
    async with mesh_domain.open(MeshSettings(), context) as mesh, fl_domain.open(settings, context) as fl:
        assert isinstance(mesh, DemoSession)
        loops.sessions = [mesh, fl]
        await until(lambda: all(sum(node.nodes().values()) == 5 for node in mesh.nodes.values()))
        try:
            for name in NAMES:
                await loops.start(name)
            yield mesh, fl, loops
        finally:
            for runtime in loops.running.values():
                await runtime.stop()


async def until(true: Callable[[], bool], *, limit: float = 180.0) -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + limit
    while not true():
        assert loop.time() < end, "it did not come true in time"
        await asyncio.sleep(0.01)


def fault(number: int, kind: str, target: str, **parameters: float) -> Fault:
    return Fault(number=number, kind=kind, target=target, at=0.0, duration=60.0, parameters=parameters)


@pytest.mark.slow
async def test_what_was_learned_elsewhere_finds_and_heals_what_no_threshold_sees() -> None:
    late = fault(1, "link.slow", "node-1~node-2", delay=0.03, jitter=0.01)
    lossy = fault(2, "link.loss", "node-3~node-4", loss=0.25)
    _, weights = train(7, seconds=40.0, varied=True, mix="all")
    # No round of its own: what is found is found by this model.
    async with learning_mesh(FlSettings(interval=3600.0, gap=3600.0)) as (mesh, fl, loops):
        for node in fl.nodes.values():
            assert node.adopt(Version(9, "node-1"), weights)
        await until(lambda: all(len(each.opinions) == len(each.readings) > 0 for each in loops.watchers))
        before = loops.actions()
        for each in (late, lossy):
            await mesh.inject(each)
        await until(lambda: mesh.report().healed == 2)
        report = mesh.report()

    by_model = [found for found in loops.findings() if found.evidence[0].metric == "fl.score"]
    assert before == []
    assert {(late.target, "link.slow")} <= {(found.target, found.problem) for found in by_model}
    assert {(lossy.target, "link.lossy")} <= {(found.target, found.problem) for found in loops.findings()}
    assert {found.evidence[0].rule for found in by_model} == {"model of round 9"}
    assert set(loops.actions()) == {("drain", late.target), ("drain", lossy.target)}
    assert report.wrong_actions == 0
    assert [failure for cycle in loops.cycles for failure in cycle.failures] == []


@pytest.mark.slow
async def test_what_the_nodes_have_learned_finds_and_heals_what_no_threshold_sees() -> None:
    late = fault(1, "link.slow", "node-1~node-2", delay=0.03, jitter=0.01)
    lossy = fault(2, "link.loss", "node-3~node-4", loss=0.2, one_way=1.0)
    async with learning_mesh() as (mesh, fl, loops):
        assert isinstance(fl, Normality)
        await until(lambda: all(node.version.round >= 4 for node in fl.nodes.values()))
        before = loops.actions()
        await mesh.inject(late)
        await until(lambda: mesh.report().healed == 1)
        detour = mesh.route("node-1", "node-2")
        await mesh.inject(lossy)
        await until(lambda: mesh.report().healed == 2)
        while_bad = loops.actions()
        await mesh.clear(late)
        await mesh.clear(lossy)
        await until(lambda: {("undrain", late.target), ("undrain", lossy.target)} <= set(loops.actions()))
        report = mesh.report()
        rounds = max(node.version.round for node in fl.nodes.values())

    by_model = [found for found in loops.findings() if found.evidence[0].metric == "fl.score"]
    rules = {found.evidence[0].rule for found in by_model}
    assert before == []
    assert len(detour) == 3
    assert set(while_bad) <= {("drain", late.target), ("drain", lossy.target)}
    assert (late.target, "link.slow") in {(found.target, found.problem) for found in by_model}
    assert {found.target for found in by_model} <= {late.target, lossy.target}
    assert (lossy.target, "link.lossy") in {(found.target, found.problem) for found in loops.findings()}
    assert rules <= {f"model of round {number}" for number in range(4, rounds + 1)}
    assert report.wrong_actions == 0
    assert [failure for cycle in loops.cycles for failure in cycle.failures] == []


@pytest.mark.slow
async def test_without_learning_the_same_faults_stay_unseen() -> None:
    late = fault(1, "link.slow", "node-1~node-2", delay=0.03)
    loops = Loops()
    context = DomainContext(nodes=NAMES, supervisor=loops, rng=random.Random(1), find=loops.find)
    async with mesh_domain.open(MeshSettings(), context) as mesh:
        assert isinstance(mesh, DemoSession)
        loops.sessions = [mesh]
        await until(lambda: all(sum(node.nodes().values()) == 5 for node in mesh.nodes.values()))
        for name in NAMES:
            await loops.start(name)
        await asyncio.sleep(2.0)
        await mesh.inject(late)
        await asyncio.sleep(4.0)
        report = mesh.report()
        for runtime in loops.running.values():
            await runtime.stop()

    assert loops.findings() == []
    assert (report.healed, report.harmless) == (0, 0)
