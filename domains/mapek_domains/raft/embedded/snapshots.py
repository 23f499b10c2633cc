"""Snapshots of what was agreed upon, instead of the entries that led there.

This stands in the place of PySyncObj's serializer, which writes and reads pickles. A snapshot is the state
machine's own bytes and the last two entries it holds, with a checksum; it is kept in the journal and sent in
chunks. A chunk that is not the next one ends what was begun: the leader begins again, and what is put
together is looked at before any of it is believed.
"""

from __future__ import annotations

from typing import Any
from zlib import crc32

import msgspec
from pysyncobj.config import SERIALIZER_STATE

from mapek_domains.raft.decisions import Decisions

from .journal import Journal
from .wire import MOST_CHUNK, Chunk

__all__ = ["MOST_SNAPSHOT", "Snapshot", "Snapshots", "pack_snapshot", "read_snapshot"]

MOST_SNAPSHOT = 1 << 24

Stored = tuple[bytes, int, int]


class Snapshot(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """The state, and the last but one and the last entry in it: command, index, term."""

    state: bytes
    before: Stored
    last: Stored


_decoder: msgspec.msgpack.Decoder[Snapshot] = msgspec.msgpack.Decoder(Snapshot)


def pack_snapshot(snapshot: Snapshot) -> bytes:
    """The bytes of a snapshot."""
    body = msgspec.msgpack.encode(snapshot)
    return crc32(body).to_bytes(4, "big") + body


def read_snapshot(data: bytes) -> Snapshot:
    """The snapshot of these bytes; raises ValueError, and only that, for anything else."""
    if crc32(data[4:]).to_bytes(4, "big") != data[:4]:
        raise ValueError("the checksum is wrong")
    try:
        snapshot = _decoder.decode(data[4:])
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise ValueError(f"not a snapshot: {error}") from None
    if snapshot.last[1] != snapshot.before[1] + 1 or snapshot.before[2] > snapshot.last[2]:
        raise ValueError("its two entries do not follow one another")
    return snapshot


class Snapshots:
    """Takes snapshots of `decisions`, sends the newest, and puts one that is received together.

    The methods with PySyncObj's names are called by it; the data that it passes on as a transmission is a
    `Chunk` and whether it is the last. `received` is the newest snapshot that came in whole and was good.
    """

    def __init__(self, journal: Journal, decisions: Decisions) -> None:
        self._journal = journal
        self._decisions = decisions
        self._taken: int | None = None
        self._sending: dict[Any, int] = {}
        self._coming: tuple[int, int, bytearray] | None = None
        self._index = 0
        if journal.base is not None:
            self._index = read_snapshot(journal.base).last[1]
        self.received: Snapshot | None = None

    def load(self) -> int:
        """Set the state to what the journal's snapshot holds; the index of its last entry, 1 without one.

        Raises ValueError for a snapshot that does not fit the log.
        """
        if self._journal.base is None:
            return 1
        snapshot = read_snapshot(self._journal.base)
        # What the snapshot holds may not have been cut off yet.
        place = snapshot.before[1] - self._journal.first
        if place < 0 or self._journal[place : place + 2] != [snapshot.before, snapshot.last]:
            raise ValueError("its log does not go on where its snapshot ends")
        if place:
            self._journal.deleteEntriesTo(place)
        self._decisions.load(snapshot.state)
        return snapshot.last[1]

    def take_chunk(self, chunk: Chunk) -> str:
        """Add what a leader sent: "" while more is to come, "whole", or a word that says why not."""
        if chunk.offset == 0:
            if chunk.size > MOST_SNAPSHOT:
                self._coming = None
                return "snapshot_too_long"
            self._coming = (chunk.index, chunk.size, bytearray())
        if self._coming is None:
            return "chunk_out_of_order"
        index, size, data = self._coming
        if (chunk.index, chunk.size, chunk.offset) != (index, size, len(data)):
            self._coming = None
            return "chunk_out_of_order"
        data += chunk.data
        if len(data) < size and chunk.data:
            return ""
        self._coming = None
        try:
            if len(data) != size:
                raise ValueError("it has another length")
            snapshot = read_snapshot(bytes(data))
            if snapshot.last[1] != index:
                raise ValueError("it ends with another entry")
            Decisions().load(snapshot.state)
        except ValueError:
            return "snapshot_damaged"
        self.received = snapshot
        return "whole"

    # What PySyncObj asks; the names are its own.

    def checkSerializing(self) -> tuple[int, int | None]:  # noqa: N802 - PySyncObj's name
        """Whether a snapshot was just taken, and from which entry on the log is still needed."""
        if self._taken is None:
            return SERIALIZER_STATE.NOT_SERIALIZING, None
        taken, self._taken = self._taken, None
        return SERIALIZER_STATE.SUCCESS, taken

    def serialize(self, data: tuple[Any, Stored, Stored, Any], first: int) -> None:
        """Take a snapshot: the state now is that after the first of the two entries."""
        _, last, before, _ = data
        self._journal.rest_on(pack_snapshot(Snapshot(self._decisions.dump(), before, last)))
        self._taken = first
        self._index = last[1]
        self._sending.clear()

    def getTransmissionData(self, node: Any) -> tuple[Chunk, bool, bool] | None:  # noqa: N802 - PySyncObj's name
        """The next chunk for a node, whether it is the first, and whether it is the last."""
        whole = self._journal.base
        if whole is None:
            return None
        offset = self._sending.get(node, 0)
        data = whole[offset : offset + MOST_CHUNK]
        last = offset + len(data) >= len(whole)
        if last:
            self._sending.pop(node, None)
        else:
            self._sending[node] = offset + len(data)
        return Chunk(self._index, len(whole), offset, data), offset == 0, last

    def setTransmissionData(self, whole: bool) -> bool:  # noqa: N802 - PySyncObj's name and call
        """Whether there is a snapshot to load; the chunks went to `take_chunk`."""
        return whole

    def deserialize(self) -> tuple[None, Stored, Stored, None]:
        """Set the state to the snapshot received; PySyncObj puts its two entries into the empty log."""
        snapshot = self.received
        assert snapshot is not None
        self.received = None
        self._decisions.load(snapshot.state)
        self._journal.rest_on(pack_snapshot(snapshot))
        self._index = snapshot.last[1]
        self._sending.clear()
        return None, snapshot.last, snapshot.before, None

    def cancelTransmisstion(self, node: Any) -> None:  # noqa: N802 - PySyncObj's name
        """The node cannot be heard: begin again when it can."""
        self._sending.pop(node, None)
