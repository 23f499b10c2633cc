"""Links between processes that a test can cut: one UDP relay for each pair of nodes.

A node of a real deployment knows its neighbours by their addresses. Here that address is one end of a
relay, which hands everything on to the other node, unless it is told to lose it. Where a node listens
the relay learns from what the node sends: it may have any port, and another one after a restart.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import cast

__all__ = ["Relays", "relays"]

Address = tuple[str, int]


class _End(asyncio.DatagramProtocol):
    """The socket that one node takes for the other; what it receives leaves by the other end's."""

    def __init__(self, luck: random.Random) -> None:
        self.other = self
        self.node: Address | None = None
        """Where the node on this side listens."""
        self.loss = 0.0
        self.passed = 0
        self.dropped = 0
        self._luck = luck
        self._transport: asyncio.DatagramTransport | None = None

    @property
    def address(self) -> str:
        assert self._transport is not None
        host, port = self._transport.get_extra_info("sockname")
        return f"{host}:{port}"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: Address) -> None:
        self.node = addr
        if self._luck.random() < self.loss:
            self.dropped += 1
        else:
            self.passed += 1
            self.other.deliver(data)

    def deliver(self, data: bytes) -> None:
        if self.node is not None and self._transport is not None:
            self._transport.sendto(data, self.node)

    def close(self) -> None:
        assert self._transport is not None
        self._transport.close()


class Relays:
    """The links of a test; a link is a pair of nodes, in any order."""

    def __init__(self) -> None:
        self._ends: dict[tuple[str, str], _End] = {}

    async def open(self, pairs: Iterable[Sequence[str]]) -> None:
        """Bind the sockets of both ends of each link."""
        loop = asyncio.get_running_loop()
        for a, b in pairs:
            for one, peer in ((a, b), (b, a)):
                # By (node, neighbour): its address is where the node is told that its neighbour is.
                made = partial(_End, random.Random(f"{one} {peer}"))
                _, end = await loop.create_datagram_endpoint(made, local_addr=("127.0.0.1", 0))
                self._ends[one, peer] = end
            self._ends[a, b].other, self._ends[b, a].other = self._ends[b, a], self._ends[a, b]

    def peers(self, node: str) -> dict[str, str]:
        """The neighbours of a node, and where it finds them: its `[mesh.peers]`."""
        return {peer: end.address for (one, peer), end in self._ends.items() if one == node}

    def lose(self, sender: str, receiver: str, share: float = 1.0) -> None:
        """Lose a share of what one node sends to a neighbour."""
        self._ends[sender, receiver].loss = share

    def cut(self, a: str, b: str) -> None:
        """Lose everything on a link, in both directions."""
        self.lose(a, b)
        self.lose(b, a)

    def partition(self, *nodes: str) -> None:
        """Cut these nodes off from all others."""
        for one, peer in self._ends:
            if (one in nodes) != (peer in nodes):
                self.lose(one, peer)

    def mend(self) -> None:
        """Lose nothing any more."""
        for end in self._ends.values():
            end.loss = 0.0

    def passed(self) -> Counter[tuple[str, str]]:
        """Datagrams that came through, by sender and receiver."""
        return Counter({pair: end.passed for pair, end in self._ends.items()})

    def close(self) -> None:
        """Close every socket."""
        for end in self._ends.values():
            end.close()


@asynccontextmanager
async def relays(pairs: Iterable[Sequence[str]]) -> AsyncIterator[Relays]:
    """A relay for each of these links."""
    made = Relays()
    try:
        await made.open(pairs)
        yield made
    finally:
        made.close()
