"""The mesh as a domain: what the entry point `mapek.domains` finds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from mapek_runtime.errors import ConfigError
from mapek_runtime.loop.domain import DomainContext

from .session import MeshSession
from .settings import MeshSettings, check_engine
from .udp.demo import DemoSession
from .udp.node import UdpNode
from .udp.session import RealSession, UdpSession

if TYPE_CHECKING:
    from .babel.node import BabelNode
    from .babel.session import BabelSession

__all__ = ["MeshDomain", "domain"]


class MeshDomain:
    """One node of a real UDP mesh, several on loopback, or six with babeld in a lab."""

    name = "mesh"
    settings = MeshSettings

    def nodes(self, settings: MeshSettings) -> Sequence[str] | None:
        """The nodes of the lab where the engine is Babel; else the runtime names them."""
        if settings.engine == "udp":
            return None
        # The lab is Linux's alone.
        from .lab import SIX_NODES

        return SIX_NODES.nodes

    @asynccontextmanager
    async def open(
        self, settings: MeshSettings, context: DomainContext
    ) -> AsyncIterator[MeshSession[UdpNode] | MeshSession[BabelNode]]:
        """Start sockets, daemons and tasks; everything ends when the block is left.

        Raises `ConfigError` for settings that cannot be, and `EngineUnavailable` where Babel cannot
        run: it says what is missing.
        """
        check_engine(settings)
        if settings.engine == "udp":
            async with _udp(settings, context) as udp:
                yield udp
        else:
            async with _babel(settings, context) as babel:
                yield babel


@asynccontextmanager
async def _udp(settings: MeshSettings, context: DomainContext) -> AsyncIterator[UdpSession]:
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


@asynccontextmanager
async def _babel(settings: MeshSettings, context: DomainContext) -> AsyncIterator[BabelSession]:
    from .babel.session import BabelSession, lab_settings
    from .lab import SIX_NODES, Lab, require, sweep

    if context.nodes != SIX_NODES.nodes:
        raise ConfigError(
            f"[mesh] engine 'babel' runs the nodes {', '.join(SIX_NODES.nodes)} of its lab, and "
            f"{', '.join(context.nodes)} are to run; leave out --nodes (node.count) and node.id"
        )
    await asyncio.to_thread(require)
    await sweep()
    async with (
        Lab(SIX_NODES, lab_settings(settings)) as lab,
        BabelSession(lab, context, settings) as session,
    ):
        await session.converged(10.0 + 5 * settings.babel.hello + 2 * settings.babel.update)
        yield session


domain = MeshDomain()
