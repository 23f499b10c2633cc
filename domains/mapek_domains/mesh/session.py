"""The mesh while it is open, whatever carries its packets: plugins for each node, and what is to see.

Engines derive from it: the UDP mesh adds messages, a demonstration adds faults.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

from mapek_runtime.errors import EngineUnavailable
from mapek_runtime.loop.domain import Consensus, DomainContext, LinkView, Normality

from .engine import MeshEngine
from .heal import MeshHealer
from .watch import MeshWatcher

__all__ = ["MeshSession"]

E = TypeVar("E", bound=MeshEngine)

_PAST = {"drain": "link.drained", "undrain": "link.undrained", "restart": "node.restarted"}


class MeshSession(Generic[E]):
    """The nodes of this process; as far as they see, also a `Topology`."""

    nodes: Mapping[str, E]

    def __init__(self, context: DomainContext) -> None:
        self._context = context

    def plugins(self, node_id: str) -> Sequence[object]:
        """The phase plugins of one node: the first watches, the second acts."""
        find = self._context.find

        def leads() -> bool:
            consensus = find(Consensus)
            return consensus is not None and consensus.leader(node_id) == node_id

        watcher = MeshWatcher(self._node(node_id), lambda: find(Normality), leads)
        return watcher, MeshHealer(watcher, lambda: find(Consensus))

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

    # Inside

    def _state(self, node: str, peer: str, *, drained: bool, alive: bool) -> str:
        if not alive:
            return "down"
        return "drained" if drained else "up"

    def _fault(self, link: str) -> str:
        return ""

    def _node(self, node_id: str) -> E:
        node = self.nodes.get(node_id)
        if node is None:
            raise EngineUnavailable(
                f"node {node_id!r} does not run here; here run {', '.join(sorted(self.nodes))}"
            )
        return node

    def _on_action(self, action: str, node: str, target: str) -> None:
        self._context.emit(_PAST[action], {"node": node, "target": target})
