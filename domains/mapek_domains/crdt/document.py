"""The replicated document of one node: values that merge to the same state everywhere.

Knows no network, clock or disk. What comes from others is first `examine`d, then `merge`d; what this node
has learned is `commit`ted, all of a cycle in one transaction. The documents are Yjs documents, which any Yjs
program can read.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec
from pycrdt import Map

from mapek_runtime.loop.knowledge import Goal, Incident

from .authoring import Author, Batch
from .engine import EMPTY, Engine, merged
from .entries import Key, Kind
from .update import Contents, Ranges, Refused, read_state, read_update
from .view import Value, View

__all__ = ["Batch", "Document", "Limits", "merged"]

_MOST_NESTED = 1000
_WORTH_JOINING = 256 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How large things may become."""

    incidents: int = 1000
    """Incidents that are kept; the oldest are deleted, shelf by shelf."""
    facts: int = 10_000
    """Facts that are kept, of all nodes together."""
    update: int = 2 << 20
    """Bytes of one update."""
    document: int = 8 << 20
    """Bytes of the document; what would make it larger is refused."""


class Document:
    """The replica of `node`; `life` names this life of it, and no other life of any node."""

    def __init__(self, node: str, *, limits: Limits | None = None) -> None:
        self.node = node
        self.limits = limits or Limits()
        self.view = View()
        self.refused: Counter[str] = Counter()
        """Updates that were not taken, by reason."""
        self._engine = Engine()
        self._nested = 0
        self._maps: set[tuple[int, int]] = set()
        self._size = self._joined_size = len(EMPTY)
        self._clocks: dict[int, int] = {}
        self._deleted: Ranges | None = None
        self._digest: bytes | None = None
        limits = self.limits
        self._author = Author(
            node, f"{self.client:x}", self.view, incidents=limits.incidents, facts=limits.facts
        )

    # What is there

    @property
    def client(self) -> int:
        """The client id that every change of this life carries."""
        return self._engine.client

    @property
    def life(self) -> str:
        """The name of this life of the node."""
        return self._author.life

    def incidents(self) -> Mapping[str, Incident]:
        """Every incident by its hash."""
        return {key: value for (_, _, key), value in self._of("incidents") if isinstance(value, Incident)}

    def outcomes(self) -> Mapping[tuple[str, str, str], tuple[int, int]]:
        """(node, action, target) → how often it has worked and how often not, over all lives of the node."""
        return {
            (node, *_halves(key)): value
            for (_, node, key), value in self._of("outcomes")
            if isinstance(value, tuple)
        }

    def facts(self) -> Mapping[tuple[str, str], Value]:
        """(node, fact) → its value."""
        return {(node, key): value for (_, node, key), value in self._of("facts")}

    def goals(self) -> Mapping[str, Goal]:
        """The goal that holds under each name."""
        names = {key for (_, _, key), _ in self._of("goals")}
        return {name: goal for name in sorted(names) if (goal := self.view.goal(name)) is not None}

    def state(self) -> bytes:
        """The state vector: how much of each client is there. It says nothing of what was deleted."""
        return self._engine.state()

    def digest(self) -> bytes:
        """The same 16 bytes for every replica in the same state, deletions included."""
        if self._digest is None:
            whole = repr(self._engine.snapshot()).encode()
            self._digest = hashlib.blake2b(whole, digest_size=16).digest()
        return self._digest

    def missing(self, state: bytes) -> bytes:
        """The update that whoever has that state lacks. Raises `Refused` for what is not a state."""
        read_state(state)
        return self._engine.update(state)

    def whole(self) -> bytes:
        """The update that makes an empty document into this one."""
        update = self._engine.update()
        self._size = len(update)
        return update

    @property
    def size(self) -> int:
        """Bytes of the whole, or somewhat more: what was deleted since it was last measured counts."""
        return self._size

    @property
    def is_restless(self) -> bool:
        """Whether there is something to commit although nothing was learned: to mend what others did."""
        return self._author.is_restless

    @property
    def twins(self) -> int:
        """How many other processes write under this node's name."""
        return self._author.twins

    # What others say

    def examine(self, update: bytes) -> Contents:
        """What an update holds, where it may be merged; raises `Refused` otherwise, and counts it.

        The reason is `early` for one that builds on what is not here yet: to be had from its sender.
        """
        try:
            return self._examined(update)
        except Refused as refused:
            self.refused[refused.reason] += 1
            raise

    def is_news(self, contents: Contents) -> bool:
        """Whether anything in it is not here yet."""
        if any(end > self._clocks.get(client, 0) for client, (_, end) in contents.added.items()):
            return True
        return any(
            not self._are_deleted(client, each)
            for client, ranges in contents.deleted.items()
            for each in ranges
        )

    def merge(self, contents: Contents) -> dict[Key, Value | None]:
        """Take an examined update in; returns the values that it changed, None for those that are gone.

        Raises `Refused` for one that the engine cannot take as a whole, and leaves everything as it was.
        """
        try:
            self._clocks = self._engine.apply(contents)
        except Refused as refused:
            self.refused[refused.reason] += 1
            raise
        self._nested += contents.nested
        self._maps |= contents.maps
        changes = self._settle()
        self._grew(len(contents.update))
        return changes

    # What this node says

    def commit(self, batch: Batch, *, adopt: bool = False) -> tuple[bytes, dict[Key, Value | None]]:
        """Write what this life has learned; returns the update for the others, empty where nothing changed.

        `adopt` takes over what earlier lives of this node have left, and deletes it, where there are many:
        only to be asked for when no other node can know more of them.
        """
        with self._engine.transaction():
            self._author.write(self._engine.roots, batch, adopt=adopt)
        update = self._engine.said()
        changes = self._settle(mine=True)
        if update:
            self._clocks = self._engine.clocks()
            self._maps |= read_update(update, most=len(update)).maps
            self._grew(len(update))
        return update, changes

    # Inside

    def _of(self, kind: Kind) -> Iterable[tuple[Key, Value]]:
        return [(key, value) for key, value in self.view.values.items() if key[0] == kind]

    def _examined(self, update: bytes) -> Contents:
        contents = read_update(update, most=self.limits.update)
        have = self._clocks
        if any(start < have.get(client, 0) for client, (start, _) in contents.added.items()):
            # Of what is here already nothing is read again, whatever it says now.
            contents = read_update(self._engine.news_of(update), most=self.limits.update)
        mine = contents.added.get(self.client)
        if mine is not None and mine[1] > have.get(self.client, 0):
            raise Refused("forged")
        if contents.nested + self._nested > _MOST_NESTED:
            raise Refused("nested")
        ends = {client: max(end, have.get(client, 0)) for client, (_, end) in contents.added.items()}
        if any(start != have.get(client, 0) for client, (start, _) in contents.added.items()):
            raise Refused("early")
        wanted = [*contents.needs.items(), *_ends(contents.deleted)]
        if any(end > ends.get(client, have.get(client, 0)) for client, end in wanted):
            raise Refused("early")
        for client, clock in contents.parents - contents.maps - self._maps:
            at = clock, clock + 1
            if not (_covers(contents.deleted.get(client, ()), at) or self._are_deleted(client, at)):
                raise Refused("unsupported")
        most = self.limits.document - len(update)
        if self._size > most and len(self.whole()) > most:
            raise Refused("full")
        return contents

    def _are_deleted(self, client: int, wanted: tuple[int, int]) -> bool:
        if self._deleted is None:
            self._deleted, _ = self._engine.snapshot()
        return _covers(self._deleted.get(client, ()), wanted)

    def _grew(self, size: int) -> None:
        self._size += size
        self._deleted = None
        self._digest = None
        if size > _WORTH_JOINING // 4:
            # What came in one piece was read in one piece.
            self._joined_size += size
        if self._size > 2 * self._joined_size + _WORTH_JOINING:
            whole = self._engine.build_anew()
            self._size = self._joined_size = len(whole)
            self._maps = read_update(whole, most=len(whole)).maps

    def _settle(self, *, mine: bool = False) -> dict[Key, Value | None]:
        seen = self._engine.seen()
        shelves = {(kind, name) for kind, name, keys in seen if keys is None}
        for kind, name in sorted(shelves):
            # Whoever wrote it need not have put a map there.
            shelf: object = self._engine.roots[kind].get(name)
            self.view.set_shelf(kind, name, _entries(shelf) if isinstance(shelf, Map) else None)
            if shelf is not None and not isinstance(shelf, Map):
                self.view.ignored["shelf"] += 1
            if not mine:
                self._author.moved(kind, name, is_there=isinstance(shelf, Map))
        for kind, name, keys in seen:
            if keys is None or (kind, name) in shelves:
                continue
            for key, change in keys.items():
                value = None if change["action"] == "delete" else change["newValue"]
                self.view.set_entry(kind, name, key, value)
                if not mine:
                    self._author.rewritten(kind, name, key, value)
        return self.view.settle()


def _entries(shelf: Map[object]) -> Iterable[tuple[str, object]]:
    # As one text: to ask for each entry takes ten times as long.
    try:
        found: dict[str, object] = msgspec.json.decode(str(shelf), type=dict[str, object])
    except (msgspec.DecodeError, ValueError, RecursionError):
        return shelf.items()
    return found.items()


def _ends(ranges: Ranges) -> Iterable[tuple[int, int]]:
    return [(client, max(end for _, end in found)) for client, found in ranges.items() if found]


def _covers(there: Iterable[tuple[int, int]], wanted: tuple[int, int]) -> bool:
    """Whether a range lies in one of those that are there."""
    return any(start <= wanted[0] and wanted[1] <= end for start, end in there)


def _halves(key: str) -> tuple[str, str]:
    action, _, target = key.partition("|")
    return action, target
