"""The journal's bytes: what a node must not forget, record by record, and how it is read again.

A file begins with a word and its version; then records follow, each as its length, the checksum of its
body, the checksum of those two, and its body in MessagePack. Nothing is pickled, and nothing that comes out
of a file is believed before its checksum is right.

A crash can leave the last record short, or as zeros where the file had grown and its bytes had not come.
Nothing was promised on the strength of such a record, because a node speaks only after its journal was
written: it is cut off. Anything else that is wrong means that something which was written has changed, and
with it perhaps a vote: then `scan` raises `Damaged`, and the node must not take part with what is left.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Annotated
from zlib import crc32

import msgspec

from mapek_runtime.errors import MapekError

from .wire import MOST_INDEX

__all__ = ["HEAD", "Base", "Birth", "Commit", "Cut", "Damaged", "Life", "Put", "Read", "Record", "Term",
           "Voter", "pack", "scan"]  # fmt: skip

HEAD = b"MAPEKRAFT\x01"
_FRAME = struct.Struct("<III")
_BLOCK = 512
_ZEROS = 8

_Index = Annotated[int, msgspec.Meta(ge=0, le=MOST_INDEX)]
_U63 = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


class Damaged(MapekError):
    """These bytes are not a journal that a node may go on from; says where and why."""


class Birth(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """Whose journal this is. `identity` is random: a journal that was lost does not come back."""

    node: str
    group: int
    identity: _U63


class Life(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """The node started for the `number`th time with this journal."""

    number: _U63


class Voter(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    """From here on its vote counts."""


class Term(msgspec.Struct, frozen=True, array_like=True, tag=4, gc=False):
    """The newest term it knows, and for whom it voted in it; empty for nobody."""

    term: _Index
    voted_for: str = ""


class Put(msgspec.Struct, frozen=True, array_like=True, tag=5, gc=False):
    """An entry of the log."""

    index: _Index
    term: _Index
    command: bytes


class Cut(msgspec.Struct, frozen=True, array_like=True, tag=6, gc=False):
    """The entries from `index` on are not part of the log: another leader's are."""

    index: _Index


class Commit(msgspec.Struct, frozen=True, array_like=True, tag=7, gc=False):
    """The entries up to `index` are final."""

    index: _Index


class Base(msgspec.Struct, frozen=True, array_like=True, tag=8, gc=False):
    """A snapshot; the log begins with its last two entries."""

    snapshot: bytes


Record = Birth | Life | Voter | Term | Put | Cut | Commit | Base

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Record] = msgspec.msgpack.Decoder(Record)


@dataclass(slots=True)
class Read:
    """What stood in a journal."""

    birth: Birth | None = None
    """None for a file that ends before it; nothing was promised with it."""
    life: int = 0
    votes: bool = False
    term: int = 0
    voted_for: str = ""
    entries: list[tuple[bytes, int, int]] = field(default_factory=list)
    """Command, index, term."""
    commit: int = 0
    base: bytes | None = None
    length: int = 0
    """Bytes up to the end of the last whole record."""


def pack(*records: Record) -> bytes:
    """The bytes of records."""
    parts = []
    for record in records:
        body = _encoder.encode(record)
        sizes = struct.pack("<II", len(body), crc32(body))
        parts += [sizes, struct.pack("<I", crc32(sizes)), body]
    return b"".join(parts)


def scan(data: bytes) -> Read:
    """Read a journal; raises `Damaged` for one that does not say what was once written."""
    read = Read()
    if data[: len(HEAD)] != HEAD[: len(data)]:
        raise Damaged("it does not begin as a journal of this version does")
    place = len(HEAD)
    while len(data) - place >= _FRAME.size:
        length, checksum, sizes_checksum = _FRAME.unpack_from(data, place)
        start = place + _FRAME.size
        if crc32(data[place : place + 8]) != sizes_checksum:
            if not any(data[place:]):
                break
            raise Damaged(f"the record at byte {place} has a wrong head")
        if start + length > len(data):
            break
        body = data[start : start + length]
        if crc32(body) != checksum:
            if _never_came(data, start, start + length):
                break
            raise Damaged(f"the record at byte {place} has a wrong checksum")
        try:
            record = _decoder.decode(body)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise Damaged(f"the record at byte {place} is none: {error}") from None
        _take(read, record, place)
        place = start + length
        read.length = place
    return read


def _take(read: Read, record: Record, place: int) -> None:
    last = read.entries[-1] if read.entries else None
    if (read.birth is None) is not isinstance(record, Birth):
        raise Damaged(f"the record at byte {place} is not where it belongs: a journal has one beginning")
    match record:
        case Birth():
            read.birth = record
        case Life():
            read.life = record.number
        case Voter():
            read.votes = True
        case Term():
            if record.term < read.term:
                raise Damaged(f"at byte {place} term {record.term} follows {read.term}")
            read.term, read.voted_for = record.term, record.voted_for
        case Put():
            if last is not None and (record.index != last[1] + 1 or record.term < last[2]):
                raise Damaged(
                    f"at byte {place} entry {record.index} of term {record.term} follows {last[1:]}"
                )
            read.entries.append((record.command, record.index, record.term))
        case Cut():
            first = read.entries[0][1] if read.entries else 0
            if not max(first, read.commit) < record.index:
                raise Damaged(f"at byte {place} entries from {record.index} on are cut, and they are final")
            del read.entries[record.index - first :]
        case Commit():
            if last is None or record.index > last[1]:
                raise Damaged(f"at byte {place} entry {record.index} is final, and it is not there")
            read.commit = max(read.commit, record.index)
        case Base():
            read.base = record.snapshot


def _never_came(data: bytes, start: int, end: int) -> bool:
    """Whether the last block of a body, and all after it, is zeros: more of them than a bit that turned."""
    block = max(start, (end - 1) // _BLOCK * _BLOCK)
    return end - block >= _ZEROS and not any(data[block:])
