"""What the slow loop of the mesh finds below it, in memory, for tests."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from mapek_domains.mesh.region import MeshRegion, RegionSettings
from mapek_domains.mesh.rest import COOL_DOWN
from mapek_runtime import Knowledge
from mapek_runtime.loop.domain import DomainContext, FaultReport, Goal, LinkView
from mapek_runtime.loop.knowledge import Incident

__all__ = ["EVERY", "GOAL", "LINK", "OTHER", "RING", "Below", "drained", "knowing", "region"]

LINK, OTHER = "node-1~node-2", "node-3~node-4"
GOAL = f"{COOL_DOWN} {LINK}"


EVERY = tuple(combinations([f"node-{n}" for n in range(1, 5)], 2))
RING = (("node-1", "node-2"), ("node-2", "node-3"), ("node-1", "node-3"), ("node-1", "node-4"))


class Supervisor:
    async def crashed(self, node_id: str) -> None: ...

    async def restarted(self, node_id: str) -> None: ...


@dataclass
class Below:
    """What the slow loop finds below it: goals, who is alive, and messages that arrive."""

    alive_nodes: dict[str, bool] = field(default_factory=lambda: {"node-1": True, "node-2": True})
    wanted: dict[str, Goal] = field(default_factory=dict)
    told: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    all_links: list[tuple[str, str]] = field(default_factory=lambda: list(EVERY))
    sent: int = 0
    delivered: int = 0

    def set_goal(self, node_id: str, name: str, value: bool | float | str) -> None:
        self.wanted[name] = Goal(name=name, value=value, author=node_id)

    def goals(self, node_id: str) -> Mapping[str, Goal]:
        return self.wanted

    def links(self) -> Sequence[LinkView]:
        return [LinkView(a=a, b=b, state="up") for a, b in self.all_links]

    def alive(self) -> Mapping[str, bool]:
        return self.alive_nodes

    def route(self, source: str, destination: str) -> Sequence[str]:
        return ()

    def kinds(self) -> Sequence[str]:
        return ()

    def schedule(self, seed: int, duration: float) -> Sequence[Any]:
        return ()

    async def inject(self, fault: Any) -> None: ...

    async def clear(self, fault: Any) -> None: ...

    def report(self) -> FaultReport:
        return FaultReport(
            injected=0, healed=0, repair_seconds=(), wrong_actions=0, sent=self.sent, delivered=self.delivered
        )

    def context(self) -> DomainContext:
        return DomainContext(
            nodes=("node-1", "node-2"),
            supervisor=Supervisor(),
            rng=random.Random(1),
            emit=lambda name, fields: self.told.append((name, fields)),
            find=self.find,
        )

    def find(self, protocol: Any) -> Any:
        return self if isinstance(self, protocol) else None


def region(below: Below | None = None, settings: RegionSettings | None = None) -> MeshRegion:
    plugin = MeshRegion(settings)
    if below is not None:
        plugin.oversee(below.context())
    return plugin


def drained(link: str = LINK, *, ago: float = 0.0, node: str = "node-1", action: str = "drain") -> Incident:
    problem = "link.lossy" if action == "drain" else "link.recovered"
    opened = time.time() - ago
    return Incident(
        target=link, problem=problem, opened=opened, action=action, closed=opened, success=True, node=node
    )


def knowing(*incidents: Incident) -> Knowledge:
    knowledge = Knowledge()
    for incident in incidents:
        knowledge.absorb(incident, incident.node)
    return knowledge
