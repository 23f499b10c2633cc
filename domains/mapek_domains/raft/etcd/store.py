"""What is asked of etcd, and what it answers, as values: nothing here knows gRPC.

etcd counts every change of its keys: a *revision* is the number of one. A key knows the revisions at
which it was created and last modified, and how often it was written since it was created (its *version*).
A *lease* is a time after which etcd deletes the keys that were written under it, unless it is kept alive.
A *transaction* compares, and does one thing or another, at one revision (etcd's API reference, KV.Txn).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

__all__ = [
    "Answer",
    "Batch",
    "CallFailed",
    "Compacted",
    "Compare",
    "Delete",
    "Deletion",
    "Get",
    "KeyValue",
    "LeaseGone",
    "Operation",
    "Put",
    "Snapshot",
    "Store",
    "absent",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyValue:
    """A key as etcd has it; bytes of its name that are no text are escaped as lone surrogates."""

    key: str
    value: bytes
    created: int
    modified: int
    version: int
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Compare:
    """What must hold of a key; each of the three numbers is 0 of a key that is not there."""

    key: str
    what: Literal["created", "modified", "version"]
    equals: int


@dataclass(frozen=True, slots=True)
class Put:
    """Write a key, under a lease unless that is 0."""

    key: str
    value: bytes
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Get:
    """Read a key."""

    key: str


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete a key; the answer has what it was."""

    key: str


Operation = Put | Get | Delete


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What became of a transaction.

    `found` has one item for each operation that was done: what a `Get` read and a `Delete` took away, None
    where nothing was there, and for a `Put`. `revision` is the store's after it, `raft_term` that of etcd's
    own leader. A transaction of more than one `attempts` may have been done by an earlier one, whose answer
    was lost.
    """

    succeeded: bool
    revision: int
    raft_term: int
    found: tuple[KeyValue | None, ...]
    attempts: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All keys of a prefix at one revision; of `skipped` ones the value was too long to be read."""

    revision: int
    pairs: tuple[KeyValue, ...]
    skipped: int = 0


@dataclass(frozen=True, slots=True)
class Deletion:
    """A key is gone since `revision`."""

    key: str
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Changes in the order of their revisions; a sign of life where there are none.

    `whole` is false where more of the last revision is to come.
    """

    changes: tuple[KeyValue | Deletion, ...] = ()
    whole: bool = True


class CallFailed(Exception):
    """A server did not do what it was asked, or did not say so; another one may."""


class LeaseGone(Exception):
    """The lease is not there (any more)."""


class Compacted(Exception):
    """What is asked for lies before the history that etcd has kept."""


class Store(Protocol):
    """A cluster. Every method asks until it has an answer: bound it by `asyncio.timeout`.

    A call that was cut short may have been carried out all the same, or may be later.
    """

    async def transact(
        self, compares: Sequence[Compare], then: Sequence[Operation], otherwise: Sequence[Operation] = ()
    ) -> Answer:
        """Do `then` where all comparisons hold, else `otherwise`; raises `LeaseGone`."""

    async def read(self, prefix: str) -> Snapshot:
        """All keys that begin with `prefix`, as a majority has them."""

    async def read_at(self, key: str, revision: int) -> KeyValue | None:
        """The key as it was at an earlier revision; raises `Compacted`."""

    async def grant(self, lease: int, seconds: int) -> int:
        """Make a lease of that number (of your own choice, not 0); returns its seconds, maybe more."""

    async def keep_alive(self, lease: int) -> int:
        """Begin the lease's time anew; returns its seconds, raises `LeaseGone`."""

    async def revoke(self, lease: int) -> int:
        """End a lease and delete its keys, at one revision; returns it, or 0 when it is gone."""

    def watch(self, prefix: str, start: int) -> AbstractAsyncContextManager[AsyncIterator[Batch]]:
        """Changes from revision `start` on; `CallFailed` when they cannot be followed any more."""


def absent(key: str) -> Compare:
    """Holds of a key that is not there."""
    return Compare(key, "modified", 0)
