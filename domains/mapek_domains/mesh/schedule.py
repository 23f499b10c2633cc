"""Which faults come when: a reproducible schedule that a healing mesh can survive.

Pure. Faults never cut the live nodes apart, because no loop could heal that; and no fault hits what
was hit shortly before, because a link that is still drained would not feel it.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mapek_runtime.loop.domain import Fault

from .engine import link_id
from .routes import reachable

__all__ = ["KINDS", "MIXES", "SLOW", "SLOW_BY", "Mix", "fault_schedule"]

KINDS = ("link.blackhole", "link.loss", "link.down", "node.crash")
"""Kinds of fault that every mesh which can be broken can make."""
SLOW = "link.slow"
"""Packets are late: a kind that only a mesh with emulated links can make."""
SLOW_BY = 0.05
"""Seconds by which they are, where a fault does not say."""

_FIRST = 4.0
_ROOM = 4.0  # Before the end: time to be healed.


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """Which kinds of fault a schedule has, and how bad they are.

    `loss` and `delay` (seconds) are the least and the most of a lossy and of a slow link; a share
    `one_way` of these is bad in one direction only. Every `gap` seconds a fault comes, `lasts` so
    long, and what it hit has `rest` seconds after it to cool down and be used again.
    """

    kinds: tuple[str, ...] = KINDS
    loss: tuple[float, float] = (0.4, 0.7)
    delay: tuple[float, float] = (0.01, 0.1)
    one_way: float = 0.0
    gap: tuple[float, float] = (6.0, 8.0)
    lasts: tuple[float, float] = (8.0, 12.0)
    rest: float = 12.0


_MILD = Mix(
    kinds=("link.loss", SLOW), loss=(0.1, 0.4), one_way=0.5, gap=(8.0, 11.0), lasts=(14.0, 18.0), rest=18.0
)
MIXES: Mapping[str, Mix] = {
    "hard": Mix(),
    "mild": _MILD,
    "all": replace(_MILD, kinds=(*KINDS, SLOW), loss=(0.1, 0.7)),
}
"""By the name that the setting `chaos` of the mesh gives them."""


def fault_schedule(
    seed: int,
    duration: float,
    nodes: tuple[str, ...],
    links: Sequence[tuple[str, str]],
    *,
    mix: Mix = MIXES["hard"],
) -> tuple[Fault, ...]:
    """The faults of a run of `duration` seconds; the same arguments give the same faults."""
    rng = random.Random(seed)
    faults: list[Fault] = []
    at = _FIRST + rng.uniform(0.0, 1.0)
    while at + _ROOM <= duration:
        fault = _choose(rng, len(faults) + 1, at, faults, nodes, links, mix)
        if fault is not None:
            faults.append(fault)
        at += rng.uniform(*mix.gap)
    return tuple(faults)


def _choose(
    rng: random.Random,
    number: int,
    at: float,
    earlier: Sequence[Fault],
    nodes: tuple[str, ...],
    links: Sequence[tuple[str, str]],
    mix: Mix,
) -> Fault | None:
    kinds = list(mix.kinds)
    rng.shuffle(kinds)
    lasts = round(rng.uniform(*mix.lasts), 2)
    still = [fault for fault in earlier if at < fault.at + fault.duration + mix.rest]
    out_of_use = {fault.target for fault in still}
    crashed = {f.target for f in still if f.kind == "node.crash" and at < f.at + f.duration}
    for kind in kinds:
        if kind == "node.crash" and crashed:
            continue
        targets = [*nodes] if kind == "node.crash" else [link_id(a, b) for a, b in links]
        rng.shuffle(targets)
        for target in targets:
            down = crashed | ({target} if kind == "node.crash" else set())
            if target not in out_of_use and _survivable({*out_of_use, target}, down, nodes, links):
                return Fault(
                    number=number,
                    kind=kind,
                    target=target,
                    at=round(at, 2),
                    duration=lasts,
                    parameters=_parameters(rng, kind, mix),
                )
    return None


def _parameters(rng: random.Random, kind: str, mix: Mix) -> dict[str, float]:
    match kind:
        case "link.blackhole":
            return {"reverse": float(rng.random() < 0.5)}
        case "link.loss":
            return {"loss": round(rng.uniform(*mix.loss), 2), **_ways(rng, mix)}
        case _ if kind == SLOW:
            delay = rng.uniform(*mix.delay)
            # By the same for every packet, by about the same, or by anything up to twice as much.
            jitter = delay * rng.choice((0.0, 0.5, 2.0))
            return {
                "delay": round(max(0.0, delay - jitter / 2), 4),
                "jitter": round(jitter, 4),
                **_ways(rng, mix),
            }
        case _:
            return {}


def _ways(rng: random.Random, mix: Mix) -> dict[str, float]:
    if not mix.one_way or rng.random() >= mix.one_way:
        return {}
    return {"one_way": 1.0, "reverse": float(rng.random() < 0.5)}


def _survivable(
    links_lost: set[str], down: set[str], nodes: tuple[str, ...], links: Sequence[tuple[str, str]]
) -> bool:
    # A crashed node is soon back when it is healed, and stays away when not: both must hold.
    mended = [(a, b) for a, b in links if link_id(a, b) not in links_lost]
    alive = [node for node in nodes if node not in down]
    left = [(a, b) for a, b in mended if a in alive and b in alive]
    return bool(alive) and _connected(nodes, mended) and _connected(alive, left)


def _connected(nodes: Sequence[str], edges: Sequence[tuple[str, str]]) -> bool:
    return len(reachable(nodes[0], edges)) == len(nodes)
