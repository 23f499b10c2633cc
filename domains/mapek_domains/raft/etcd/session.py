"""The etcd engine while it is open: a `Consensus` for the nodes here, and their shares of a fleet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mapek_domains.raft.session import RaftSession
from mapek_domains.raft.settings import RaftSettings
from mapek_runtime.loop.domain import DomainContext

from .client import opened
from .nodes import EtcdNodes

__all__ = ["EtcdSession", "open_etcd"]


@asynccontextmanager
async def open_etcd(settings: RaftSettings, context: DomainContext) -> AsyncIterator[EtcdSession]:
    """Connect and start; everything ends when the block is left.

    Raises `ConfigError` for settings that cannot be, and `EngineUnavailable` where aetcd is not installed or
    no cluster answers: it says what is missing, and how to get it.
    """
    async with opened(settings.etcd, ",".join(context.nodes)) as client:
        nodes = EtcdNodes(context.nodes, settings.etcd, client, trouble=lambda: client.trouble)
        failure: Exception | None = None
        async with asyncio.TaskGroup() as group:
            try:
                await nodes.start(group)
                yield EtcdSession(nodes, context.nodes, patience=settings.patience)
            except Exception as error:  # noqa: BLE001 - raised again below, and not as a group
                failure = error
            finally:
                await nodes.stop()
        if failure is not None:
            raise failure


class EtcdSession(RaftSession):
    """The session of the etcd engine; beside consensus it says which node manages which target."""

    engine: EtcdNodes

    def owned(self, node_id: str) -> frozenset[str]:
        """What of `[raft.etcd] fleet` that node manages now; no target is ever managed by two."""
        self._check_node(node_id)
        return self.engine.owned(node_id)

    async def own(self, node_id: str) -> AsyncIterator[frozenset[str]]:
        """The same as it is now, and again whenever it has changed."""
        self._check_node(node_id)
        last: frozenset[str] | None = None

        def has_changed() -> bool:
            return self.engine.owned(node_id) != last

        while True:
            await self.engine.view.until(has_changed)
            last = self.engine.owned(node_id)
            yield last
