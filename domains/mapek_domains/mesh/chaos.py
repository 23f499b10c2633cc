"""Faults on purpose in a mesh that can be broken: what both engines' demonstrations share.

The schedule says which faults come when, the mesh breaks and mends, the referee judges, the traffic
counts what was delivered. Knows no socket and no engine.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from contextvars import Context
from dataclasses import replace
from typing import Protocol, TypeVar

from mapek_runtime.errors import MapekError
from mapek_runtime.loop.domain import DomainContext, Fault, FaultReport

from .engine import MeshEngine, link_id
from .plane import DataPlane
from .referee import Referee
from .schedule import KINDS, MIXES, Mix, fault_schedule
from .session import MeshSession
from .traffic import Traffic

__all__ = ["Breakable", "BreakableSession", "Chaos"]


class Breakable(Protocol):
    """A mesh whose links and nodes can be broken and mended from outside."""

    async def break_link(self, fault: Fault) -> None:
        """Make a fault of a link."""

    async def mend_link(self, fault: Fault) -> None:
        """Take a fault of a link away; not an error when it is gone."""

    async def crash(self, node_id: str) -> None:
        """End a node at once."""

    async def revive(self, node_id: str) -> None:
        """Start a node that is down, as an operator would; nothing happens to one that runs."""


class Chaos:
    """Implements `FaultInjector` over a mesh that can be broken."""

    def __init__(
        self,
        mesh: Breakable,
        plane: DataPlane,
        *,
        nodes: tuple[str, ...],
        links: Sequence[tuple[str, str]],
        context: DomainContext,
        traffic: float,
        traced_share: float,
        mix: Mix = MIXES["hard"],
        loss: tuple[float, float] | None = None,
        kinds: tuple[str, ...] = KINDS,
        usual_loss: float = 0.0,
    ) -> None:
        clock = asyncio.get_running_loop().time
        self._mesh = mesh
        self._nodes = nodes
        self._links = tuple(links)
        self._mix = mix if loss is None else replace(mix, loss=loss)
        self._kinds = kinds
        self.referee = Referee(plane, nodes, links, clock=clock, emit=context.emit, usual_loss=usual_loss)
        self.traffic = Traffic(
            plane,
            nodes,
            rate=traffic,
            traced_share=traced_share,
            rng=random.Random(context.rng.getrandbits(64)),
            clock=clock,
        )

    def start(self, group: asyncio.TaskGroup) -> tuple[asyncio.Task[None], ...]:
        """Start the referee and the traffic; cancel the tasks at the end."""
        return (
            group.create_task(self.referee.run(), name="mesh referee", context=Context()),
            group.create_task(self.traffic.run(), name="mesh traffic", context=Context()),
        )

    def kinds(self) -> Sequence[str]:
        """The kinds of fault that can be made."""
        return self._kinds

    def targets(self, kind: str) -> Sequence[str]:
        """The nodes, or the links, that a kind of fault can be done to."""
        if kind not in self._kinds:
            return ()
        return self._nodes if kind == "node.crash" else [link_id(a, b) for a, b in self._links]

    def schedule(self, seed: int, duration: float) -> Sequence[Fault]:
        """A reproducible schedule of faults that leave the mesh connected."""
        return fault_schedule(seed, duration, self._nodes, self._links, mix=self._mix)

    async def inject(self, fault: Fault) -> None:
        """Make it so; raises `MapekError` for a kind or target that there is not."""
        if fault.kind not in self._kinds:
            raise MapekError(f"fault kind {fault.kind!r}; the mesh can make {', '.join(self._kinds)}")
        known = self.targets(fault.kind)
        if fault.target not in known:
            raise MapekError(f"{fault.kind} on {fault.target!r}; it must be one of {', '.join(known)}")
        self.referee.begin(fault)
        if fault.kind == "node.crash":
            await self._mesh.crash(fault.target)
        else:
            await self._mesh.break_link(fault)

    async def clear(self, fault: Fault) -> None:
        """Take it away; a node that is still down is started, as an operator would."""
        self.referee.end(fault)
        if fault.kind == "node.crash":
            await self._mesh.revive(fault.target)
        else:
            await self._mesh.mend_link(fault)

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
            harmless=self.referee.harmless,
        )

    def fault_on(self, link: str) -> str:
        """The kind of the fault that is on a link, or on one of its ends; empty when there is none."""
        ends = link.split("~")
        return next((f.kind for f in self.referee.active() if f.target == link or f.target in ends), "")


class _Runs(MeshEngine, Protocol):
    """A node that can be down."""

    @property
    def running(self) -> bool:
        """Whether it runs."""


E = TypeVar("E", bound=_Runs)


class BreakableSession(MeshSession[E]):
    """A session that is a `FaultInjector` by its `chaos`, and shows the faults it made."""

    chaos: Chaos

    def kinds(self) -> Sequence[str]:
        """The kinds of fault that can be made here."""
        return self.chaos.kinds()

    def targets(self, kind: str) -> Sequence[str]:
        """The nodes, or the links, that a kind of fault can be done to."""
        return self.chaos.targets(kind)

    def schedule(self, seed: int, duration: float) -> Sequence[Fault]:
        """A reproducible schedule of faults that leave the mesh connected."""
        return self.chaos.schedule(seed, duration)

    async def inject(self, fault: Fault) -> None:
        """Make it so; raises `MapekError` for a kind or target that there is not."""
        await self.chaos.inject(fault)

    async def clear(self, fault: Fault) -> None:
        """Take it away; a node that is still down is started, as an operator would."""
        await self.chaos.clear(fault)

    def report(self) -> FaultReport:
        """What happened so far."""
        return self.chaos.report()

    def _state(self, node: str, peer: str, *, drained: bool, alive: bool) -> str:
        if not (self.nodes[node].running and self.nodes[peer].running):
            return "down"
        return "drained" if drained else "up"

    def _fault(self, link: str) -> str:
        return self.chaos.fault_on(link)

    def _on_action(self, action: str, node: str, target: str) -> None:
        self.chaos.referee.acted(action, node, target)
        super()._on_action(action, node, target)
