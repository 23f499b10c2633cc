"""The mesh as a domain: what the entry point `mapek.domains` finds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mapek_runtime.errors import ConfigError
from mapek_runtime.loop.domain import DomainContext

from .port import parse_address
from .session import DemoSession, MeshSession
from .settings import MeshSettings, peer_addresses, topology_of

__all__ = ["MeshDomain", "domain"]


class MeshDomain:
    """The UDP mesh: one node of a real deployment, or several on loopback."""

    name = "mesh"
    settings = MeshSettings

    @asynccontextmanager
    async def open(self, settings: MeshSettings, context: DomainContext) -> AsyncIterator[MeshSession]:
        """Start sockets and tasks; everything ends when the block is left."""
        session = (
            MeshSession(context)
            if settings.listen or settings.peers
            else DemoSession(context, settings, topology_of(settings, context.nodes))
        )
        try:
            async with asyncio.TaskGroup() as group:
                if isinstance(session, DemoSession):
                    await session.start(group)
                else:
                    await _start_node(session, group, settings, context)
                try:
                    yield session
                finally:
                    session.stop()
        finally:
            session.close()


async def _start_node(
    session: MeshSession, group: asyncio.TaskGroup, settings: MeshSettings, context: DomainContext
) -> None:
    if len(context.nodes) != 1:
        raise ConfigError(
            f"[mesh] listen and peers describe one node, and {len(context.nodes)} are to run here; "
            "give [mesh] links for several, or start one process for each node"
        )
    if not settings.listen:
        raise ConfigError("[mesh] has peers and no listen; it must be HOST:PORT, such as '127.0.0.1:7001'")
    (node_id,) = context.nodes
    listen = parse_address(settings.listen, where="[mesh] listen")
    await session.start_one(
        group, node_id, settings, listen=listen, peers=peer_addresses(settings, node_id)
    )


domain = MeshDomain()
