"""The nodes of some processes over an etcd in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from mapek_domains.raft.etcd.client import EtcdClient
from mapek_domains.raft.etcd.nodes import EtcdNodes
from mapek_domains.raft.etcd.session import EtcdSession
from mapek_domains.raft.etcd.settings import EtcdEngine
from mapek_runtime.loop.domain import Grant
from tests.unit.raft_etcd.memory_etcd import MemoryEtcd, MemoryServer

__all__ = ["PREFIX", "Router", "eventually", "leader", "process", "processes"]

PREFIX = "/mapek"


@asynccontextmanager
async def process(
    etcd: MemoryEtcd,
    *nodes: str,
    servers: Sequence[MemoryServer] = (),
    patience: float = 1.0,
    fleet: tuple[str, ...] = (),
) -> AsyncIterator[EtcdSession]:
    """One process with these nodes, as `open_etcd` makes it."""
    settings = EtcdEngine(prefix=PREFIX, fleet=fleet)
    client = EtcdClient(servers or [MemoryServer(etcd)], interval=settings.lease / 4)
    engine = EtcdNodes(nodes, settings, client, trouble=lambda: client.trouble)
    async with asyncio.TaskGroup() as group:
        await engine.start(group)
        try:
            yield EtcdSession(engine, nodes, patience=patience)
        finally:
            await engine.stop()


@asynccontextmanager
async def processes(
    etcd: MemoryEtcd, *nodes: str, fleet: tuple[str, ...] = ()
) -> AsyncIterator[tuple[EtcdSession, ...]]:
    """A process for each of these nodes."""
    async with AsyncExitStack() as stack:
        yield tuple([await stack.enter_async_context(process(etcd, node, fleet=fleet)) for node in nodes])


async def eventually(condition: Callable[[], object], limit: float = 30.0) -> None:
    """Wait until it holds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + limit
    while not condition():
        assert loop.time() < deadline, f"not within {limit:g} s"
        await asyncio.sleep(0.01)


async def leader(session: EtcdSession, node_id: str, *others: str | None) -> str:
    """Who leads, as that node knows, once somebody does who is none of `others`."""
    await eventually(lambda: session.leader(node_id) not in {None, *others})
    found = session.leader(node_id)
    assert found is not None
    return found


class Router:
    """Implements `Consensus` over the processes of all nodes: each node asks its own."""

    def __init__(self, sessions: Mapping[str, EtcdSession]) -> None:
        self._sessions = sessions

    def leader(self, node_id: str) -> str | None:
        return self._sessions[node_id].leader(node_id)

    async def claim(self, node_id: str, key: str, *, hold: float, leader_only: bool = False) -> Grant:
        return await self._sessions[node_id].claim(node_id, key, hold=hold, leader_only=leader_only)

    async def release(self, node_id: str, key: str, *, fence: int) -> None:
        await self._sessions[node_id].release(node_id, key, fence=fence)

    def claims(self, node_id: str, prefix: str = "") -> Mapping[str, str]:
        return self._sessions[node_id].claims(node_id, prefix)

    async def configure(self, node_id: str, name: str, value: str, *, expected: int | None = None) -> int:
        return await self._sessions[node_id].configure(node_id, name, value, expected=expected)

    def configured(self, node_id: str, name: str) -> tuple[str, int]:
        return self._sessions[node_id].configured(node_id, name)
