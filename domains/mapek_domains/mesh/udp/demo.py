"""A mesh for demonstration: several nodes in this process, emulated links, chaos and its referee.

The sockets and packets are real; faults are made in the emulator, and by ending nodes.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import Mapping

from mapek_domains.mesh.chaos import BreakableSession, Chaos
from mapek_domains.mesh.schedule import KINDS, MIXES, SLOW
from mapek_domains.mesh.settings import MeshSettings, topology_of
from mapek_runtime.errors import EngineUnavailable
from mapek_runtime.loop.domain import DomainContext, Fault

from .emulator import Conditions, Emulator
from .faults import set_fault
from .node import UdpNode
from .plane import MessageData
from .port import Address
from .session import UdpSession

__all__ = ["DemoSession"]


class DemoSession(BreakableSession[UdpNode], UdpSession):
    """Several nodes on loopback, the emulated links between them, and faults."""

    def __init__(self, context: DomainContext, settings: MeshSettings) -> None:
        super().__init__(context)
        links = topology_of(settings, context.nodes)
        self.emulator = Emulator(context.rng.getrandbits(64))
        self._settings = settings
        self._pairs = links
        self._addresses: dict[str, Address] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._booting: dict[str, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._plane = MessageData(self.nodes)
        self.chaos = Chaos(
            self,
            self._plane,
            nodes=context.nodes,
            links=links,
            context=context,
            traffic=settings.traffic,
            traced_share=settings.traced_share,
            mix=MIXES[settings.chaos],
            kinds=(*KINDS, SLOW),
            usual_loss=settings.loss,
        )

    async def bind(self) -> None:
        """Bind every node to a free port of loopback and tell each where its neighbours are."""
        for a, b in self._pairs:
            self.emulator.change(a, b, loss=self._settings.loss)
            self.emulator.change(b, a, loss=self._settings.loss)
        for name in self._context.nodes:
            node = UdpNode(
                name,
                rng=random.Random(self._context.rng.getrandbits(64)),
                interval=self._settings.probe_interval,
                emulator=self.emulator,
                on_action=self._on_action,
                restarter=self.restart,
                alarm=self._context.trigger,
            )
            self._plane.join(node)
            self._nodes[name] = node
            self._addresses[name] = await node.open(("127.0.0.1", 0))
        for name in self.nodes:
            self._connect(name)

    def start(self, group: asyncio.TaskGroup) -> None:
        """Start the nodes, the referee and the traffic."""
        self._group = group
        for name, node in self.nodes.items():
            self._running[name] = self._spawn(group, node)
        self._tasks += self.chaos.start(group)

    def stop(self) -> None:
        """End the tasks of the mesh."""
        super().stop()
        self._group = None
        for task in (*self._running.values(), *self._booting.values()):
            task.cancel()

    async def restart(self, node_id: str) -> None:
        """Start a crashed node again, without memory; raises `EngineUnavailable` for one that runs.

        Where nodes take time to boot this only begins it, and a node that boots begins anew.
        """
        if self._node(node_id).running:
            raise EngineUnavailable(
                f"{node_id!r} runs; it is cut off, and a restart would not mend its links"
            )
        self._stop_booting(node_id)
        if not self._settings.boot:
            await self._begin(node_id)
            return
        assert self._group is not None
        self._booting[node_id] = self._group.create_task(
            self._boot(node_id), name=f"boot {node_id}", context=contextvars.Context()
        )

    def alive(self) -> Mapping[str, bool]:
        """Whether each node runs."""
        return {name: node.running for name, node in self.nodes.items()}

    # Breakable

    async def crash(self, node_id: str) -> None:
        """End a node at once: its socket, its timer and its loop."""
        node = self._node(node_id)
        self._stop_booting(node_id)
        if not node.running:
            return
        node.close()
        self._running.pop(node_id).cancel()
        await self._context.supervisor.crashed(node_id)

    async def revive(self, node_id: str) -> None:
        """Start a node that is down, at once."""
        if not self._node(node_id).running:
            self._stop_booting(node_id)
            await self._begin(node_id)

    async def break_link(self, fault: Fault) -> None:
        """Change what the emulator does to the link's datagrams."""
        self._set_link(fault, present=True)

    async def mend_link(self, fault: Fault) -> None:
        """Let the emulator treat the link as it did before."""
        self._set_link(fault, present=False)

    # Inside

    async def _boot(self, node_id: str) -> None:
        await asyncio.sleep(self._settings.boot)
        # From here on it is not stopped any more.
        del self._booting[node_id]
        await self._begin(node_id)

    def _stop_booting(self, node_id: str) -> None:
        booting = self._booting.pop(node_id, None)
        if booting is not None:
            booting.cancel()

    async def _begin(self, node_id: str) -> None:
        node = self._node(node_id)
        await node.open(self._addresses[node_id])
        if self._group is None:
            node.close()
            return
        self._connect(node_id)
        self._running[node_id] = self._spawn(self._group, node)
        self.chaos.referee.started(node_id)
        await self._context.supervisor.restarted(node_id)

    def _connect(self, name: str) -> None:
        peers = [b if a == name else a for a, b in self._pairs if name in (a, b)]
        self.nodes[name].connect({peer: self._addresses[peer] for peer in peers})

    def _set_link(self, fault: Fault, *, present: bool) -> None:
        usual = Conditions(loss=self._settings.loss)
        set_fault(self.emulator, fault, present=present, usual=lambda _sender, _receiver: usual)
