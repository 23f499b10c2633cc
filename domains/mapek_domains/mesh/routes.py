"""Routes over the usable links of a mesh: shortest paths, next hops, and the last way out.

Ties go to the lower node name at every step, so that all nodes with the same database choose the
same paths. Pure; the graph algorithms are rustworkx's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import rustworkx as rx

__all__ = ["RouteTable", "cut_off", "reachable"]


class RouteTable:
    """The paths from one node to every other, over the given links with their costs."""

    def __init__(self, source: str, edges: Sequence[tuple[str, str, int]]) -> None:
        self.source = source
        self._neighbours: dict[str, list[tuple[str, int]]] = {source: []}
        for a, b, cost in edges:
            self._neighbours.setdefault(a, []).append((b, cost))
            self._neighbours.setdefault(b, []).append((a, cost))
        for links in self._neighbours.values():
            links.sort()
        self._distances = _distances(self._neighbours, edges)
        self._next = {
            destination: hop
            for destination in self._neighbours
            if destination != source and (hop := self._step(source, destination)) is not None
        }

    def next_hop(self, destination: str) -> str | None:
        """The neighbour to hand a message for `destination` to; None when there is no way."""
        return self._next.get(destination)

    @property
    def destinations(self) -> Mapping[str, str]:
        """Every node that can be reached, with the next hop to it."""
        return self._next

    def path(self, destination: str) -> tuple[str, ...]:
        """The whole path, both ends included; empty when there is none."""
        if destination == self.source:
            return (self.source,)
        path = [self.source]
        while path[-1] != destination:
            step = self._step(path[-1], destination)
            if step is None:
                return ()
            path.append(step)
        return tuple(path)

    def _step(self, here: str, destination: str) -> str | None:
        distance = self._distances.get(destination)
        if distance is None or here not in distance:
            return None
        # Links are in the order of names and `min` takes the first of equals.
        return min(self._neighbours[here], key=lambda link: link[1] + distance[link[0]])[0]


def reachable(source: str, edges: Iterable[tuple[str, str]]) -> frozenset[str]:
    """The nodes that `source` can reach over `edges`, itself included."""
    neighbours: dict[str, list[str]] = {}
    for a, b in edges:
        neighbours.setdefault(a, []).append(b)
        neighbours.setdefault(b, []).append(a)
    found = {source}
    ahead = [source]
    while ahead:
        for peer in neighbours.get(ahead.pop(), ()):
            if peer not in found:
                found.add(peer)
                ahead.append(peer)
    return frozenset(found)


def cut_off(source: str, edges: Sequence[tuple[str, str]], without: tuple[str, str]) -> frozenset[str]:
    """The nodes that `source` could no longer reach if the link `without` were taken away."""
    taken = set(without)
    return reachable(source, edges) - reachable(source, [e for e in edges if set(e) != taken])


def _distances(names: Iterable[str], edges: Sequence[tuple[str, str, int]]) -> dict[str, dict[str, float]]:
    graph: rx.PyGraph[str, int] = rx.PyGraph(multigraph=False)
    ordered = sorted(names)
    index = dict(zip(ordered, graph.add_nodes_from(ordered), strict=True))
    graph.add_edges_from([(index[a], index[b], cost) for a, b, cost in edges])
    found: dict[str, dict[str, float]] = {}
    for start, lengths in rx.all_pairs_dijkstra_path_lengths(graph, float).items():
        distance = {ordered[end]: length for end, length in lengths.items()}
        distance[ordered[start]] = 0.0
        found[ordered[start]] = distance
    return found
