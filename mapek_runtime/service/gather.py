"""What a slow loop gets to know: what the nodes below it have been through, and what they remember."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from mapek_runtime.loop import Cycle, Observation
from mapek_runtime.loop.model import Value

from .goals import Known

__all__ = ["Gather"]


class Gather:
    """Brings to the slow loop what the nodes of this process know, of themselves and of others.

    With `nodes` only what is of those. A fact that a node remembers no more is taken away again.
    """

    name = "hierarchy.gather"

    def __init__(self, known: Known, nodes: Collection[str] = ()) -> None:
        self._known = known
        self._nodes = frozenset(nodes)
        self._brought: dict[tuple[str, str], Value] = {}

    async def monitor(self, cycle: Cycle) -> Iterable[Observation]:
        """Take in what is not known here yet; what several nodes tell comes in once."""
        for node, knowledge in self._known.items():
            for incident in knowledge.incidents():
                origin = incident.node or node
                if self._is_below(origin):
                    cycle.knowledge.absorb(incident, origin)
        now = dict(self._facts())
        for key, origin in self._brought.keys() - now.keys():
            cycle.knowledge.hear_fact(key, None, origin)
        for (key, origin), value in now.items():
            cycle.knowledge.hear_fact(key, value, origin)
        self._brought = now
        return ()

    def _facts(self) -> Iterator[tuple[tuple[str, str], Value]]:
        for knowledge in self._known.values():
            for key in knowledge.keys_elsewhere():
                for origin, value in knowledge.facts_elsewhere(key).items():
                    if origin not in self._known and self._is_below(origin):
                        yield (key, origin), value
        for node, knowledge in self._known.items():
            if self._is_below(node):
                yield from (((key, node), value) for key, value in knowledge.facts().items())

    def _is_below(self, node: str) -> bool:
        return not self._nodes or node in self._nodes
