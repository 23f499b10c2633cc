"""The engine under the document: Yrs by pycrdt, and what has to be kept in mind with it.

* What is deleted is freed: an object that stands for a shelf must not be kept, only its name.
* An update may fail in the middle, or wait inside for what never comes: each is tried on a second document.
* An update that says again what is known already, but otherwise, leads astray: only its news are applied.
* Observers are held by the engine, and hold it: they must not hold on to whoever made it.
* Ranges of deleted changes that touch are joined only when a document is read anew.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from pycrdt import Doc, Map, Snapshot, Subscription, get_update, merge_updates

from .entries import KINDS, Kind
from .shelves import Root
from .update import Contents, Ranges, Refused, read_snapshot, read_state

__all__ = ["EMPTY", "Engine", "Touched", "merged"]

EMPTY = b"\x00\x00"
"""The update that does nothing."""
Touched = tuple[Kind, str, Mapping[str, Any] | None]
"""Kind, shelf, and the entries that were changed; None: the shelf came or went."""


class Engine:
    """One document; `client` is the id that every change made here carries."""

    def __init__(self) -> None:
        self._said: list[bytes] = []
        self._is_own: list[bool] = []
        self._seen: list[Touched] = []
        self._observing: list[Subscription] = []
        self._open(Doc())
        self._trial: Doc[Root] = Doc()
        self.client: int = self._doc.client_id
        weakref.finalize(self, _let_go, self._observing).atexit = False

    def apply(self, contents: Contents) -> dict[int, int]:
        """Take an update in, and return the state; raises `Refused`, and leaves everything as it was."""
        update = contents.update
        try:
            self._trial.apply_update(update)
            clocks = read_state(self._trial.get_state())
            if any(clocks.get(client, 0) < end for client, (_, end) in contents.added.items()):
                raise Refused("unplaced")
        except BaseException as error:
            self._trial = Doc()
            self._trial.apply_update(self._doc.get_update())
            # A panic of the engine is no Exception.
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            raise Refused(error.reason if isinstance(error, Refused) else "malformed") from error
        self._doc.apply_update(update)
        return clocks

    def transaction(self) -> AbstractContextManager[object]:
        """A block whose changes are one update; ask for it by `said` afterwards."""
        self._said.clear()
        self._is_own.append(True)
        return self._doc.transaction()

    def said(self) -> bytes:
        """The update of the last transaction; empty where it changed nothing."""
        update = self._said[-1] if self._said else b""
        self._said.clear()
        self._is_own.clear()
        if update == EMPTY:
            return b""
        if update:
            self._trial.apply_update(update)
        return update

    def seen(self) -> Sequence[Touched]:
        """What was touched since this was asked for the last time."""
        seen = tuple(self._seen)
        self._seen.clear()
        return seen

    def state(self) -> bytes:
        """The state vector."""
        return self._doc.get_state()

    def clocks(self) -> dict[int, int]:
        """Client → how many changes of it are there."""
        return read_state(self._doc.get_state())

    def snapshot(self) -> tuple[Ranges, dict[int, int]]:
        """What is deleted, and what is there."""
        return read_snapshot(Snapshot.from_doc(self._doc).encode())

    def update(self, state: bytes | None = None) -> bytes:
        """What whoever has that state lacks; all of it without one."""
        return self._doc.get_update(state)

    def news_of(self, update: bytes) -> bytes:
        """What of an update is not here yet."""
        return get_update(update, self._doc.get_state())

    def build_anew(self) -> bytes:
        """Read the document anew, which joins what is deleted; returns the whole."""
        whole = self._doc.get_update()
        document: Doc[Root] = Doc(client_id=self.client)
        document.apply_update(whole)
        _let_go(self._observing)
        self._open(document)
        whole = document.get_update()
        self._trial = Doc()
        self._trial.apply_update(whole)
        return whole

    def _open(self, document: Doc[Root]) -> None:
        said, seen, is_own = self._said, self._seen, self._is_own
        self._doc = document
        self.roots: dict[Kind, Root] = {kind: document.get(kind, type=Map) for kind in KINDS}
        self._observing.append(document.observe(lambda event: said.append(event.update) if is_own else None))
        self._observing += [
            root.observe_deep(partial(_note, seen, kind)) for kind, root in self.roots.items()
        ]


def merged(updates: Sequence[bytes]) -> bytes:
    """One update that does what these do; only for such as were examined."""
    return merge_updates(*updates)


def _note(seen: list[Touched], kind: Kind, events: Sequence[Any]) -> None:
    """Note what was touched; it is read when the transaction is over."""
    for event in events:
        keys = getattr(event, "keys", None)
        if not isinstance(keys, dict):
            continue
        path = event.path
        if not path:
            seen.extend((kind, name, None) for name in keys)
        elif len(path) == 1:
            seen.append((kind, str(path[0]), keys))


def _let_go(observing: list[Subscription]) -> None:
    for each in observing:
        each.drop()
    observing.clear()
