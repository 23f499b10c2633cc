"""Raft as a domain: what the entry point `mapek.domains` finds."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mapek_runtime.loop.domain import DomainContext

from .session import AloneSession, RaftSession
from .settings import RaftSettings, members_of

__all__ = ["RaftDomain", "domain"]

logger = logging.getLogger(__name__)


class RaftDomain:
    """Consensus among the nodes themselves, or by an etcd cluster."""

    name = "raft"
    settings = RaftSettings

    @asynccontextmanager
    async def open(
        self, settings: RaftSettings, context: DomainContext
    ) -> AsyncIterator[RaftSession | AloneSession]:
        """Start what keeps the agreement; everything ends when the block is left.

        Raises `ConfigError` for settings that cannot be, and `EngineUnavailable` where etcd cannot be
        reached. One node that was told of no others agrees with nobody: it goes on without consensus.
        """
        if settings.engine == "etcd":
            # Its package is an extra.
            from .etcd.session import open_etcd

            async with open_etcd(settings, context) as session:
                yield session
            return
        members = members_of(settings, context.nodes)
        if not members:
            yield _alone(context)
            return
        # PySyncObj is loaded where it is used.
        from .embedded.engine import embedded

        async with embedded(settings, context, members) as engine:
            yield RaftSession(engine, context.nodes, patience=settings.patience)


def _alone(context: DomainContext) -> AloneSession:
    reason = f"{context.nodes[0]} runs here alone, and [raft] members names no others to agree with"
    logger.warning("raft: nothing is agreed upon: %s; name all nodes of the group in [raft] members", reason)
    context.emit("raft.off", {"reason": reason})
    return AloneSession()


domain = RaftDomain()
