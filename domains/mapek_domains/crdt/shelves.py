"""The shelves that one life of a node writes, and how old values on them are swept away.

Every value that is written over leaves a tombstone. When there are more of them than of what stands there,
the writer puts what stands there onto a new shelf and deletes the old one: of a deleted shelf the engine
keeps one range, however much was on it. Call everything here inside a transaction.
"""

from __future__ import annotations

from collections.abc import Mapping

from pycrdt import Map

from .entries import Entry, Kind, Shelf, encode

__all__ = ["SEGMENT", "OwnShelf", "Root", "Roots"]

Root = Map[Map[str]]
Roots = Mapping[Kind, Root]

SEGMENT = 64
"""Incidents on one shelf: they are never written over, and a shelf of them is deleted as a whole."""
_WORTH_SWEEPING = 2048


class OwnShelf:
    """The present shelf of one kind; `entries` is what this life has put on it."""

    def __init__(self, kind: Kind, life: str, node: str) -> None:
        self.kind = kind
        self.entries: dict[str, str] = {}
        self._life = life
        self._node = node
        self._number = 0
        self._stands = False
        self._written_over = 0

    @property
    def name(self) -> str:
        """Under which it stands in the root of its kind, once something is on it."""
        return str(Shelf(self._life, self._number, self._node))

    def put(self, root: Root, key: str, entry: Entry) -> None:
        """Write an entry."""
        self._written_over += key in self.entries
        self.entries[key] = encode(entry)
        shelf = self._shelf(root)
        if shelf is None:
            self._stand(root)
        else:
            shelf[key] = self.entries[key]

    def again(self, root: Root, key: str) -> None:
        """Write an entry once more because somebody else has, or delete what is not this life's."""
        shelf = self._shelf(root)
        if shelf is None:
            return
        if key in self.entries:
            self._written_over += 1
            shelf[key] = self.entries[key]
        elif key in shelf:
            del shelf[key]

    def mend(self, root: Root, entries: Mapping[str, str]) -> None:
        """Put these entries onto a new shelf: somebody else has deleted this one, or put another there."""
        if self.name in root:
            del root[self.name]
        self.leave()
        self.entries = dict(entries)
        if entries:
            self._stand(root)

    def sweep(self, root: Root) -> None:
        """Move to a new shelf where this one holds more tombstones than it is worth."""
        if not self._stands or self._written_over <= max(_WORTH_SWEEPING, 2 * len(self.entries)):
            return
        old = self.name
        self._stand(root)
        if old in root:
            del root[old]

    def leave(self) -> None:
        """Begin a new shelf with the next entry; the present one stays where it is."""
        self.entries = {}
        self._written_over = 0
        self._number += self._stands
        self._stands = False

    def _shelf(self, root: Root) -> Map[str] | None:
        # Looked up each time: the engine frees what is deleted, and what was got before points nowhere then.
        shelf = root.get(self.name) if self._stands else None
        return shelf if isinstance(shelf, Map) else None

    def _stand(self, root: Root) -> None:
        self._number += self._stands
        self._stands = True
        self._written_over = 0
        root[self.name] = Map(self.entries)
