"""The life of a node, as etcd sees it: a lease that is kept alive, and a key with the node's name.

What the node leads and manages is written under that lease, so that all of it is gone at one revision when
the node falls silent. The node itself stops before: its time counts from before it asked etcd, and is as
long as etcd's or shorter. Nothing here reads a calendar clock.
"""

from __future__ import annotations

import asyncio
import logging
import secrets

from .store import Get, Put, Store, absent
from .values import Keys, Presence, encoded
from .view import View

__all__ = ["Life", "new_lease"]

logger = logging.getLogger(__name__)

_OTHERS = 3
"""Leases after which a name that is still taken is told of: a life that ended in a crash lasts one."""


def new_lease() -> int:
    """A number for a lease; random, and not from the run's seed, which other runtimes may share."""
    return secrets.randbits(62) + 1


class Life:
    """One life of a node. `begin` it, `keep` it and `take_name`; at its end these raise `LeaseGone`."""

    def __init__(
        self, node_id: str, store: Store, view: View, keys: Keys, *, seconds: int, fleet: str
    ) -> None:
        self.node_id = node_id
        self.instance = secrets.token_hex(8)
        self.lease = new_lease()
        self.named = False
        """Whether the node's key is its own: only then it may lead and manage."""
        self._store = store
        self._view = view
        self._key = keys.nodes + node_id
        self._seconds = seconds
        self._until = -float("inf")
        self._presence = Presence(instance=self.instance, fleet=fleet)

    @property
    def lasts(self) -> bool:
        """Whether what is written under its lease is there still, for certain."""
        return asyncio.get_running_loop().time() < self._until

    async def begin(self) -> None:
        """Get the lease."""
        asked = asyncio.get_running_loop().time()
        self._seconds = await self._store.grant(self.lease, self._seconds)
        self._until = asked + self._seconds

    async def keep(self) -> None:
        """Keep the lease alive."""
        loop = asyncio.get_running_loop()
        while True:
            asked = loop.time()
            try:
                async with asyncio.timeout_at(max(self._until, asked + self._seconds / 3)):
                    self._seconds = await self._store.keep_alive(self.lease)
            except TimeoutError:
                # It may be over by now: whoever goes by it looks again. etcd may yet say that it is not.
                self._view.touch()
                continue
            self._until = asked + self._seconds
            await asyncio.sleep(self._seconds / 3 - (loop.time() - asked))

    async def take_name(self) -> None:
        """Write the node's key, once an earlier life of that name has ended."""
        mine = Put(self._key, encoded(self._presence), self.lease)
        while not self.named:
            answer = await self._store.transact((absent(self._key),), (mine,), (Get(self._key),))
            found = answer.found[0]
            self.named = answer.succeeded or (found is not None and found.lease == self.lease)
            if not self.named and found is not None:
                await self._view.reached(found.modified)
                await self._view.until(lambda: self.node_id not in self._view.nodes.taken)

    async def tell_of_others(self) -> None:
        """Say so when another process lives under that name."""
        await asyncio.sleep(_OTHERS * self._seconds)
        if not self.named:
            logger.warning(
                "raft: another process lives in etcd under the name %r; until it ends, this one neither "
                "leads nor manages anything: each node needs a name (node.id) of its own",
                self.node_id,
            )
