"""What the mesh plugins ask of an engine: the UDP mesh and Babel both answer it.

An engine carries packets and obeys; it decides nothing about health. The plugins
read links from it, decide, and tell it what to do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from .window import Window

__all__ = ["Asks", "LinkReading", "MeshEngine", "Overhears", "Restarts", "link_id"]


def link_id(a: str, b: str) -> str:
    """The name of the link between two nodes, the same from both ends: `node-1~node-2`."""
    return "~".join(sorted((a, b)))


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkReading:
    """One link as one of its ends sees it, at the moment of reading.

    Losses are shares in 0..1 of the probes since the change that `score` watches for, `rtt` is the
    smoothed round trip in seconds (None before the first), `silence` the seconds since a probe was
    last heard from the peer. `missed_in` and `missed_out` count probes lost in a row, up to now.
    `score_in` and `score_out` are the log-likelihood ratio statistics of the loss detector, to be
    held against its threshold. `good` counts probes in a row that came through both ways.
    `drained` is what is in force, whichever end drained it; `drained_here` is this end's own part.
    `window` holds the last probes themselves, for a learned model.
    """

    link: str
    peer: str
    loss_in: float
    loss_out: float
    rtt: float | None
    silence: float
    missed_in: int
    missed_out: int
    score_in: float
    score_out: float
    baseline_loss: float
    probes: int
    good: int
    drained: bool
    drained_here: bool
    peer_alive: bool
    window: Window | None = None


@runtime_checkable
class Overhears(Protocol):
    """An engine whose nodes tell one another whom they hear."""

    def unheard(self) -> Sequence[str]:
        """Nodes other than neighbours that were heard once, and that no node in reach hears now."""


class MeshEngine(Protocol):
    """One node of a mesh."""

    node_id: str
    notices_after: float
    """Seconds of silence after which the engine's own protocol gives a link up, without a loop."""

    def links(self) -> Sequence[LinkReading]:
        """The node's own links."""

    def nodes(self) -> Mapping[str, bool]:
        """Every node this one has heard of, and whether it can be reached now."""

    def edges(self) -> Sequence[tuple[str, str]]:
        """The links of the whole mesh that carry traffic now, as this node knows them."""

    def route(self, destination: str) -> Sequence[str]:
        """The path in force from here, both ends included; empty when there is none."""

    def stalled(self) -> float:
        """Seconds by which this node itself overslept lately: what it missed then proves nothing."""

    async def drain(self, link: str) -> str:
        """Take the link out of use, both directions; returns in words what changed."""

    async def undrain(self, link: str) -> str:
        """Put the link back in use; returns in words what changed."""

    async def restart(self, node_id: str) -> str:
        """Start a dead node again; raises `EngineUnavailable` where this engine cannot."""


@runtime_checkable
class Asks(Protocol):
    """An engine that can ask another node for an answer over the routes in force."""

    def ask(self, node_id: str) -> None:
        """Ask once; never waits."""

    def answered(self, node_id: str, since: float) -> bool:
        """Whether the node has answered a question asked since that time of the loop's clock."""


@runtime_checkable
class Restarts(Protocol):
    """An engine that says beforehand which nodes it cannot start again."""

    def cannot_restart(self, node_id: str) -> str:
        """Why it cannot; empty where it may be tried."""
