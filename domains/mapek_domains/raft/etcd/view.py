"""A copy of all keys of the fleet, kept up by a watch: what can be asked without waiting.

It may be late, and it is never wrong about the past: it is what etcd had at `revision`. Whoever has changed
something waits until the copy has come as far (`reached`).
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from mapek_runtime.errors import EngineUnavailable

from .store import Batch, CallFailed, Deletion, KeyValue, Snapshot, Store
from .values import Claim, Configured, Keys, Managing, Presence, Refused, Tenure, Value, decoded

__all__ = ["Known", "Table", "View"]

logger = logging.getLogger(__name__)

V = TypeVar("V", bound=Value)

_PAUSE = 0.05
"""Seconds before a watch that broke is begun again; a server that refuses is asked less often."""
_PAUSE_REFUSED = 1.0


@dataclass(frozen=True, slots=True)
class Known(Generic[V]):
    """A value, and the key that has it."""

    value: V
    key: KeyValue


class Table(Generic[V]):
    """The keys below one name."""

    def __init__(self, prefix: str, kind: type[V]) -> None:
        self.prefix = prefix
        self.kind = kind
        self.known: dict[str, Known[V]] = {}
        self.taken: set[str] = set()
        """The keys that are there, whatever they hold."""

    def clear(self) -> None:
        """Nothing is there."""
        self.known.clear()
        self.taken.clear()

    def put(self, name: str, pair: KeyValue) -> None:
        """A key was written; raises `Refused` when its value is not ours."""
        self.known.pop(name, None)
        self.taken.add(name)
        if not name or any("\ud800" <= letter <= "\udfff" for letter in name):
            raise Refused("malformed", "its name is empty or no UTF-8")
        self.known[name] = Known(decoded(pair.value, self.kind), pair)

    def remove(self, name: str) -> None:
        """A key is gone."""
        self.known.pop(name, None)
        self.taken.discard(name)


class View:
    """What etcd has under the prefix, by kind. `follow` keeps it up."""

    def __init__(self, store: Store, keys: Keys) -> None:
        self._store = store
        self._keys = keys
        self._changed = asyncio.Event()
        self._heard = -float("inf")
        self._told: set[str] = set()
        self.revision = 0
        """Up to which it is whole; 0 before the first reading."""
        self.leader_key: KeyValue | None = None
        """The leadership's key, whatever it holds: while it is there nobody else can lead."""
        self.leader: Known[Tenure] | None = None
        self.term = 0
        """Of the newest leader that was seen."""
        self.nodes = Table(keys.nodes, Presence)
        self.claims = Table(keys.claims, Claim)
        self.configuration = Table(keys.configuration, Configured)
        self.fleet = Table(keys.fleet, Managing)
        self._tables: tuple[Table[Any], ...] = (self.nodes, self.claims, self.configuration, self.fleet)
        self.refused: Counter[str] = Counter()
        """Values that were not taken, by reason."""
        self.breaks = 0
        """How often the watch broke."""

    # What is asked of it

    def silence(self) -> float:
        """Seconds since etcd was heard; infinite before the first time."""
        return asyncio.get_running_loop().time() - self._heard

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something holds of it; `touch` lets everybody look again."""
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    async def reached(self, revision: int) -> None:
        """Wait until it has come as far as `revision`, which must be that of a change under the prefix."""
        await self.until(lambda: self.revision >= revision)

    async def moved_from(self, revision: int) -> None:
        """Wait until it is of another revision."""
        await self.until(lambda: self.revision != revision)

    def touch(self) -> None:
        """Let whoever waits for a condition look again."""
        self._changed.set()

    # What keeps it up

    async def follow(self) -> None:
        """Read everything, then follow the changes; begin anew whenever that breaks."""
        while True:
            pause = _PAUSE
            try:
                self.replace(await self._store.read(self._keys.all))
                async with self._store.watch(self._keys.all, self.revision + 1) as batches:
                    async for batch in batches:
                        self.apply(batch)
            except CallFailed as error:
                logger.debug("raft: etcd: %s", error)
            except EngineUnavailable as error:
                pause = _PAUSE_REFUSED
                self._tell_once("access", "%s", error)
            self.breaks += 1
            await asyncio.sleep(pause)

    def replace(self, snapshot: Snapshot) -> None:
        """All that is there."""
        self.leader_key = self.leader = None
        for table in self._tables:
            table.clear()
        if snapshot.skipped:
            self._refuse(Refused("oversized", "longer than an answer may be"), self._keys.all)
        for pair in snapshot.pairs:
            self._put(pair)
        self.revision = snapshot.revision
        self._hear()

    def apply(self, batch: Batch) -> None:
        """What has changed."""
        reached = 0
        for change in batch.changes:
            if isinstance(change, Deletion):
                self._remove(change.key)
                reached = change.revision
            else:
                self._put(change)
                reached = change.modified
        if reached and batch.whole:
            self.revision = reached
        self._hear()

    def _hear(self) -> None:
        self._heard = asyncio.get_running_loop().time()
        self._changed.set()

    def _put(self, pair: KeyValue) -> None:
        try:
            if pair.key == self._keys.leader:
                self.leader_key, self.leader = pair, None
                self.leader = Known(decoded(pair.value, Tenure), pair)
                self.term = pair.created
            elif (table := self._table(pair.key)) is not None:
                table.put(pair.key.removeprefix(table.prefix), pair)
            else:
                raise Refused("unknown", "no key that this runtime uses is called so")
        except Refused as refused:
            self._refuse(refused, pair.key)

    def _remove(self, key: str) -> None:
        if key == self._keys.leader:
            self.leader_key = self.leader = None
        elif (table := self._table(key)) is not None:
            table.remove(key.removeprefix(table.prefix))

    def _table(self, key: str) -> Table[Any] | None:
        return next((table for table in self._tables if key.startswith(table.prefix)), None)

    def _refuse(self, refused: Refused, key: str) -> None:
        self.refused[refused.reason] += 1
        self._tell_once(
            refused.reason,
            "raft: etcd has under %s what is not this runtime's (%s: %s); it is left alone, and "
            "`etcdctl del` removes it; others of that kind are only counted",
            ascii(key[:200]),
            refused.reason,
            refused,
        )

    def _tell_once(self, subject: str, message: str, *details: object) -> None:
        if subject not in self._told:
            self._told.add(subject)
            logger.warning(message, *details)
