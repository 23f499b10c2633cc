"""A mesh for demonstration: several nodes in this process, emulated links, chaos and its referee.

The sockets and packets are real; faults are made in the emulator, and by ending nodes.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from contextvars import Context

from mapek_domains.mesh.engine import link_id
from mapek_domains.mesh.settings import MeshSettings, topology_of
from mapek_runtime.errors import EngineUnavailable, MapekError
from mapek_runtime.loop.domain import DomainContext, Fault, FaultReport

from .emulator import Emulator
from .node import UdpNode
from .port import Address
from .referee import CANARY, Referee
from .schedule import KINDS, fault_schedule
from .session import MeshSession
from .traffic import TOPIC, Traffic

__all__ = ["DemoSession"]


class DemoSession(MeshSession):
    """Several nodes on loopback, the emulated links between them, chaos and its referee."""

    def __init__(self, context: DomainContext, settings: MeshSettings) -> None:
        super().__init__(context)
        links = topology_of(settings, context.nodes)
        loop = asyncio.get_running_loop()
        self.emulator = Emulator(context.rng.getrandbits(64))
        self._settings = settings
        self._pairs = links
        self._addresses: dict[str, Address] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._starting: set[str] = set()
        self._group: asyncio.TaskGroup | None = None
        self.referee = Referee(self.nodes, links, clock=loop.time, emit=context.emit)
        self.traffic = Traffic(
            self.nodes,
            rate=settings.traffic,
            traced_share=settings.traced_share,
            rng=random.Random(context.rng.getrandbits(64)),
            clock=loop.time,
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
            )
            node.messages.receive(CANARY, self.referee.arrived)
            node.messages.receive(TOPIC, self.traffic.arrived)
            self.nodes[name] = node
            self._addresses[name] = await node.open(("127.0.0.1", 0))
        for name in self.nodes:
            self._connect(name)

    def start(self, group: asyncio.TaskGroup) -> None:
        """Start the nodes, the referee and the traffic."""
        self._group = group
        for name, node in self.nodes.items():
            self._running[name] = self._spawn(group, node)
        self._tasks.append(group.create_task(self.referee.run(), name="mesh referee", context=Context()))
        if self._settings.traffic and len(self.nodes) > 1:
            self._tasks.append(group.create_task(self.traffic.run(), name="mesh traffic", context=Context()))

    def stop(self) -> None:
        """End the tasks of the mesh."""
        super().stop()
        for task in self._running.values():
            task.cancel()

    async def crash(self, node_id: str) -> None:
        """End a node at once: its socket, its timer and its loop."""
        node = self._node(node_id)
        if not node.running:
            return
        node.close()
        self._running.pop(node_id).cancel()
        await self._context.supervisor.crashed(node_id)

    async def restart(self, node_id: str) -> None:
        """Start a crashed node again, without memory; raises `EngineUnavailable` for one that runs."""
        node = self._node(node_id)
        if node.running:
            raise EngineUnavailable(
                f"{node_id!r} runs; it is cut off, and a restart would not mend its links"
            )
        await node.open(self._addresses[node_id])
        self._connect(node_id)
        assert self._group is not None
        self._running[node_id] = self._spawn(self._group, node)
        self.referee.started(node_id)
        await self._context.supervisor.restarted(node_id)

    # FaultInjector

    def kinds(self) -> Sequence[str]:
        """The kinds of fault that the emulator can make."""
        return KINDS

    def schedule(self, seed: int, duration: float) -> Sequence[Fault]:
        """A reproducible schedule of faults that leave the mesh connected."""
        return fault_schedule(seed, duration, self._context.nodes, self._pairs)

    async def inject(self, fault: Fault) -> None:
        """Make it so; raises `MapekError` for a kind or target that there is not."""
        if fault.kind not in KINDS:
            raise MapekError(f"fault kind {fault.kind!r}; the mesh can make {', '.join(KINDS)}")
        known = self._context.nodes if fault.kind == "node.crash" else self._link_names()
        if fault.target not in known:
            raise MapekError(f"{fault.kind} on {fault.target!r}; it must be one of {', '.join(known)}")
        self.referee.begin(fault)
        if fault.kind == "node.crash":
            await self.crash(fault.target)
        else:
            self._set_link(fault, present=True)

    async def clear(self, fault: Fault) -> None:
        """Take it away; a node that is still down is started, as an operator would."""
        self.referee.end(fault)
        if fault.kind != "node.crash":
            self._set_link(fault, present=False)
        elif not self._node(fault.target).running and fault.target not in self._starting:
            await self.restart(fault.target)

    def report(self) -> FaultReport:
        """What happened so far, as the referee and the traffic saw it."""
        repairs = self.referee.repairs
        sent = self.traffic.sent
        return FaultReport(
            injected=self.referee.injected,
            healed=len(repairs),
            repair_seconds=repairs,
            wrong_actions=len(self.referee.wrong),
            sent=sent,
            delivered=self.traffic.delivered,
        )

    def alive(self) -> Mapping[str, bool]:
        """Whether each node runs."""
        return {name: node.running for name, node in self.nodes.items()}

    # -- inside ---------------------------------------------------------------------------------

    def _connect(self, name: str) -> None:
        peers = [b if a == name else a for a, b in self._pairs if name in (a, b)]
        self.nodes[name].connect({peer: self._addresses[peer] for peer in peers})

    def _set_link(self, fault: Fault, *, present: bool) -> None:
        a, _, b = fault.target.partition("~")
        if fault.parameters.get("reverse"):
            a, b = b, a
        match fault.kind:
            case "link.blackhole":
                self.emulator.change(a, b, blackhole=present)
            case "link.down":
                self.emulator.set_down(a, b, present)
            case _:
                loss = fault.parameters.get("loss", 0.6) if present else self._settings.loss
                self.emulator.change(a, b, loss=loss)
                self.emulator.change(b, a, loss=loss)

    def _link_names(self) -> tuple[str, ...]:
        return tuple(link_id(a, b) for a, b in self._pairs)

    def _state(self, node: str, peer: str, *, drained: bool, alive: bool) -> str:
        if not (self.nodes[node].running and self.nodes[peer].running):
            return "down"
        return "drained" if drained else "up"

    def _fault(self, link: str) -> str:
        ends = link.split("~")
        return next((f.kind for f in self.referee.active() if f.target == link or f.target in ends), "")

    def _on_action(self, action: str, node: str, target: str) -> None:
        self.referee.acted(action, node, target)
        super()._on_action(action, node, target)
