"""Which node manages which target: each takes its share, and what a silent one had is taken over.

There is no coordinator. Each node sees who lives and what is taken, takes free targets up to its share, and
gives back what is above it. One key a target, written under the node's lease where there is none, sees to
it that no target ever has two.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Sequence
from hashlib import sha256
from zlib import crc32

from mapek_runtime.errors import EngineUnavailable

from .presence import Life
from .store import Compare, Delete, Put, Store, absent
from .values import Keys, Managing, encoded
from .view import View

__all__ = ["Fleet", "digest", "share", "surplus", "wanted"]

_LIMIT = 5.0
"""Seconds after which a change without an answer is thought over again."""
_PAUSE = 0.2


def digest(targets: Sequence[str]) -> str:
    """Stands for a list of targets, in whatever order; nodes with the same one share it. Empty for none."""
    return sha256("\0".join(sorted(targets)).encode()).hexdigest()[:16] if targets else ""


def share(targets: int, nodes: int) -> int:
    """How many targets a node takes at most, so that all have one however they are dealt out."""
    return -(-targets // max(nodes, 1))


def surplus(mine: Collection[str], most: int, node_id: str) -> tuple[str, ...]:
    """What a node gives back of its targets, to have `most`."""
    return _preferred(mine, node_id)[most:]


def wanted(free: Collection[str], mine: int, most: int, node_id: str) -> tuple[str, ...]:
    """What a node with `mine` targets takes of those that are free; each node has an order of its own."""
    return _preferred(free, node_id)[: max(most - mine, 0)]


def _preferred(targets: Collection[str], node_id: str) -> tuple[str, ...]:
    return tuple(sorted(targets, key=lambda target: (crc32(f"{node_id}\0{target}".encode()), target)))


class Fleet:
    """Takes and gives back for one node, for the length of one life."""

    def __init__(
        self,
        life: Life,
        store: Store,
        view: View,
        keys: Keys,
        targets: Sequence[str],
        counts: Counter[str],
    ) -> None:
        self._life = life
        self._store = store
        self._view = view
        self._keys = keys
        self._targets = frozenset(targets)
        self._digest = digest(targets)
        self._value = encoded(Managing(owner=life.node_id, instance=life.instance))
        self._giving: set[str] = set()
        self._counts = counts

    def owned(self) -> frozenset[str]:
        """What the node may manage now; nothing as soon as its lease may be over."""
        if not self._life.lasts:
            return frozenset()
        return self._mine() - self._giving

    async def run(self) -> None:
        """Take and give back as nodes come and go; raises `LeaseGone`."""
        while True:
            # What has changed while it was worked on is looked at again.
            seen = self._view.revision
            try:
                async with asyncio.timeout(_LIMIT):
                    await self._balance()
            except (TimeoutError, EngineUnavailable):
                self._counts["targets.unanswered"] += 1
                await asyncio.sleep(_PAUSE)
                continue
            await self._view.moved_from(seen)

    async def _balance(self) -> None:
        mine = self._mine()
        self._giving &= mine
        sharing = sum(each.value.fleet == self._digest for each in self._view.nodes.known.values())
        most = share(len(self._targets), sharing)
        revision = 0
        # What it has begun to give back it does give back: that may be on its way to etcd.
        for target in self._giving.union(surplus(mine, most, self._life.node_id)):
            revision = max(revision, await self._give_back(target))
        free = self._targets - self._view.fleet.taken
        for target in wanted(free, len(mine), most, self._life.node_id):
            revision = max(revision, await self._take(target))
        if revision:
            await self._view.reached(revision)

    async def _take(self, target: str) -> int:
        key = self._keys.fleet + target
        answer = await self._store.transact((absent(key),), (Put(key, self._value, self._life.lease),))
        self._counts["targets.taken" if answer.succeeded else "targets.lost"] += 1
        return answer.revision if answer.succeeded else 0

    async def _give_back(self, target: str) -> int:
        known = self._view.fleet.known.get(target)
        if known is None:
            return 0
        # The node lets go of it first, and etcd hears of it then.
        self._giving.add(target)
        self._view.touch()
        key = known.key
        answer = await self._store.transact((Compare(key.key, "modified", key.modified),), (Delete(key.key),))
        self._counts["targets.given_back"] += answer.succeeded
        return answer.revision if answer.succeeded else 0

    def _mine(self) -> frozenset[str]:
        known = self._view.fleet.known
        return frozenset(
            target
            for target in self._targets
            if (each := known.get(target)) is not None and each.value.instance == self._life.instance
        )
