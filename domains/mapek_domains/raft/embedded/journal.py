"""The journal of one node: its log, its vote and its term, in memory and on disk.

`Journal` is what PySyncObj reads and writes, in place of its own, which forgets a vote that it cannot
unpickle and loses entries when it ends while it compacts. All of it is in memory; what changed is kept as
records until `take` gives it to be written. Between the two nothing may be told to anybody that rests on
the change: see `member`. `JournalFile` is the file: its methods block, one thread at a time calls them.

A journal that is new, or was lost, has no vote until the group lets it in: see `Voter` and `replica`.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

from mapek_runtime.errors import ConfigError

from .records import HEAD, Base, Birth, Commit, Cut, Damaged, Life, Put, Read, Record, Term, Voter, pack, scan
from .wire import NO_OP

__all__ = ["Batch", "Journal", "JournalFile", "until_done"]

# macOS has no fdatasync.
_sync = getattr(os, "fdatasync", os.fsync)
_GROWN = 1 << 20
"""Bytes after which a file whose log is short is written anew."""

Batch = tuple[bool, bytes]
"""Bytes to write, and whether they replace all that is there."""


async def until_done(work: asyncio.Future[Any]) -> None:
    """Wait for work in a thread that cannot be cancelled, in a task that is, however often."""
    while not work.done():
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError:
            continue


class Journal:
    """The log and what else a node must not forget; entries are (command, index, term)."""

    def __init__(self, birth: Birth, read: Read | None = None) -> None:
        self.birth = birth
        read = read or Read()
        self.life = read.life
        self.votes = read.votes
        self.base = read.base
        self._entries = read.entries
        self._term, self._voted_for = read.term, read.voted_for
        self._commit = self._written_commit = read.commit
        self._size = read.length
        self._changes: list[Record] = []
        self._anew = False
        if not self._entries:
            # Every log begins with the same entry, so that none is ever empty.
            self._entries = [(NO_OP, 1, 0)]
            self._anew = True

    # What PySyncObj asks; the names are its own.

    def __len__(self) -> int:
        return len(self._entries)

    @overload
    def __getitem__(self, place: int) -> tuple[bytes, int, int]: ...
    @overload
    def __getitem__(self, place: slice) -> list[tuple[bytes, int, int]]: ...
    def __getitem__(self, place: int | slice) -> tuple[bytes, int, int] | list[tuple[bytes, int, int]]:
        return self._entries[place]

    def add(self, command: bytes, idx: int, term: int) -> None:
        """One more entry."""
        self._entries.append((command, idx, term))
        self._changes.append(Put(idx, term, command))

    def clear(self) -> None:
        """No entry at all; a snapshot's two follow at once."""
        self._entries = []
        self._anew = True

    def deleteEntriesFrom(self, place: int) -> None:  # noqa: N802 - PySyncObj's name
        """Without the entries from that place on."""
        if place < len(self._entries):
            self._changes.append(Cut(self._entries[place][1]))
            del self._entries[place:]

    def deleteEntriesTo(self, place: int) -> None:  # noqa: N802 - PySyncObj's name
        """Without the entries before that place; a snapshot holds what they did."""
        self._entries = self._entries[place:]
        self._anew = True

    def setRaftCommitIndex(self, index: int) -> None:  # noqa: N802 - PySyncObj's name
        """Up to there all is final. Written with whatever is written next: it can be learned again."""
        self._commit = index

    def getRaftCommitIndex(self) -> int:  # noqa: N802 - PySyncObj's name
        """Up to where all was final when it was last written."""
        return max(1, self._commit)

    def setCurrentTerm(self, term: int, voted_for: str | None) -> None:  # noqa: N802 - PySyncObj's name
        """The newest term, and the vote in it."""
        self._term, self._voted_for = term, voted_for or ""
        self._changes.append(Term(term, self._voted_for))

    def getCurrentTerm(self) -> int:  # noqa: N802 - PySyncObj's name
        """The newest term."""
        return self._term

    def getVotedForNodeId(self) -> str | None:  # noqa: N802 - PySyncObj's name
        """The vote in it."""
        return self._voted_for or None

    def onOneSecondTimer(self) -> None:  # noqa: N802 - PySyncObj's name
        """Now and then what is final is written even when nothing else is."""
        if self._commit > self._written_commit and not self.pending:
            self._changes.append(Commit(self._commit))
            self._written_commit = self._commit

    def _destroy(self) -> None:
        """Nothing: the file is closed by whoever opened it."""

    # What we ask

    @property
    def first(self) -> int:
        """The index of the first entry."""
        return self._entries[0][1]

    @property
    def last(self) -> int:
        """The index of the last entry."""
        return self._entries[-1][1]

    def term_at(self, index: int) -> int | None:
        """The term of an entry; None where there is none."""
        place = index - self.first
        return self._entries[place][2] if 0 <= place < len(self._entries) else None

    def begin_life(self) -> None:
        """The node starts."""
        self.life += 1
        self._changes.append(Life(self.life))

    def let_vote(self) -> None:
        """From now on the node's vote counts."""
        self.votes = True
        self._changes.append(Voter())

    def rest_on(self, snapshot: bytes) -> None:
        """This snapshot holds what the entries before the log did."""
        self.base = snapshot
        self._anew = True

    @property
    def pending(self) -> bool:
        """Whether something is not written yet."""
        return self._anew or bool(self._changes)

    def take(self) -> Batch:
        """What is to be written now; it counts as written from then on."""
        commit = min(self._commit, self.last)
        if self._anew or (self._size > _GROWN and self._size > 4 * self._needed()):
            records: list[Record] = [self.birth, Life(self.life)]
            records += [Voter()] if self.votes else []
            records += [Term(self._term, self._voted_for)]
            records += [Base(self.base)] if self.base is not None else []
            records += [Put(index, term, command) for command, index, term in self._entries]
            records += [Commit(commit)]
            batch = True, HEAD + pack(*records)
            self._size = 0
        else:
            if commit > self._written_commit:
                self._changes.append(Commit(commit))
            batch = False, pack(*self._changes)
        self._written_commit = commit
        self._size += len(batch[1])
        self._changes = []
        self._anew = False
        return batch

    def _needed(self) -> int:
        """About how many bytes what is still needed has."""
        return len(self.base or b"") + sum(len(entry[0]) + 64 for entry in self._entries)


