"""The mesh domain with the Babel engine: opened as `mapek run` opens it, broken, judged, and closed.

Skipped with the reason where rights or programs are missing.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mapek_domains.mesh.babel.session import BabelSession
from mapek_domains.mesh.engine import Asks
from mapek_domains.mesh.lab import require, rights
from mapek_domains.mesh.lab.namespace import NETNS
from mapek_domains.mesh.plugin import domain
from mapek_domains.mesh.settings import BabelEngine, MeshSettings
from mapek_runtime import Cycle, Runtime
from mapek_runtime.errors import ConfigError, EngineUnavailable, MapekError
from mapek_runtime.loop.domain import DomainContext, Fault, FaultInjector, NamesNodes, Topology

pytestmark = pytest.mark.slow

BABEL = MeshSettings(engine="babel")


@pytest.fixture
def lab_rights() -> None:
    try:
        require()
    except EngineUnavailable as error:
        pytest.skip(str(error))


class Loops:
    """A supervisor: one runtime a node, kept while the node lives."""

    def __init__(self) -> None:
        self.session: BabelSession | None = None
        self.running: dict[str, Runtime] = {}
        self.cycles: list[Cycle] = []

    async def crashed(self, node_id: str) -> None:
        runtime = self.running.pop(node_id, None)
        if runtime is not None:
            await runtime.cancel()

    async def restarted(self, node_id: str) -> None:
        assert self.session is not None
        runtime = Runtime(
            *self.session.plugins(node_id), node_id=node_id, interval=0.1, on_cycle=self.cycles.append
        )
        self.running[node_id] = await runtime.__aenter__()

    def trigger(self, node_id: str, reason: str) -> None:
        if node_id in self.running:
            self.running[node_id].trigger(reason)

    def insights(self) -> set[tuple[str, str]]:
        return {(insight.name, insight.target) for cycle in self.cycles for insight in cycle.insights}


def context(loops: Loops, nodes: tuple[str, ...] | None = None) -> DomainContext:
    return DomainContext(
        nodes=nodes or tuple(domain.nodes(BABEL) or ()),
        supervisor=loops,
        rng=random.Random(1),
        trigger=loops.trigger,
    )


@asynccontextmanager
async def mesh(
    settings: MeshSettings = BABEL, *, heal: bool = True
) -> AsyncIterator[tuple[BabelSession, Loops]]:
    loops = Loops()
    async with domain.open(settings, context(loops)) as session:
        assert isinstance(session, BabelSession)
        loops.session = session
        try:
            if heal:
                for name in session.nodes:
                    await loops.restarted(name)
            # Until the detectors trust the links, they want longer runs of misses.
            await asyncio.sleep(1.5)
            yield session, loops
        finally:
            for runtime in tuple(loops.running.values()):
                await runtime.stop()


async def until(true: Callable[[], bool], what: str, *, limit: float = 15.0) -> None:
    end = time.monotonic() + limit
    while not true():
        assert time.monotonic() < end, f"not within {limit:g} s: {what}"
        await asyncio.sleep(0.02)


def fault(kind: str, target: str, **parameters: float) -> Fault:
    return Fault(number=1, kind=kind, target=target, at=0.0, duration=10.0, parameters=parameters)


@pytest.mark.usefixtures("lab_rights")
async def test_a_silent_one_way_blackhole_is_healed_and_judged_by_canaries_in_the_kernel() -> None:
    async with mesh() as (session, loops):
        await session.inject(fault("link.blackhole", "n1~n2"))
        await until(lambda: session.report().healed == 1, "the fault healed")
        during = session.route("n1", "n2")
        views = {f"{view.a}~{view.b}": view for view in session.links()}
        await until(lambda: ("repair.verified", "n1~n2") in loops.insights(), "the drain verified")
        await session.clear(fault("link.blackhole", "n1~n2"))
        report = session.report()

    assert len(during) > 2
    assert (views["n1~n2"].state, views["n1~n2"].fault) == ("drained", "link.blackhole")
    assert (report.injected, report.harmless, report.wrong_actions) == (1, 0, 0)
    assert 0 < report.delivered <= report.sent


@pytest.mark.usefixtures("lab_rights")
@pytest.mark.slow
async def test_a_crashed_node_forwards_nothing_and_is_restarted_by_its_lowest_neighbour() -> None:
    async with mesh() as (session, loops):
        before = session.lab.daemons["n2"].pid()
        await session.inject(fault("node.crash", "n2"))
        await until(lambda: session.report().healed == 1, "the fault healed")
        after = session.lab.daemons["n2"].pid()
        restarts = [
            (cycle.node_id, outcome.action.target)
            for cycle in loops.cycles
            for outcome in cycle.outcomes
            if outcome.action.name == "restart"
        ]
        report = session.report()
        await session.clear(fault("node.crash", "n2"))

    assert restarts == [("n1", "n2")]
    assert after not in (None, before)
    assert report.wrong_actions == 0


@pytest.mark.usefixtures("lab_rights")
@pytest.mark.slow
async def test_without_a_loop_a_crash_stays_until_it_is_cleared() -> None:
    async with mesh(heal=False) as (session, _):
        await session.inject(fault("node.crash", "n1"))
        await asyncio.sleep(1.5)
        dead = dict(session.alive())
        report = session.report()
        await session.clear(fault("node.crash", "n1"))
        await until(lambda: session.alive()["n1"], "the node alive")

    assert [name for name, alive in dead.items() if not alive] == ["n1"]
    assert (report.injected, report.healed) == (1, 0)


@pytest.mark.usefixtures("lab_rights")
@pytest.mark.parametrize("kind", ["link.down", "link.loss"])
@pytest.mark.slow
async def test_every_fault_of_a_link_is_there_and_goes_away(kind: str) -> None:
    async with mesh(heal=False) as (session, _):
        n1 = session.nodes["n1"]

        def lost() -> float:
            return max(r.loss_in for r in n1.links() if r.link == "n1~n3")

        def missed() -> int:
            return max(r.missed_in for r in n1.links() if r.link == "n1~n3")

        await session.inject(fault(kind, "n1~n3", loss=0.6))
        await until(lambda: lost() > 0.3 or missed() > 10, "the fault seen by probes")
        await session.clear(fault(kind, "n1~n3"))
        await until(lambda: next(r.good for r in n1.links() if r.link == "n1~n3") > 50, "a good link")

        assert session.chaos.fault_on("n1~n3") == ""


@pytest.mark.usefixtures("lab_rights")
async def test_the_session_is_what_the_service_asks_for_and_leaves_nothing() -> None:
    async with mesh(heal=False) as (session, _):
        namespaces = [NETNS / session.lab.namespace(name) for name in session.nodes]
        built = [_exists(path) for path in namespaces]
        schedule = session.schedule(7, 60.0)
        with pytest.raises(MapekError, match=r"fault kind 'link\.melted'"):
            await session.inject(fault("link.melted", "n1~n2"))
        with pytest.raises(MapekError, match=r"link\.down on 'n1~n6'; it must be one of n1~n2"):
            await session.inject(fault("link.down", "n1~n6"))
        with pytest.raises(EngineUnavailable, match="'node-1' does not run here"):
            session.plugins("node-1")

        assert isinstance(session, FaultInjector)
        assert isinstance(session, Topology)
        assert all(isinstance(node, Asks) for node in session.nodes.values())
        assert schedule == session.schedule(7, 60.0) != session.schedule(8, 60.0)
        assert all(0.5 <= each.parameters["loss"] <= 0.7 for each in schedule if each.kind == "link.loss")
        assert {node.notices_after for node in session.nodes.values()} == {0.8}
    assert all(built)
    assert not any(_exists(path) for path in namespaces)


def test_the_lab_names_its_nodes_and_the_udp_mesh_does_not() -> None:
    assert isinstance(domain, NamesNodes)
    assert domain.nodes(BABEL) == ("n1", "n2", "n3", "n4", "n5", "n6")
    assert domain.nodes(MeshSettings()) is None


async def test_other_nodes_than_the_labs_are_refused() -> None:
    with pytest.raises(ConfigError, match="leave out --nodes"):
        async with domain.open(BABEL, context(Loops(), ("node-1", "node-2"))):
            pass


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        (MeshSettings(engine="babel", listen="127.0.0.1:7001"), "listen"),
        (MeshSettings(engine="babel", peers={"b": "127.0.0.1:7002"}), "peers"),
        (MeshSettings(engine="babel", links=(("n1", "n2"),)), "links"),
        (MeshSettings(engine="babel", loss=0.1), "loss"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_settings_of_the_udp_mesh_are_refused(settings: MeshSettings, name: str) -> None:
    with pytest.raises(ConfigError, match=rf"\[mesh\] {name} belongs to the UDP mesh"):
        async with domain.open(settings, context(Loops())):
            pass


async def test_missing_programs_are_named_with_how_to_get_them_and_what_the_default_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(rights, "_SBIN", ())
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(EngineUnavailable, match=r"not installed: babeld.*apt-get install.*UDP mesh"):
        async with domain.open(MeshSettings(engine="babel", babel=BabelEngine(hello=1.0)), context(Loops())):
            pass


def _exists(path: Path) -> bool:
    return path.exists()
