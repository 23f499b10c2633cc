"""The UDP mesh while it is open: the nodes of this process, their plugins, and the messages over them.

`RealSession` serves one node of a real deployment; `demo` runs several nodes with emulated links.
"""

from __future__ import annotations

import asyncio
import random
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextvars import Context

from mapek_domains.mesh.settings import MeshSettings, peer_addresses
from mapek_runtime.errors import ConfigError
from mapek_runtime.loop.domain import DomainContext

from .messenger import MessengerSession
from .node import UdpNode
from .port import parse_address, resolved

__all__ = ["RealSession", "UdpSession"]


class UdpSession(MessengerSession[UdpNode], ABC):
    """The nodes of this process, each with a socket of its own."""

    def __init__(self, context: DomainContext) -> None:
        super().__init__(context)
        self._nodes: dict[str, UdpNode] = {}
        self.nodes: Mapping[str, UdpNode] = self._nodes
        self._tasks: list[asyncio.Task[None]] = []

    # Messenger

    def reachable(self, node_id: str) -> Sequence[str]:
        """The other nodes to which `node_id` knows a way now; none while it is down."""
        node = self._node(node_id)
        if not node.running:
            return ()
        return [name for name, reached in node.nodes().items() if reached and name != node_id]

    # Life

    @abstractmethod
    async def bind(self) -> None:
        """Make the nodes and bind their sockets; raises `ConfigError` where one cannot be."""

    def start(self, group: asyncio.TaskGroup) -> None:
        """Start the nodes, as tasks of `group`."""
        self._tasks += [self._spawn(group, node) for node in self.nodes.values()]

    def stop(self) -> None:
        """End the tasks of the mesh."""
        for task in self._tasks:
            task.cancel()

    def close(self) -> None:
        """Close every socket."""
        for node in self.nodes.values():
            node.close()

    def _spawn(self, group: asyncio.TaskGroup, node: UdpNode) -> asyncio.Task[None]:
        # Born in an empty context, or its spans would be children of whatever is open here.
        return group.create_task(node.run(), name=f"mesh {node.node_id}", context=Context())


class RealSession(UdpSession):
    """One node of a real deployment: its socket, and neighbours in other processes."""

    def __init__(self, context: DomainContext, settings: MeshSettings) -> None:
        super().__init__(context)
        if len(context.nodes) != 1:
            raise ConfigError(
                f"[mesh] listen and peers describe one node, and {len(context.nodes)} are to run here; "
                "give [mesh] links for several, or start one process for each node"
            )
        if not settings.listen:
            raise ConfigError(
                "[mesh] has peers and no listen; it must be HOST:PORT, such as '127.0.0.1:7001'"
            )
        self._settings = settings
        self._listen = parse_address(settings.listen, where="[mesh] listen")
        self._peers = peer_addresses(settings, context.nodes[0])

    async def bind(self) -> None:
        """Bind the socket and name the neighbours; raises `ConfigError` for a port that is taken."""
        (node_id,) = self._context.nodes
        node = UdpNode(
            node_id,
            rng=random.Random(self._context.rng.getrandbits(64)),
            interval=self._settings.probe_interval,
            on_action=self._on_action,
            alarm=self._context.trigger,
        )
        self._nodes[node_id] = node
        await node.open(self._listen)
        node.connect(await resolved(self._peers))
