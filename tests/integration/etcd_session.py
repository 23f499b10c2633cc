"""Sessions of the etcd engine, for tests: what they are opened with, and what is waited for."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from mapek_domains.raft.etcd.session import EtcdSession, open_etcd
from mapek_domains.raft.etcd.settings import EtcdEngine
from mapek_domains.raft.session import RaftSession
from mapek_domains.raft.settings import RaftSettings
from mapek_runtime.loop.domain import DomainContext
from tests.integration.etcd_cluster import EtcdCluster, EtcdServer

__all__ = ["context", "eventually", "leader", "serving", "session"]


class Nobody:
    """A supervisor of no loops."""

    async def crashed(self, _node_id: str) -> None:
        return

    async def restarted(self, _node_id: str) -> None:
        return


def context(*nodes: str) -> DomainContext:
    """That of a process with these nodes."""
    return DomainContext(nodes=nodes, supervisor=Nobody(), rng=random.Random(7))


@asynccontextmanager
async def session(
    cluster: EtcdCluster, prefix: str, *nodes: str, patience: float = 10.0, **more: Any
) -> AsyncIterator[EtcdSession]:
    """The session of a process with these nodes; `more` is set for the engine."""
    engine = EtcdEngine(endpoints=cluster.endpoints, prefix=prefix, dial=30.0, **more)
    settings = RaftSettings(engine="etcd", patience=patience, etcd=engine)
    async with open_etcd(settings, context(*nodes)) as opened:
        yield opened


async def eventually(condition: Callable[[], object], limit: float = 60.0) -> None:
    """Wait until it holds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + limit
    while not condition():
        assert loop.time() < deadline, f"not within {limit:g} s"
        await asyncio.sleep(0.01)


async def leader(session: RaftSession, node_id: str, *others: str | None) -> str:
    """Who leads, as that node knows, once somebody does who is none of `others`."""
    await eventually(lambda: session.leader(node_id) not in {None, *others})
    found = session.leader(node_id)
    assert found is not None
    return found


def serving(cluster: EtcdCluster, consensus: EtcdSession) -> EtcdServer:
    """The server that the session asks now."""
    client = consensus.engine._store
    address = client._servers[client._at].address  # type: ignore[attr-defined]
    return next(server for server in cluster.servers if server.endpoint == address)
