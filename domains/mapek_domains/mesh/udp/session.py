"""The mesh while it is open: the nodes of this process, their plugins, and the messages over them.

`RealSession` serves one node of a real deployment; `demo` runs several nodes with emulated links.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import Context

from mapek_domains.mesh.heal import MeshHealer
from mapek_domains.mesh.settings import MeshSettings, peer_addresses
from mapek_domains.mesh.watch import MeshWatcher
from mapek_runtime.errors import ConfigError, EngineUnavailable
from mapek_runtime.loop.domain import DomainContext, LinkView

from .messages import Subscription
from .node import UdpNode
from .port import parse_address, resolved

__all__ = ["MeshSession", "RealSession"]

_PAST = {"drain": "link.drained", "undrain": "link.undrained", "restart": "node.restarted"}


class MeshSession:
    """The nodes of this process; also a `Messenger` and, as far as they see, a `Topology`."""

    def __init__(self, context: DomainContext) -> None:
        self._context = context
        self.nodes: dict[str, UdpNode] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def plugins(self, node_id: str) -> Sequence[object]:
        """The phase plugins of one node: the first watches, the second acts."""
        watcher = MeshWatcher(self._node(node_id))
        return watcher, MeshHealer(watcher)

    # Messenger

    async def send(self, source: str, destination: str, topic: str, payload: bytes) -> None:
        """Send one message; delivery is not promised."""
        self._node(source).messages.send(destination, topic, payload)

    @asynccontextmanager
    async def subscribe(self, node_id: str, topic: str) -> AsyncIterator[AsyncIterator[tuple[str, bytes]]]:
        """(source, payload) of each message for `node_id` on `topic`, in the sender's trace context."""
        subscription = Subscription()
        with self._node(node_id).messages.receiving(topic, subscription.put):
            try:
                yield subscription
            finally:
                subscription.close()

    # Topology

    def links(self) -> Sequence[LinkView]:
        """Every link of the nodes of this process, once."""
        views: dict[str, LinkView] = {}
        for name, node in sorted(self.nodes.items()):
            for reading in node.links():
                worst = max(reading.loss_in, reading.loss_out)
                # The share of a handful of probes says nothing; a high score says that it does.
                shown = worst if max(reading.score_in, reading.score_out) > 2.0 else 0.0
                before = views.get(reading.link)
                a, _, b = reading.link.partition("~")
                views[reading.link] = LinkView(
                    a=a,
                    b=b,
                    state=self._state(name, reading.peer, drained=reading.drained, alive=reading.peer_alive),
                    loss=max(shown, before.loss if before else 0.0),
                    rtt=reading.rtt or 0.0,
                    fault=self._fault(reading.link),
                )
        return tuple(views[link] for link in sorted(views))

    def alive(self) -> Mapping[str, bool]:
        """Whether each node runs, as far as the nodes of this process know."""
        alive: dict[str, bool] = {}
        for node in self.nodes.values():
            for name, reached in node.nodes().items():
                alive[name] = alive.get(name, False) or reached
        return alive

    def route(self, source: str, destination: str) -> Sequence[str]:
        """The nodes on the path in force, both ends included; empty when there is none."""
        return self._node(source).route(destination)

    def _state(self, node: str, peer: str, *, drained: bool, alive: bool) -> str:
        if not alive:
            return "down"
        return "drained" if drained else "up"

    def _fault(self, link: str) -> str:
        return ""

    def _node(self, node_id: str) -> UdpNode:
        node = self.nodes.get(node_id)
        if node is None:
            raise EngineUnavailable(
                f"node {node_id!r} does not run here; here run {', '.join(sorted(self.nodes))}"
            )
        return node

    def _on_action(self, action: str, node: str, target: str) -> None:
        self._context.emit(_PAST[action], {"node": node, "target": target})

    async def bind(self) -> None:
        """Make the nodes and bind their sockets; raises `ConfigError` where one cannot be."""
        raise NotImplementedError(f"{type(self).__name__} binds no node")

    def start(self, group: asyncio.TaskGroup) -> None:
        """Start the nodes, as tasks of `group`."""
        self._tasks += [self._spawn(group, node) for node in self.nodes.values()]

    def _spawn(self, group: asyncio.TaskGroup, node: UdpNode) -> asyncio.Task[None]:
        # Born in an empty context, or its spans would be children of whatever is open here.
        return group.create_task(node.run(), name=f"mesh {node.node_id}", context=Context())

    def stop(self) -> None:
        """End the tasks of the mesh."""
        for task in self._tasks:
            task.cancel()

    def close(self) -> None:
        """Close every socket."""
        for node in self.nodes.values():
            node.close()


class RealSession(MeshSession):
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
        )
        self.nodes[node_id] = node
        await node.open(self._listen)
        node.connect(await resolved(self._peers))
