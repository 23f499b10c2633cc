"""The message between two nodes of a group: two letters, a version, and one MessagePack frame.

Every frame says who sent it, in which life, and in which term it was then, because a datagram can come
late, twice, or after the one that followed it. `decode` gives a frame or raises `FrameError` with a short
reason to count, and nothing else, whatever the bytes. Nothing is ever unpickled. Frames are not signed:
whoever the links deliver for is believed, as everything on the mesh is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import Annotated
from zlib import crc32

import msgspec

from mapek_domains.raft.commands import MOST_COMMAND, CommandError
from mapek_domains.raft.commands import decode as decode_command
from mapek_runtime.errors import MapekError

__all__ = [
    "MOST_CHUNK",
    "MOST_FRAME",
    "MOST_INDEX",
    "NO_OP",
    "REGULAR",
    "Append",
    "Ask",
    "Body",
    "Chunk",
    "Entry",
    "Frame",
    "FrameError",
    "Hello",
    "Progress",
    "Propose",
    "Say",
    "Vote",
    "check_entry",
    "decode",
    "encode",
    "group_of",
    "promises_nothing",
    "split",
]

MOST_FRAME = 15_000
MOST_CHUNK = 12_000
MOST_INDEX = (1 << 62) - 1
"""The last index and the last term that there can be."""
REGULAR = b"\x00"
NO_OP = b"\x01"
"""What an entry begins with: a command of ours, or nothing at all. PySyncObj has two more, whose pickles it
would load; no peer may send one."""
_MOST_ENTRIES = 512
_ENTRY_ROOM = 16
_FRAME_ROOM = 1_000
_HEAD = b"MR\x01"

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
_U32 = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF_FFFF)]
_U63 = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
_Index = Annotated[int, msgspec.Meta(ge=0, le=MOST_INDEX)]
_Command = Annotated[bytes, msgspec.Meta(min_length=1, max_length=MOST_COMMAND + 1)]

Entry = tuple[_Index, _Command]
"""An entry on its way, term and command; its index is that of its place."""


class FrameError(MapekError):
    """These bytes are not a frame; `reason` is one of a few words, to count by."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Say(IntEnum):
    """What a node says of itself in every frame."""

    BLANK = 0
    """Its journal is new: it has no vote, and what it holds does not count towards a majority."""
    FOUNDING = 1
    """It votes, and its log is empty: it knows of nothing that may have been agreed upon."""
    SETTLED = 2
    """It votes, and holds entries."""


class Hello(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """I am here, and hear no leader."""


class Ask(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """Vote for me, in the term of the frame; `straw`: would you, in the term after it?"""

    last_index: _Index
    last_term: _Index
    straw: bool = False


class Vote(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    """I vote for you in `term`; `straw`: I would."""

    term: _Index
    straw: bool = False


class Append(msgspec.Struct, frozen=True, array_like=True, tag=4, gc=False):
    """These entries follow the one at `prev_index`; without entries, a sign of life."""

    prev_index: _Index
    prev_term: _Index
    commit: _Index
    entries: Annotated[list[Entry], msgspec.Meta(max_length=_MOST_ENTRIES)]


class Chunk(msgspec.Struct, frozen=True, array_like=True, tag=5, gc=False):
    """The bytes from `offset` on of the snapshot that ends with the entry at `index`."""

    index: _Index
    size: _U32
    offset: _U32
    data: Annotated[bytes, msgspec.Meta(max_length=MOST_CHUNK)]


class Progress(msgspec.Struct, frozen=True, array_like=True, tag=6, gc=False):
    """Send me what is at `next` now.

    `matches`: I hold everything before it as you do. `reset`: go there even where you were further.
    """

    next: _Index
    matches: bool
    reset: bool


class Propose(msgspec.Struct, frozen=True, array_like=True, tag=7, gc=False):
    """You lead: put this command into the log."""

    command: Annotated[bytes, msgspec.Meta(max_length=MOST_COMMAND)]


Body = Hello | Ask | Vote | Append | Chunk | Progress | Propose


class Frame(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A body, and who sends it: `identity` is that of the sender's journal, and `life` counts its starts.

    `seq` grows by one with each frame of that life to the same node; `to` is the identity of that node's
    journal, 0 while it is not known. `term` is the sender's when it sent. `group` stands for the members.
    """

    group: _U32
    sender: _Name
    identity: _U63
    life: _U32
    seq: _U63
    to: _U63
    say: Say
    term: _Index
    body: Body


_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Frame] = msgspec.msgpack.Decoder(Frame)


def encode(frame: Frame) -> bytes:
    """The message of a frame; raises ValueError when it would be longer than `MOST_FRAME`."""
    message = _HEAD + _encoder.encode(frame)
    if len(message) > MOST_FRAME:
        raise ValueError(
            f"a {type(frame.body).__name__} of {len(message)} bytes; a message holds at most {MOST_FRAME}"
        )
    return message


def decode(message: bytes) -> Frame:
    """The frame in a message; raises `FrameError`, and only that, for anything else."""
    if len(message) > MOST_FRAME:
        raise FrameError("too_long")
    if message[:2] != _HEAD[:2]:
        raise FrameError("not_ours")
    if message[2:3] != _HEAD[2:]:
        raise FrameError("version")
    try:
        frame = _decoder.decode(memoryview(message)[3:])
    except msgspec.ValidationError:
        raise FrameError("invalid") from None
    except (msgspec.DecodeError, ValueError, RecursionError, MemoryError, OverflowError):
        raise FrameError("undecodable") from None
    if isinstance(frame.body, Append):
        _check_append(frame.body, frame.term)
    return frame


def check_entry(command: bytes) -> None:
    """Raises `FrameError` for what may not stand in the log."""
    kind = command[:1]
    if kind == REGULAR:
        try:
            decode_command(command[1:])
        except CommandError:
            raise FrameError("command") from None
    elif command != NO_OP:
        # PySyncObj's own: a change of the members, of the version of the code.
        raise FrameError("command_kind")


def split(body: Append) -> Iterator[Append]:
    """The same entries in as many frames as are needed for each to fit in a message."""
    first, room, prev_term = 0, MOST_FRAME - _FRAME_ROOM, body.prev_term
    for place, (_term, command) in enumerate(body.entries):
        size = len(command) + _ENTRY_ROOM
        if place > first and (size > room or place - first >= _MOST_ENTRIES):
            yield Append(body.prev_index + first, prev_term, body.commit, body.entries[first:place])
            prev_term = body.entries[place - 1][0]
            first, room = place, MOST_FRAME - _FRAME_ROOM
        room -= size
    yield Append(body.prev_index + first, prev_term, body.commit, body.entries[first:])


def promises_nothing(body: Body) -> bool:
    """Whether it may be said whatever becomes of the journal: it tells of no entry, and of no vote."""
    match body:
        case Append():
            return body.prev_index == 0 and not body.entries
        case Progress():
            return body.next <= 1
        case Ask() | Vote():
            return body.straw
        case Hello():
            return True
        case Chunk() | Propose():
            return False


def group_of(members: Sequence[str]) -> int:
    """A number for the list of members: nodes with different lists are of different groups."""
    return crc32(repr(sorted(members)).encode())


def _check_append(body: Append, term: int) -> None:
    before = body.prev_term
    for entry_term, command in body.entries:
        # Terms never go back along a log, nor beyond the leader's own.
        if not before <= entry_term <= term:
            raise FrameError("terms")
        before = entry_term
        check_entry(command)
    if before > term:
        raise FrameError("terms")