class JournalFile:
    """The file of a journal, held by this process alone; every method blocks.

    `durable`: what was written survives the machine, and not only the process.
    """

    def __init__(self, path: Path, *, durable: bool) -> None:
        self._path = path
        self._durable = durable
        self._file = -1
        self._lock = -1

    def open(self, node_id: str, group: int) -> Journal:
        """Read what is there, or begin; the start of a life is noted and not written yet.

        Raises `ConfigError` for a journal that is damaged, is another node's, or is in use.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._hold()
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            data = b""
        try:
            read = scan(data)
        except Damaged as damage:
            raise ConfigError(
                f"the journal {self._path} is damaged: {damage}. What it says of votes cannot be trusted: "
                f"move it away, and {node_id!r} comes back without a vote until the others let it in again"
            ) from None
        birth = read.birth
        if birth is None:
            journal = Journal(Birth(node_id, group, secrets.randbits(62) | 1))
        elif (birth.node, birth.group) != (node_id, group):
            raise ConfigError(
                f"the journal {self._path} is that of {birth.node!r} in another group, and {node_id!r} is to "
                "run with it; every node needs its own, or it would speak with another's votes"
            )
        else:
            journal = Journal(birth, read)
            # What follows is the record that a crash cut short.
            os.truncate(self._path, read.length)
            self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        journal.begin_life()
        return journal

    def write(self, batches: Sequence[Batch]) -> None:
        """Write batches in their order; raises OSError, and then nothing may be told that rests on them."""
        for anew, data in batches:
            if anew:
                self._replace(data)
            else:
                view = memoryview(data)
                while view:
                    view = view[os.write(self._file, view) :]
        if self._durable and self._file >= 0:
            _sync(self._file)

    def close(self) -> None:
        """Let go of the file; what was not written is lost, as in a crash."""
        for descriptor in (self._file, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._lock = -1

    def _hold(self) -> None:
        self._lock = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            self._lock = -1
            raise ConfigError(
                f"the journal {self._path} is in use by another process; one node runs once, or it would "
                "vote twice: stop the other, or give this one a --state of its own"
            ) from None

    def _replace(self, data: bytes) -> None:
        """The whole file at once: whenever the process ends, either the old one is there or the new one."""
        beside = self._path.with_suffix(".new")
        new = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(new, view) :]
            if self._durable:
                os.fsync(new)
            beside.replace(self._path)
        except BaseException:
            os.close(new)
            raise
        if self._file >= 0:
            os.close(self._file)
        self._file = new
        if self._durable:
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
