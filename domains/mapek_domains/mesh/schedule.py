"""Which faults come when: a reproducible schedule that a healing mesh can survive.

Pure. Faults never cut the live nodes apart, because no loop could heal that; and no fault hits what
was hit shortly before, because a link that is still drained would not feel it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from mapek_runtime.loop.domain import Fault

from .engine import link_id
from .routes import reachable

__all__ = ["KINDS", "fault_schedule"]

KINDS = ("link.blackhole", "link.loss", "link.down", "node.crash")
_FIRST = 4.0
_GAP = (6.0, 8.0)
_LASTS = (8.0, 12.0)
_REST = 12.0  # After a fault: time to cool down and to be used again.
_ROOM = 4.0  # Before the end: time to be healed.


def fault_schedule(
    seed: int,
    duration: float,
    nodes: tuple[str, ...],
    links: Sequence[tuple[str, str]],
    *,
    loss: tuple[float, float] = (0.4, 0.7),
) -> tuple[Fault, ...]:
    """The faults of a run of `duration` seconds; the same arguments give the same faults.

    `loss` is the least and the most that a lossy link loses.
    """
    rng = random.Random(seed)
    faults: list[Fault] = []
    at = _FIRST + rng.uniform(0.0, 1.0)
    while at + _ROOM <= duration:
        fault = _choose(rng, len(faults) + 1, at, faults, nodes, links, loss)
        if fault is not None:
            faults.append(fault)
        at += rng.uniform(*_GAP)
    return tuple(faults)


def _choose(
    rng: random.Random,
    number: int,
    at: float,
    earlier: Sequence[Fault],
    nodes: tuple[str, ...],
    links: Sequence[tuple[str, str]],
    loss: tuple[float, float],
) -> Fault | None:
    kinds = list(KINDS)
    rng.shuffle(kinds)
    lasts = round(rng.uniform(*_LASTS), 2)
    still = [fault for fault in earlier if at < fault.at + fault.duration + _REST]
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
                    parameters=_parameters(rng, kind, loss),
                )
    return None


def _parameters(rng: random.Random, kind: str, loss: tuple[float, float]) -> dict[str, float]:
    match kind:
        case "link.blackhole":
            return {"reverse": float(rng.random() < 0.5)}
        case "link.loss":
            return {"loss": round(rng.uniform(*loss), 2)}
        case _:
            return {}


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
