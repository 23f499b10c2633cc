"""The groups that `benchmarks.raft` asks: five nodes on the UDP mesh, and five over three etcd servers."""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from mapek_domains.mesh.plugin import domain as mesh_domain
from mapek_domains.mesh.settings import MeshSettings
from mapek_domains.mesh.udp.demo import DemoSession
from mapek_domains.raft.plugin import domain as raft_domain
from mapek_domains.raft.session import RaftSession
from mapek_domains.raft.settings import EtcdEngine, RaftSettings
from mapek_runtime.errors import NoConsensus
from mapek_runtime.loop.domain import DomainContext, Find, Grant

__all__ = [
    "CLAIMS",
    "LEADS",
    "NODES",
    "ByEtcd",
    "Embedded",
    "Group",
    "Told",
    "by_etcd",
    "embedded",
    "mesh_alone",
]

NODES = ("node-1", "node-2", "node-3", "node-4", "node-5")
LEADS, CLAIMS = "another node leads", "a claim is granted"
_LIMIT = 30.0
_P = TypeVar("_P")


class Group(Protocol):
    """Nodes that agree, and a way to kill who leads them."""

    session: RaftSession

    def leader(self) -> str:
        """The node that leads."""

    async def kill(self) -> Mapping[str, float]:
        """Kill who leads; by what came of it, after how many seconds. When it returns all run again."""


class Embedded:
    """Nodes of the mesh that keep the log themselves."""

    def __init__(self, mesh: DemoSession, session: RaftSession) -> None:
        self.mesh = mesh
        self.session = session
        self._rng = random.Random(2)

    def leader(self) -> str:
        """The node that leads."""
        leader = self._leader()
        assert leader is not None, "nobody leads"
        return leader

    async def kill(self) -> Mapping[str, float]:
        """End the node that leads: its socket, and its copy of the log in memory."""
        loop, killed = asyncio.get_running_loop(), self.leader()
        survivor = next(node for node in NODES if node != killed)
        began = loop.time()
        await self.mesh.crash(killed)
        await wait(lambda: self._leader() not in {None, killed})
        led = loop.time() - began
        await granted(self.session, survivor, f"after {killed} at {began}")
        answered = loop.time() - began
        await self.mesh.restart(killed)
        await wait(self.agreed)
        await wait(lambda: all(len(self.mesh.reachable(node)) == len(NODES) - 1 for node in NODES))
        await asyncio.sleep(self._rng.uniform(0.2, 0.7))
        return {LEADS: led, CLAIMS: answered}

    def agreed(self) -> bool:
        """Whether all nodes know the same leader, in the same term, and the same last entry."""
        standings = [self.session.engine.standing(node) for node in NODES]
        return (
            standings[0].leader is not None
            and len({(s.leader, s.term, s.commit_index) for s in standings}) == 1
        )

    def _leader(self) -> str | None:
        standings = [(self.session.engine.standing(node), node) for node in NODES]
        leading = [(standing.term, node) for standing, node in standings if standing.leader == node]
        return max(leading)[1] if leading else None


class ByEtcd:
    """Nodes that leave it to three servers."""

    def __init__(self, cluster: Any, session: RaftSession) -> None:
        # Of the tests, which are not installed with the package.
        self._cluster = cluster
        self._rng = random.Random(2)
        self.session = session

    def leader(self) -> str:
        """The node that leads, which is no server."""
        leader = self.session.leader(NODES[0])
        assert leader is not None, "nobody leads"
        return leader

    async def kill(self) -> Mapping[str, float]:
        """Kill the server that leads them; then end the node that leads, while the server comes back."""
        server = await asyncio.to_thread(self._cluster.leader)
        loop = asyncio.get_running_loop()
        began = loop.time()
        server.kill()
        await granted(self.session, NODES[0], f"after {server.name} at {began}")
        answered = loop.time() - began
        restored = asyncio.create_task(asyncio.to_thread(self._cluster.restore))
        # The node's lease is to be of any age when it is lost, and not as new as after an election.
        await asyncio.sleep(self._rng.uniform(0.3, 0.8))
        # A server that was long without a leader has given the nodes up.
        await wait(lambda: self.session.leader(NODES[0]) is not None)
        killed = self.leader()
        survivor = next(node for node in NODES if node != killed)
        began = loop.time()
        self.session.crashed(killed)
        await wait(lambda: self.session.leader(survivor) not in {None, killed})
        led = loop.time() - began
        self.session.restarted(killed)
        await restored
        return {LEADS: led, "the leading server is killed, and a claim is granted": answered}


@asynccontextmanager
async def mesh_alone() -> AsyncIterator[tuple[Told, DemoSession, DomainContext]]:
    """The mesh of five nodes without traffic, and the context for what is opened beside it."""
    async with AsyncExitStack() as stack:
        state = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mapek-raft-")))
        told = Told()
        context = DomainContext(nodes=NODES, supervisor=told, rng=random.Random(1), state=state)
        mesh = await stack.enter_async_context(mesh_domain.open(MeshSettings(traffic=0.0), context))
        assert isinstance(mesh, DemoSession)
        yield told, mesh, replace(context, find=_finding(mesh))


@asynccontextmanager
async def embedded(settings: RaftSettings | None = None) -> AsyncIterator[Embedded]:
    """Five nodes on loopback, settled, with their journals on disk."""
    async with (
        mesh_alone() as (told, mesh, context),
        raft_domain.open(settings or RaftSettings(), context) as session,
    ):
        assert isinstance(session, RaftSession)
        told.session = session
        group = Embedded(mesh, session)
        await wait(group.agreed)
        await asyncio.sleep(1.0)
        yield group


@asynccontextmanager
async def by_etcd() -> AsyncIterator[ByEtcd]:
    """Five nodes over three servers on loopback; raises `EngineUnavailable` where there is no etcd."""
    from tests.integration.etcd_cluster import EtcdCluster, require_etcd

    require_etcd()
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mapek-etcd-")))
        cluster = await asyncio.to_thread(EtcdCluster(folder).__enter__)
        stack.callback(cluster.close)
        settings = RaftSettings(engine="etcd", etcd=EtcdEngine(endpoints=cluster.endpoints))
        context = DomainContext(nodes=NODES, supervisor=Told(), rng=random.Random(1))
        session = await stack.enter_async_context(raft_domain.open(settings, context))
        assert isinstance(session, RaftSession)
        await wait(lambda: session.leader(NODES[0]) is not None)
        yield ByEtcd(cluster, session)


async def granted(session: RaftSession, node: str, key: str) -> Grant:
    """Claim until it is granted."""
    while True:
        try:
            grant = await session.claim(node, key, hold=1.0)
        except NoConsensus:
            continue
        if grant.granted:
            return grant
        await asyncio.sleep(0.001)


async def wait(true: Callable[[], bool]) -> None:
    """Until a condition holds; looked at every millisecond."""
    end = asyncio.get_running_loop().time() + _LIMIT
    while not true():
        assert asyncio.get_running_loop().time() < end, f"it did not come true within {_LIMIT:g} s"
        await asyncio.sleep(0.001)


class Told:
    """Tells the consensus of a crash, as the service does."""

    def __init__(self) -> None:
        self.session: RaftSession | None = None

    async def crashed(self, node_id: str) -> None:
        """The node is gone."""
        if self.session is not None:
            self.session.crashed(node_id)

    async def restarted(self, node_id: str) -> None:
        """It is back."""
        if self.session is not None:
            self.session.restarted(node_id)


def _finding(mesh: DemoSession) -> Find:
    def find(protocol: type[_P], /) -> _P | None:
        return mesh if isinstance(mesh, protocol) else None

    return find
