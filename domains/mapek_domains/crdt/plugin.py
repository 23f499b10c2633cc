"""Shared knowledge as a domain: what the entry point `mapek.domains` finds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from mapek_runtime.loop.domain import DomainContext

from .session import CrdtSession
from .settings import CrdtSettings, check_nodes

__all__ = ["CrdtDomain", "domain"]


class CrdtDomain:
    """Knowledge replicated between nodes without a master, over the mesh's messages and over WebSocket."""

    name = "crdt"
    settings = CrdtSettings

    @asynccontextmanager
    async def open(self, settings: CrdtSettings, context: DomainContext) -> AsyncIterator[CrdtSession]:
        """Start the replicas; everything ends, and is on disk, when the block is left.

        Raises `ConfigError` for an address that cannot be listened on.
        """
        check_nodes(context.nodes)
        session = CrdtSession(settings, context)
        failure: Exception | None = None
        async with AsyncExitStack() as stack:
            stack.push_async_callback(session.aclose)
            group = await stack.enter_async_context(asyncio.TaskGroup())
            session.start(group)
            stack.callback(session.stop)
            try:
                if settings.listen:
                    from .websocket import SocketServer

                    server = await stack.enter_async_context(SocketServer(settings, session.replica))
                    session.address = server.address
                yield session
            except Exception as error:  # noqa: BLE001 - raised again below, and not as a group
                failure = error
        if failure is not None:
            raise failure


domain = CrdtDomain()
