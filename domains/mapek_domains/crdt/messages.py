"""The messages between nodes: two letters, a version, and one MessagePack frame.

What comes from a peer is hostile until decoded: `decode` returns a frame or raises `Refused` with a reason
to count. The documents themselves are compared and completed with the messages of Yjs' sync protocol
(y-protocols, `sync.js`), which the frame `Sync` carries.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import msgspec
from pycrdt import YMessageType, YSyncMessageType, write_message

from .update import Refused, read_message

__all__ = [
    "DIGEST",
    "MOST_PARTS",
    "Again",
    "Compare",
    "Frame",
    "Part",
    "Said",
    "Sync",
    "YSyncMessageType",
    "decode",
    "encode",
    "read_sync",
    "step1",
    "step2",
    "update_message",
]

DIGEST = 16
MOST_PARTS = 4096
_HEAD = b"KC\x01"

_U32 = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF_FFFF)]
_Index = Annotated[int, msgspec.Meta(ge=0, lt=MOST_PARTS)]
_Body = Annotated[bytes, msgspec.Meta(min_length=1, max_length=65_536)]


class Compare(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """This is the digest of my document: if yours is another, ask me."""

    digest: Annotated[bytes, msgspec.Meta(min_length=DIGEST, max_length=DIGEST)]


class Sync(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """One message of Yjs' sync protocol; with `ask_back`, ask in turn for what I have."""

    message: Annotated[bytes, msgspec.Meta(min_length=2)]
    ask_back: bool = False


class Part(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    """A piece of a frame that is too long for one message."""

    id: _U32
    index: _Index
    count: Annotated[int, msgspec.Meta(ge=2, le=MOST_PARTS)]
    body: _Body


class Again(msgspec.Struct, frozen=True, array_like=True, tag=4, gc=False):
    """These parts have not arrived."""

    id: _U32
    missing: Annotated[list[_Index], msgspec.Meta(min_length=1, max_length=MOST_PARTS)]


Frame = Compare | Sync | Part | Again

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Frame] = msgspec.msgpack.Decoder(Frame)


def encode(frame: Frame) -> bytes:
    """The bytes of a frame."""
    return _HEAD + _encoder.encode(frame)


def decode(payload: bytes) -> Frame:
    """The frame in a message; raises `Refused`, and only that, for anything else."""
    if payload[:2] != _HEAD[:2]:
        raise Refused("not_ours")
    if payload[2:3] != _HEAD[2:]:
        raise Refused("version")
    try:
        return _decoder.decode(memoryview(payload)[3:])
    except (msgspec.DecodeError, ValueError, RecursionError, MemoryError, OverflowError):
        raise Refused("undecodable") from None


class Said(NamedTuple):
    """What a message of the sync protocol says: a state vector for step 1, an update for the others."""

    kind: YSyncMessageType
    body: bytes


def read_sync(message: bytes) -> Said:
    """One message of Yjs' sync protocol; raises `Refused` for anything else."""
    if len(message) < 3 or message[0] != YMessageType.SYNC or message[1] > YSyncMessageType.SYNC_UPDATE:
        raise Refused("malformed")
    return Said(YSyncMessageType(message[1]), read_message(message[2:]))


def step1(state: bytes) -> bytes:
    """This is my state: send me what I lack."""
    return _say(YSyncMessageType.SYNC_STEP1, state)


def step2(update: bytes) -> bytes:
    """This is what you lack."""
    return _say(YSyncMessageType.SYNC_STEP2, update)


def update_message(update: bytes) -> bytes:
    """This is new."""
    return _say(YSyncMessageType.SYNC_UPDATE, update)


def _say(kind: YSyncMessageType, body: bytes) -> bytes:
    return bytes((YMessageType.SYNC, kind)) + write_message(body)
