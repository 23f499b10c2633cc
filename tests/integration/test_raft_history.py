"""Real groups under faults, their histories judged: over the UDP mesh, and over three etcd servers.

All nodes claim, release and configure all the time, while links are cut, the leader is killed and brought
back; what they were told must be explained by one order, with one leader a term, and nothing that was
answered may be lost. Nothing here asserts how fast that goes: `python -m benchmarks.raft` measures it.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from itertools import combinations
from pathlib import Path

import pytest

from mapek_domains.mesh.plugin import domain as mesh_domain
from mapek_domains.mesh.settings import MeshSettings
from mapek_domains.mesh.udp.demo import DemoSession
from mapek_domains.raft.plugin import domain as raft_domain
from mapek_domains.raft.session import RaftSession
from mapek_domains.raft.settings import EtcdEngine, RaftSettings
from mapek_runtime.errors import EngineUnavailable
from mapek_runtime.loop.domain import DomainContext
from tests.integration.etcd_cluster import EtcdCluster, require_etcd
from tests.raft_client import Client, busy
from tests.raft_group import NODES, Nobody, electing, finding, until
from tests.raft_history import Recording
from tests.raft_rules import judge

pytestmark = pytest.mark.slow

KEYS = ("drain node-1~node-2", "restart node-3", "goal", "drain node-4~node-5")
NAMES = ("weights", "threshold")
COUNTER = "rounds"
LIMIT = 60.0
A_WHILE = 0.3
"""Seconds in which the nodes ask, between one fault and the next."""
ELECTED = re.compile(r"elected leader (\w+) at term (\d+)")


class Crashes:
    """Tells the consensus of a crash, as the service does."""

    def __init__(self) -> None:
        self.session: RaftSession | None = None
        self.down: set[str] = set()

    async def crashed(self, node_id: str) -> None:
        self.down.add(node_id)
        if self.session is not None:
            self.session.crashed(node_id)

    async def restarted(self, node_id: str) -> None:
        self.down.discard(node_id)
        if self.session is not None:
            self.session.restarted(node_id)


class Meshed:
    """Five nodes of the UDP mesh in this process, that agree by the embedded engine."""

    def __init__(
        self, mesh: DemoSession, session: RaftSession, crashes: Crashes, leaders: set[tuple[int, str]]
    ) -> None:
        self.mesh = mesh
        self.session = session
        self.crashes = crashes
        self.recording = Recording(session)
        self.leaders = leaders

    def runs(self, node: str) -> bool:
        return node not in self.crashes.down

    def leader(self) -> str | None:
        """Who leads in the newest term, as it says itself."""
        leading = [
            (standing.term, node)
            for node in NODES
            if self.runs(node) and (standing := self.session.engine.standing(node)).leader == node
        ]
        self.leaders.update(leading)
        return max(leading)[1] if leading else None

    def agreed(self) -> bool:
        standings = [self.session.engine.standing(node) for node in NODES if self.runs(node)]
        return self.leader() is not None and len({(s.leader, s.term) for s in standings}) == 1

    def cut(self, island: set[str]) -> None:
        """Take down every link between the island and the others; an empty island mends all."""
        for a, b in combinations(NODES, 2):
            self.mesh.emulator.set_down(a, b, (a in island) != (b in island))

    async def restart(self, node: str) -> None:
        self.recording.restarted(node)
        await self.mesh.restart(node)


@asynccontextmanager
async def meshed(state: Path, settings: RaftSettings) -> AsyncIterator[Meshed]:
    crashes = Crashes()
    leaders: set[tuple[int, str]] = set()
    context = DomainContext(
        nodes=NODES, supervisor=crashes, rng=random.Random(1), state=state, emit=electing(leaders)
    )
    # All are linked to all: whichever are cut off, the others hear one another.
    links = tuple(combinations(NODES, 2))
    async with mesh_domain.open(MeshSettings(traffic=0.0, links=links), context) as mesh:
        assert isinstance(mesh, DemoSession)
        async with raft_domain.open(settings, replace(context, find=finding(mesh))) as session:
            assert isinstance(session, RaftSession)
            crashes.session = session
            group = Meshed(mesh, session, crashes, leaders)
            await until(group.agreed, "the nodes elect a leader")
            yield group


@asynccontextmanager
async def asking(recording: Recording, runs: Callable[[str], bool]) -> AsyncIterator[None]:
    """Every node asks for something all the time."""
    async with asyncio.TaskGroup() as tasks:
        running = [
            tasks.create_task(
                busy(
                    Client(recording, node, partial(runs, node)),
                    random.Random(node),
                    keys=KEYS,
                    names=NAMES,
                    pause=0.03,
                ),
                context=contextvars.Context(),
            )
            for node in NODES
        ]
        try:
            yield
        finally:
            for task in running:
                task.cancel()


async def commit(recording: Recording, node: str, value: str) -> int:
    """Agree on a value, asked for until it is answered; the epoch."""
    async with asyncio.timeout(LIMIT):
        while (epoch := await recording.configure(node, COUNTER, value)) is None:
            pass
    return epoch


@pytest.mark.parametrize("crashes", [4, pytest.param(20, marks=pytest.mark.slow)])
async def test_a_killed_leader_takes_nothing_with_it(tmp_path: Path, crashes: int) -> None:
    async with meshed(tmp_path, RaftSettings()) as group:
        recording, epoch = group.recording, 0
        async with asking(recording, group.runs):
            for number in range(crashes):
                leader = group.leader()
                assert leader is not None
                epoch = await commit(recording, leader, f"round {number}")
                await group.mesh.crash(leader)
                await until(lambda: group.leader() not in {None, leader}, "another one leads")  # noqa: B023
                await group.restart(leader)
                await until(group.agreed, "the old leader follows")
                await asyncio.sleep(A_WHILE)
        await everywhere(group.session, epoch, f"round {crashes - 1}")

        judge(recording.operations, restarts=recording.restarts, leaders=group.leaders)
        assert len(group.leaders) > crashes


@pytest.mark.parametrize("rounds", [4, pytest.param(30, marks=pytest.mark.slow)])
async def test_a_mesh_that_falls_apart_decides_nothing_twice(tmp_path: Path, rounds: int) -> None:
    rng = random.Random(7)
    async with meshed(tmp_path, RaftSettings()) as group:
        recording, epoch = group.recording, 0
        async with asking(recording, group.runs):
            for number in range(rounds):
                leader = group.leader()
                island = (
                    {leader, rng.choice(NODES)} if leader and number % 2 == 0 else set(rng.sample(NODES, 2))
                )
                group.cut(island)
                most = [node for node in NODES if node not in island]
                epoch = await commit(recording, most[0], f"round {number}")
                await asyncio.sleep(A_WHILE)
                group.cut(set())
                await until(group.agreed, "all follow one leader")
        await everywhere(group.session, epoch, f"round {rounds - 1}")

        judge(recording.operations, restarts=recording.restarts, leaders=group.leaders)


async def everywhere(session: RaftSession, epoch: int, value: str) -> None:
    """All nodes come to know what was agreed upon last, and that it was agreed upon so often."""
    await until(
        lambda: {session.configured(node, COUNTER) for node in NODES} == {(value, epoch)},
        f"all nodes know {value!r}, epoch {epoch}",
    )


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    try:
        require_etcd()
    except EngineUnavailable as error:
        pytest.skip(str(error))
    with EtcdCluster(tmp_path_factory.mktemp("etcd")) as servers:
        yield servers


def etcd_settings(cluster: EtcdCluster, prefix: str) -> RaftSettings:
    return RaftSettings(
        engine="etcd", patience=3.0, etcd=EtcdEngine(endpoints=cluster.endpoints, prefix=f"/{prefix}")
    )


@asynccontextmanager
async def over_etcd(settings: RaftSettings) -> AsyncIterator[RaftSession]:
    context = DomainContext(nodes=NODES, supervisor=Nobody(), rng=random.Random(1))
    async with raft_domain.open(settings, context) as session:
        assert isinstance(session, RaftSession)
        await until(lambda: session.leader(NODES[0]) is not None, "one of the nodes leads")
        yield session


class Led:
    """Who of the nodes led, in which term, as they are seen to; and a crash of the one that leads."""

    def __init__(self, session: RaftSession, recording: Recording) -> None:
        self.session = session
        self.recording = recording
        self.leaders: set[tuple[int, str]] = set()
        self.down: set[str] = set()

    def runs(self, node: str) -> bool:
        return node not in self.down

    def leader(self) -> str | None:
        for node in filter(self.runs, NODES):
            standing = self.session.engine.standing(node)
            if standing.leader is not None:
                self.leaders.add((standing.term, standing.leader))
                return standing.leader
        return None

    def crash(self, node: str) -> None:
        self.down.add(node)
        self.session.crashed(node)

    def restart(self, node: str) -> None:
        self.down.discard(node)
        self.recording.restarted(node)
        self.session.restarted(node)


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
async def test_a_killed_etcd_leader_takes_nothing_with_it(cluster: EtcdCluster, kills: int) -> None:
    async with over_etcd(etcd_settings(cluster, f"servers-{kills}")) as session:
        recording, epoch = Recording(session), 0
        led = Led(session, recording)
        async with asking(recording, led.runs):
            for number in range(kills):
                server = await asyncio.to_thread(cluster.leader)
                epoch = await commit(recording, NODES[0], f"round {number}")
                await asyncio.to_thread(server.kill)
                await commit(recording, NODES[1], f"round {number}, without {server.name}")
                await asyncio.to_thread(cluster.restore)
                led.leader()
        epoch = await commit(recording, NODES[2], "the end")
        await everywhere(session, epoch, "the end")
        assert epoch == 2 * kills + 1

        judge(recording.operations, restarts=recording.restarts, leaders=led.leaders)
    assert len(elected(cluster)) > kills
    judge([], leaders=elected(cluster))


@pytest.mark.parametrize("crashes", [2, pytest.param(20, marks=pytest.mark.slow)])
async def test_a_leading_node_that_crashes_is_followed_by_another(cluster: EtcdCluster, crashes: int) -> None:
    async with over_etcd(etcd_settings(cluster, f"nodes-{crashes}")) as session:
        recording = Recording(session)
        led = Led(session, recording)
        async with asking(recording, led.runs):
            for _ in range(crashes):
                leader = led.leader()
                assert leader is not None
                led.crash(leader)
                await until(lambda: led.leader() not in {None, leader}, "another one leads")  # noqa: B023
                led.restart(leader)

        judge(recording.operations, restarts=recording.restarts, leaders=led.leaders)
        assert len(led.leaders) > crashes


def elected(cluster: EtcdCluster) -> set[tuple[int, str]]:
    """(term, server) of each election, as the servers' logs tell them."""
    return {
        (int(term), server)
        for log in cluster.servers
        for server, term in ELECTED.findall(log.log.read_text(errors="replace"))
    }
