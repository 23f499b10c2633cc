"""The mesh while it is open: the nodes of this process, their plugins, and the messages over them.

`MeshSession` serves one node of a real deployment. `DemoSession` runs several nodes with a link
emulator between them; only it can make faults.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import Context

from mapek_runtime.errors import EngineUnavailable, MapekError
from mapek_runtime.loop.domain import DomainContext, Fault, FaultReport, LinkView

from .emulator import Emulator
from .engine import link_id
from .heal import MeshHealer
from .messages import Subscription
from .port import Address
from .referee import CANARY, Referee
from .schedule import KINDS, fault_schedule
from .settings import MeshSettings
from .traffic import TOPIC, Traffic
from .udp import UdpNode
from .watch import MeshWatcher

__all__ = ["DemoSession", "MeshSession"]

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
                f"node {node_id!r} does not run here; the nodes of this process are {', '.join(sorted(self.nodes))}"
            )
        return node

    def _on_action(self, action: str, node: str, target: str) -> None:
        self._context.emit(_PAST[action], {"node": node, "target": target})

    async def start_one(
        self,
        group: asyncio.TaskGroup,
        node_id: str,
        settings: MeshSettings,
        listen: Address,
        peers: dict[str, Address],
    ) -> None:
        """Start the one node of a real deployment."""
        node = UdpNode(
            node_id,
            rng=random.Random(self._context.rng.getrandbits(64)),
            interval=settings.probe_interval,
            on_action=self._on_action,
        )
        self.nodes[node_id] = node
        await node.open(listen)
        node.connect(peers)
        self._tasks.append(group.create_task(node.run(), name=f"mesh {node_id}", context=Context()))

    def stop(self) -> None:
        """End the tasks of the mesh."""
        for task in self._tasks:
            task.cancel()

    def close(self) -> None:
        """Close every socket."""
        for node in self.nodes.values():
            node.close()


class DemoSession(MeshSession):
    """Several nodes on loopback, the emulated links between them, chaos and its referee."""

    def __init__(
        self, context: DomainContext, settings: MeshSettings, links: tuple[tuple[str, str], ...]
    ) -> None:
        super().__init__(context)
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

    async def start(self, group: asyncio.TaskGroup) -> None:
        """Bind every node to a free port of loopback and start them."""
        self._group = group
        for a, b in self._pairs:
            if self._settings.loss:
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
            self.nodes[name] = node
            self._addresses[name] = await node.open(("127.0.0.1", 0))
        for name in self.nodes:
            self._start_node(name)
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
        self._start_node(node_id)
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

    def _start_node(self, name: str) -> None:
        assert self._group is not None
        node = self.nodes[name]
        peers = [b if a == name else a for a, b in self._pairs if name in (a, b)]
        node.connect({peer: self._addresses[peer] for peer in peers})
        self._running[name] = self._group.create_task(node.run(), name=f"mesh {name}", context=Context())
        if CANARY not in node.messages.topics:
            node.messages.receive(CANARY, self.referee.arrived)
            node.messages.receive(TOPIC, self.traffic.arrived)

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
