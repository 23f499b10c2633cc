"""What happens in the runs of the ablation: for each domain a scene in which it can show what it is for.

A scene is a run of `mapek run` with a topology, settings, and either the mesh's own chaos or a script of
faults, made over the page's API as a person would. A seed gives the times and the targets.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["SCENES", "FaultAt", "Outcome", "Scene"]


@dataclass(frozen=True, slots=True)
class FaultAt:
    """A fault of a script: seconds from the start of the loops, and how long it lasts."""

    at: float
    kind: str
    target: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """One number of a run, and whether more of it is better."""

    key: str
    words: str
    more_is_better: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One domain, and what is measured with it and without it."""

    domain: str
    story: str
    nodes: int = 5
    environment: Mapping[str, str] = field(default_factory=dict)
    script: Callable[[random.Random, float], Sequence[FaultAt]] | None = None
    """None: the mesh's own chaos, of the seed."""
    outcomes: Sequence[Outcome]


REPAIR = Outcome("repair_ms", "time to repair, median, ms")
SLOWEST = Outcome("repair_p95_ms", "time to repair, p95, ms")
DELIVERY = Outcome("delivery", "share of the messages delivered", more_is_better=True)
WRONG = Outcome("wrong_or_doubled", "wrong or doubled actions")
DETECTION = Outcome("detection_ms", "time until a fault is noticed, median, ms")
LINK_DETECTION = Outcome("link_detection_ms", "until a link's fault is noticed, median, ms")
HEALED = Outcome("healed", "faults healed", more_is_better=True)

_WAIST = [(1, 2), (1, 4), (2, 6), (4, 6), (1, 3), (2, 3), (3, 5), (3, 7), (5, 7)]
"""Two groups of nodes that meet in node-3: neither hears the other while it is down."""


def _links(pairs: Sequence[tuple[int, int]]) -> str:
    return "[" + ", ".join(f'["node-{a}", "node-{b}"]' for a, b in pairs) + "]"


def _waist_breaks(rng: random.Random, duration: float) -> list[FaultAt]:
    """The node in the middle crashes again and again."""
    faults, at = [], 6.0 + rng.uniform(0.0, 1.0)
    while at + 8.0 < duration:
        faults.append(FaultAt(at, "node.crash", "node-3", 7.0))
        at += rng.uniform(9.0, 11.0)
    return faults


def _replaced(rng: random.Random, duration: float) -> list[FaultAt]:
    """Two neighbours are replaced at once, and soon after their link swallows what goes over it."""
    pairs = [(1, 2), (2, 3), (3, 4), (4, 5), (1, 5)]
    # Time enough for all of them to have learned, and to have told the others.
    faults, at = [], 15.0 + rng.uniform(0.0, 1.0)
    while at + 9.0 < duration:
        a, b = rng.choice(pairs)
        faults += [FaultAt(at, "node.crash", f"node-{a}", 5.0), FaultAt(at, "node.crash", f"node-{b}", 5.0)]
        faults.append(FaultAt(at + 2.5, "link.blackhole", f"node-{a}~node-{b}", 5.0))
        at += rng.uniform(13.0, 14.0)
    return faults


SCENES = (
    Scene(
        domain="raft",
        story="two groups of nodes meet in one that crashes and takes 2 s to boot: who restarts it?",
        nodes=7,
        environment={"MAPEK_MESH_LINKS": _links(_WAIST), "MAPEK_MESH_BOOT": "2"},
        script=_waist_breaks,
        outcomes=(WRONG, REPAIR, SLOWEST, DELIVERY, HEALED),
    ),
    Scene(
        domain="crdt",
        story="two neighbours are replaced, without a disk, and then their link swallows what goes over it",
        script=_replaced,
        outcomes=(LINK_DETECTION, DETECTION, REPAIR, DELIVERY, WRONG),
    ),
    Scene(
        domain="fl",
        story="mild faults: 10 to 40 % loss, delays of 10 to 100 ms, half of them in one direction",
        environment={"MAPEK_MESH_CHAOS": "mild"},
        outcomes=(DETECTION, DELIVERY, HEALED, WRONG),
    ),
)
