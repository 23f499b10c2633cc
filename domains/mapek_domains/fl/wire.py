"""The messages of federated learning: two letters, a version, and one MessagePack frame.

Weights travel as what they are, little-endian float32 in the order of C, beside their shapes. What comes
from a peer is hostile until decoded: `decode` returns a message or raises `WireError` with a short reason
to count, and nothing else, whatever the bytes. Messages are not signed: whoever can send from a node's
address is believed, as in the mesh that carries them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from mapek_runtime.errors import MapekError

from .learner import Array, Weights

__all__ = [
    "FRESH",
    "MOST",
    "MOST_ROUND",
    "Arrays",
    "Ask",
    "Call",
    "Declined",
    "Download",
    "Fetch",
    "Message",
    "Model",
    "Part",
    "Ready",
    "Upload",
    "Version",
    "WireError",
    "arrays",
    "decode",
    "encode",
    "weights_of",
]

MOST = 4 * 1024 * 1024
"""Bytes of one message, weights and all: a million parameters."""
MOST_ROUND = 1 << 40
_HEAD = b"FL\x01"

_Name = Annotated[str, msgspec.Meta(max_length=64)]
_Kind = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
_Text = Annotated[str, msgspec.Meta(max_length=200)]
_U64 = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
_Side = Annotated[int, msgspec.Meta(ge=1, le=MOST // 4)]
_Shape = Annotated[tuple[_Side, ...], msgspec.Meta(max_length=4)]


class WireError(MapekError):
    """These bytes are not a message; `reason` is one of a few words, to count by."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Version(msgspec.Struct, frozen=True, array_like=True, order=True, gc=False):
    """Which model: the round that made it, and who coordinated that. The greater one is the newer."""

    round: Annotated[int, msgspec.Meta(ge=0, le=MOST_ROUND)]
    coordinator: _Name


FRESH = Version(0, "")
"""Of the model that nobody has trained."""


class Arrays(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Weights: the shape of each array, and the numbers of all of them."""

    shapes: Annotated[tuple[_Shape, ...], msgspec.Meta(max_length=64)]
    data: Annotated[bytes, msgspec.Meta(max_length=MOST)]


class Ask(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """There is something to learn from: begin a round."""

    reason: _Text


class Call(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """Who takes part in a round? `token` tells it from every other round, `have` is my model."""

    token: _U64
    have: Version


class Ready(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    """I do, with so many samples; with none I do not."""

    token: _U64
    have: Version
    samples: _Count


class Download(msgspec.Struct, frozen=True, array_like=True, tag=4, gc=False):
    """Train this model."""

    token: _U64
    base: Version
    kind: _Kind
    model: Arrays


class Upload(msgspec.Struct, frozen=True, array_like=True, tag=5, gc=False):
    """What my training made of it; `loss` is that of my samples after it."""

    token: _U64
    kind: _Kind
    samples: int
    loss: float
    model: Arrays


class Declined(msgspec.Struct, frozen=True, array_like=True, tag=6, gc=False):
    """I cannot, after all."""

    token: _U64
    reason: _Text


class Model(msgspec.Struct, frozen=True, array_like=True, tag=7, gc=False):
    """The newest model that I know."""

    version: Version
    kind: _Kind
    model: Arrays


class Fetch(msgspec.Struct, frozen=True, array_like=True, tag=8, gc=False):
    """Send me your model, if it is newer."""

    have: Version


class Part(msgspec.Struct, frozen=True, array_like=True, tag=9, gc=False):
    """A piece of a message of `size` bytes that is too long for one; `digest` is that of the whole."""

    digest: Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
    size: Annotated[int, msgspec.Meta(ge=1, le=MOST)]
    start: Annotated[int, msgspec.Meta(ge=0, le=MOST)]
    piece: Annotated[bytes, msgspec.Meta(min_length=1)]


Message = Ask | Call | Ready | Download | Upload | Declined | Model | Fetch | Part

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


def encode(message: Message) -> bytes:
    """The bytes of a message; raises ValueError for one of more than `MOST`."""
    payload = _HEAD + _encoder.encode(message)
    if len(payload) > MOST:
        raise ValueError(
            f"a {type(message).__name__} of {len(payload)} bytes; a message of federated learning holds at "
            f"most {MOST}, which is a model of about {MOST // 4} parameters"
        )
    return payload


def decode(payload: bytes) -> Message:
    """The message in `payload`; raises `WireError`, and only that, for anything else."""
    if len(payload) > MOST:
        raise WireError("too_long")
    if payload[:2] != _HEAD[:2]:
        raise WireError("not_ours")
    if payload[2:3] != _HEAD[2:]:
        raise WireError("version")
    try:
        return _decoder.decode(memoryview(payload)[3:])
    except msgspec.ValidationError:
        raise WireError("invalid") from None
    # MessagePack nested some thousand levels deep ends in RecursionError, a bad text in
    # UnicodeDecodeError, which is a ValueError.
    except (msgspec.DecodeError, ValueError, RecursionError, MemoryError, OverflowError):
        raise WireError("undecodable") from None


def arrays(weights: Sequence[NDArray[Any]]) -> Arrays:
    """Weights as they travel."""
    shapes = tuple(array.shape for array in weights)
    return Arrays(shapes, b"".join(np.ascontiguousarray(array, "<f4").tobytes() for array in weights))


def weights_of(model: Arrays) -> Weights:
    """The weights that came; they cannot be written to. Raises `WireError` where shapes and bytes differ."""
    sizes = [math.prod(shape) for shape in model.shapes]
    if 4 * sum(sizes) != len(model.data):
        raise WireError("size")
    numbers: Array = np.frombuffer(model.data, "<f4").astype(np.float32, copy=False)
    numbers.flags.writeable = False
    found, start = [], 0
    for shape, size in zip(model.shapes, sizes, strict=True):
        found.append(numbers[start : start + size].reshape(shape))
        start += size
    return tuple(found)
