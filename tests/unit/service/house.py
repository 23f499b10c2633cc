"""Two fast loops in a house, and one above them, for tests of what loops want of one another."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from opentelemetry import trace

from mapek_runtime import Action, Cycle, Finding, Knowledge, Outcome
from mapek_runtime.config import HierarchySettings, LoopSettings
from mapek_runtime.loop import DomainContext, Goal, Goals, Incident
from mapek_runtime.service.hierarchy import Hierarchy, SlowLoop, open_hierarchy
from mapek_runtime.service.nodes import NodeLoops

__all__ = ["GOAL", "Boss", "House", "Kept", "Room"]

GOAL = "room.temperature"


class Boss:
    """A plugin of the slow loop: once it knows of enough incidents it sets a goal."""

    name = "boss"
    handles = ("want",)

    def __init__(self, *, enough: int) -> None:
        self.enough = enough
        self.known: list[Incident] = []
        self.below: DomainContext | None = None

    def oversee(self, context: DomainContext) -> None:
        self.below = context

    async def monitor(self, cycle: Cycle) -> None:
        self.known = list(cycle.knowledge.incidents())

    async def analyze(self, cycle: Cycle) -> Iterable[Finding]:
        return [Finding(target=GOAL, problem="too cold")] if len(self.known) >= self.enough else []

    async def plan(self, cycle: Cycle) -> Iterable[Action]:
        return [Action(name="want", target=GOAL)] if cycle.findings and not self._wanted() else []

    async def execute(self, cycle: Cycle, action: Action) -> Outcome:
        assert self.below is not None
        goals = self.below.find(Goals)
        assert goals is not None
        goals.set_goal("node-1", GOAL, 23.5)
        return Outcome(action=action, success=True)

    def _wanted(self) -> bool:
        assert self.below is not None
        goals = self.below.find(Goals)
        return goals is not None and GOAL in goals.goals("node-1")


class Room:
    """A plugin of a fast loop, which sees what is wanted of it."""

    name = "room"

    def __init__(self, incidents: int = 0) -> None:
        self.incidents = incidents
        self.saw: list[object] = []

    async def analyze(self, cycle: Cycle) -> None:
        self.saw.append(cycle.knowledge.goal(GOAL))

    async def learn(self, cycle: Cycle) -> None:
        for number in range(self.incidents):
            cycle.knowledge.close(Incident(target=f"{cycle.node_id}-{number}", problem="cold", opened=1.0))
        self.incidents = 0


@dataclass
class House:
    """Two fast loops, and whatever sessions are open."""

    sessions: list[Any] = field(default_factory=list)
    rooms: dict[str, Room] = field(default_factory=lambda: {"node-1": Room(1), "node-2": Room(2)})
    cycles: list[Cycle] = field(default_factory=list)
    heal: bool = True
    asked: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.more = asyncio.Event()
        self.loops = NodeLoops(
            settings=LoopSettings(interval=0.02),
            plugins=self.plugins,
            knowledge=lambda node: Knowledge(node=node),
            on_cycle=self.ended,
        )
        self.context = DomainContext(
            nodes=tuple(self.rooms),
            supervisor=self.loops,
            rng=random.Random(1),
            heal=self.heal,
            trigger=self.trigger,
            find=self.find,
        )

    def plugins(self, node: str) -> Sequence[object]:
        return [self.rooms[node], *(each for session in self.sessions for each in session.plugins(node))]

    def find(self, protocol: type[Any], /) -> Any:
        return next((session for session in self.sessions if isinstance(session, protocol)), None)

    def trigger(self, node: str, reason: str) -> None:
        self.asked.append((node, reason))
        self.loops.trigger(node, reason)

    def ended(self, cycle: Cycle) -> None:
        self.cycles.append(cycle)
        self.more.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                self.more.clear()
                await self.more.wait()

    def of(self, node: str) -> list[Cycle]:
        return [cycle for cycle in self.cycles if cycle.node_id == node]

    def following(self, node: str) -> list[Cycle]:
        return [c for c in self.of(node) if any(t.reason == f"goal {GOAL}" for t in c.triggers)]

    @asynccontextmanager
    async def run(
        self, *plugins: object, node: str = "region", slow: bool = True
    ) -> AsyncIterator[Hierarchy]:
        made = SlowLoop(
            settings=HierarchySettings(node=node, interval=0.05),
            loop=LoopSettings(),
            plugins=lambda: plugins,
            on_cycle=self.ended,
        )
        async with open_hierarchy(self.context, made if slow else None) as hierarchy:
            self.sessions.append(hierarchy)
            try:
                await self.loops.start(tuple(self.rooms))
                yield hierarchy
            finally:
                await self.loops.cancel()


class Kept:
    """A domain that keeps goals itself, in no node's knowledge."""

    def __init__(self) -> None:
        self.kept: dict[str, Goal] = {}

    def plugins(self, node_id: str) -> Sequence[object]:
        return ()

    def set_goal(self, node_id: str, name: str, value: bool | float | str) -> None:
        span_context = trace.get_current_span().get_span_context()
        self.kept[name] = Goal(
            name=name,
            value=value,
            author=node_id,
            span_context=span_context if span_context.is_valid else None,
        )

    def goals(self, node_id: str) -> Mapping[str, Goal]:
        return self.kept
