"""The mesh as a domain: what the entry point `mapek.domains` finds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mapek_runtime.loop.domain import DomainContext

from .settings import MeshSettings
from .udp.demo import DemoSession
from .udp.session import MeshSession, RealSession

__all__ = ["MeshDomain", "domain"]


class MeshDomain:
    """The UDP mesh: one node of a real deployment, or several on loopback."""

    name = "mesh"
    settings = MeshSettings

    @asynccontextmanager
    async def open(self, settings: MeshSettings, context: DomainContext) -> AsyncIterator[MeshSession]:
        """Start sockets and tasks; everything ends when the block is left.

        Raises `ConfigError` for settings that cannot be.
        """
        real = settings.listen or settings.peers
        session = RealSession(context, settings) if real else DemoSession(context, settings)
        failure: Exception | None = None
        try:
            await session.bind()
            async with asyncio.TaskGroup() as group:
                session.start(group)
                try:
                    yield session
                except Exception as error:  # noqa: BLE001 - raised again below, and not as a group
                    failure = error
                finally:
                    session.stop()
            if failure is not None:
                raise failure
        finally:
            session.close()


domain = MeshDomain()
