"""The nodes of a lab as engines: probes inside their namespaces, and who starts a dead one again."""

from __future__ import annotations

import asyncio
import contextvars
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from types import TracebackType

from mapek_domains.mesh.lab import Lab
from mapek_domains.mesh.lab.namespace import link_socket, node_socket
from mapek_runtime.errors import EngineUnavailable

from .links import BabelLink
from .node import BabelNode
from .sockets import PORT

__all__ = ["BabelMesh"]

_LIMIT = 5.0


async def _nobody(_node_id: str) -> None:
    return


class BabelMesh:
    """`async with BabelMesh(lab) as mesh:` gives a `BabelNode` for each node of a lab that is up.

    `alarm(node_id, reason)` is called when a link of a node begins to look bad. `crashed` and
    `restarted` are told when the daemon of a node died, and when it was started again;
    `on_action(action, node_id, target)` of what a node did.
    """

    def __init__(
        self,
        lab: Lab,
        *,
        alarm: Callable[[str, str], None] = lambda _node, _reason: None,
        crashed: Callable[[str], Awaitable[None]] = _nobody,
        restarted: Callable[[str], Awaitable[None]] = _nobody,
        on_action: Callable[[str, str, str], None] = lambda _action, _node, _target: None,
        probe_interval: float = 0.02,
    ) -> None:
        self.lab = lab
        self._alarm = alarm
        self._crashed = crashed
        self._restarted = restarted
        self._on_action = on_action
        self._interval = probe_interval
        self._group = asyncio.TaskGroup()
        self._lives: list[asyncio.Task[None]] = []
        self._again = {node: asyncio.Event() for node in lab.topology.nodes}
        self._restarting = {node: asyncio.Lock() for node in lab.topology.nodes}
        self.nodes: Mapping[str, BabelNode] = {}

    async def __aenter__(self) -> BabelMesh:
        self.nodes = {name: self._node(name) for name in self.lab.topology.nodes}
        await self._group.__aenter__()
        self._lives = [
            self._group.create_task(self._live(node), context=contextvars.Context())
            for node in self.nodes.values()
        ]
        try:
            for node in self.nodes.values():
                await self._begun(node)
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for life in self._lives:
            life.cancel()
        if error is not None and not isinstance(error, asyncio.CancelledError):
            # An error of the block leaves it as it is, not wrapped into a group.
            kind = error = trace = None
        await self._group.__aexit__(kind, error, trace)

    async def restart(self, node_id: str, *, by: str = "") -> str:
        """Start the babeld of a node of this lab; the node lives again when this returns.

        `by` is the node that does it; empty for an operator, whose deeds are not a node's.
        """
        if node_id not in self.nodes:
            raise EngineUnavailable(
                f"babel: {node_id!r} is no node of this lab ({', '.join(self.nodes)}); a node elsewhere is "
                "started by its own service manager"
            )
        daemon, node = self.lab.daemons[node_id], self.nodes[node_id]
        async with self._restarting[node_id]:
            if daemon.pid() is not None and node.running:
                return f"babeld of {node_id} runs already, pid {daemon.pid()}"
            # A daemon that was killed a moment ago may not be missed yet.
            async with asyncio.timeout(_LIMIT):
                await node.ended.wait()
            if by:
                self._on_action("restart", by, node_id)
            await self.lab.start(node_id)
            self._again[node_id].set()
            await self._begun(node)
            await self._restarted(node_id)
            return f"babeld of {node_id} started, pid {daemon.pid()}"

    async def _live(self, node: BabelNode) -> None:
        again = self._again[node.node_id]
        while True:
            # Not answering at all is the same as dying a moment later.
            with suppress(EngineUnavailable):
                await node.run()
            await self._crashed(node.node_id)
            await again.wait()
            again.clear()

    async def _begun(self, node: BabelNode) -> None:
        try:
            async with asyncio.timeout(_LIMIT):
                await node.started.wait()
        except TimeoutError:
            raise EngineUnavailable(
                f"babel: the babeld of {node.node_id!r} did not answer on {str(node.control_path)!r} "
                f"within {_LIMIT:g} s"
            ) from None

    def _node(self, name: str) -> BabelNode:
        plans = self.lab.topology.of(name)

        def open_sockets() -> Mapping[str, socket.socket]:
            namespace = self.lab.namespace(name)
            opened: dict[str, socket.socket] = {}
            try:
                for plan in plans:
                    opened[plan.peer(name)] = link_socket(
                        namespace, plan.interface(name), plan.address(name), PORT
                    )
            except BaseException:
                for made in opened.values():
                    made.close()
                raise
            return opened

        return BabelNode(
            name,
            [
                BabelLink(
                    peer=plan.peer(name),
                    interface=plan.interface(name),
                    peer_address=plan.address(plan.peer(name)),
                )
                for plan in plans
            ],
            self.lab.daemons[name].socket,
            open_sockets=open_sockets,
            node_of=self.lab.topology.node_of,
            address_of=self.lab.topology.identity,
            open_identity=lambda port: node_socket(
                self.lab.namespace(name), self.lab.topology.identity(name), port
            ),
            restart_node=lambda node_id: self.restart(node_id, by=name),
            alarm=lambda reason: self._alarm(name, reason),
            on_action=lambda action, target: self._on_action(action, name, target),
            notices_after=self.lab.settings.notices_after,
            probe_interval=self._interval,
            interface_parameters=self.lab.settings.interface_parameters,
        )
