"""A `Messenger` in memory that loses, doubles, delays and reorders messages, and can be cut in parts."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager

from mapek_runtime.errors import EngineUnavailable

__all__ = ["LossyMessenger"]


class LossyMessenger:
    """Carries messages between nodes of one process; also a `Topology` of their links.

    What is sent is on its way for `delay` seconds at most, each message for a time of its own, so that
    later ones overtake; of what is `doubled` the second one comes within `late` seconds. Messages of a frozen
    node, and to it, wait until it is thawed, and come all at once.
    """

    most = 15_000

    def __init__(self, nodes: Sequence[str], seed: int = 0) -> None:
        self.nodes = tuple(nodes)
        self.loss = 0.0
        self.doubled = 0.0
        self.delay = 0.0
        self.late = 0.5
        self.counts: Counter[str] = Counter()
        self._rng = random.Random(seed)
        self._island = dict.fromkeys(self.nodes, 0)
        self._deaf: set[tuple[str, str]] = set()
        self._down: set[str] = set()
        self._frozen: dict[str, list[tuple[str, str, str, bytes]]] = {}
        self._listening: dict[tuple[str, str], list[asyncio.Queue[tuple[str, bytes]]]] = {}

    # Faults

    def part(self, *islands: Collection[str]) -> None:
        """Messages pass only within an island; who is named in none is alone with the others so."""
        for node in self.nodes:
            self._island[node] = next((i for i, island in enumerate(islands, 1) if node in island), 0)

    def deafen(self, source: str, destination: str) -> None:
        """Nothing more comes from the one to the other; the other way is as it was."""
        self._deaf.add((source, destination))

    def heal(self) -> None:
        """All hear all, nothing is lost, nothing waits."""
        self.part()
        self._deaf.clear()
        self.loss = self.doubled = self.delay = 0.0
        for node in tuple(self._frozen):
            self.thaw(node)

    def freeze(self, node: str) -> None:
        """As if the node's process did not run for a while."""
        self._frozen.setdefault(node, [])

    def thaw(self, node: str) -> None:
        """It runs again, and hears what was said meanwhile."""
        for message in self._frozen.pop(node, ()):
            self._pass(*message)

    def crash(self, node: str) -> None:
        """It hears and says nothing, and what was on its way to it is lost."""
        self._down.add(node)
        self._frozen.pop(node, None)

    def restart(self, node: str) -> None:
        """It hears again."""
        self._down.discard(node)

    # Messenger, Topology

    async def send(self, source: str, destination: str, topic: str, payload: bytes) -> None:
        """See `Messenger`."""
        if source not in self._island:
            raise EngineUnavailable(f"{source!r} does not live here")
        if len(payload) > self.most:
            raise ValueError(f"a message of {len(payload)} bytes; it holds at most {self.most}")
        if source in self._down or destination not in self._island:
            return
        self.counts["sent"] += 1
        self._pass(source, destination, topic, payload)

    def reachable(self, node_id: str) -> Sequence[str]:
        """See `Messenger`."""
        return [other for other in self.nodes if other != node_id and self._joined(node_id, other)]

    @asynccontextmanager
    async def subscribe(self, node_id: str, topic: str) -> AsyncIterator[AsyncIterator[tuple[str, bytes]]]:
        """See `Messenger`."""
        queue: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
        listening = self._listening.setdefault((node_id, topic), [])
        listening.append(queue)
        try:
            yield _each(queue)
        finally:
            listening.remove(queue)

    def links(self) -> Sequence[object]:
        """None that can be drawn."""
        return ()

    def alive(self) -> Mapping[str, bool]:
        """Whether each node runs."""
        return {node: node not in self._down for node in self.nodes}

    def route(self, source: str, destination: str) -> Sequence[str]:
        """Straight."""
        return (source, destination) if self._joined(source, destination) else ()

    # Inside

    def _joined(self, a: str, b: str) -> bool:
        return self._island[a] == self._island[b] and not self._down.intersection((a, b))

    def _pass(self, source: str, destination: str, topic: str, payload: bytes) -> None:
        for end in (source, destination):
            if end in self._frozen:
                self._frozen[end].append((source, destination, topic, payload))
                return
        if not self._joined(source, destination) or (source, destination) in self._deaf:
            self.counts["cut off"] += 1
            return
        if self._rng.random() < self.loss:
            self.counts["lost"] += 1
            return
        loop = asyncio.get_running_loop()
        message = source, destination, topic, payload
        if self.delay:
            loop.call_later(self._rng.random() * self.delay, self._deliver, *message)
        else:
            # Timers of one moment have no order; what takes no time is not overtaken.
            loop.call_soon(self._deliver, *message)
        if self._rng.random() < self.doubled:
            self.counts["doubled"] += 1
            loop.call_later(self._rng.random() * self.late, self._deliver, *message)

    def _deliver(self, source: str, destination: str, topic: str, payload: bytes) -> None:
        # What was on its way when a node went down, or was cut off, is lost.
        if not self._joined(source, destination):
            self.counts["cut off"] += 1
            return
        for queue in self._listening.get((destination, topic), ()):
            self.counts["delivered"] += 1
            queue.put_nowait((source, payload))


async def _each(queue: asyncio.Queue[tuple[str, bytes]]) -> AsyncIterator[tuple[str, bytes]]:
    while True:
        yield await queue.get()
