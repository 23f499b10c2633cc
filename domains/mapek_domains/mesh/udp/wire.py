"""The datagram of the UDP mesh: two letters, a version, and one MessagePack frame.

What comes from a socket is hostile until decoded: `decode` returns a frame or raises `FrameError`
with a short reason to count, and nothing else, whatever the bytes. Every text and list has a bound,
so a frame that decodes is small. Frames are not signed: whoever can send from a peer's address is
believed, so a mesh over a network that is not trusted belongs inside a tunnel.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from mapek_domains.mesh.probe import Probe
from mapek_runtime.errors import MapekError

__all__ = [
    "MAX_DATAGRAM",
    "MAX_PAYLOAD",
    "MAX_TTL",
    "Data",
    "Frame",
    "Hello",
    "Lsa",
    "LsaAck",
    "LsaLink",
    "FrameError",
    "decode",
    "encode",
]

MAX_DATAGRAM = 16_384
MAX_PAYLOAD = 15_000
MAX_TTL = 32
_HEAD = b"MK\x01"

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
_Trace = Annotated[str, msgspec.Meta(max_length=512)]
_U32 = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF_FFFF)]
_Cost = Annotated[int, msgspec.Meta(ge=1, le=65_535)]
_Digest = Annotated[list[tuple[_Name, _U32]], msgspec.Meta(max_length=512)]
_Heard = Annotated[list[_Name], msgspec.Meta(max_length=256)]


class FrameError(MapekError):
    """These bytes are not a frame; `reason` is one of a few words, to count by."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Hello(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """I am here; these neighbours I hear; this is the newest I know of every node."""

    node: _Name
    heard: _Heard
    digest: _Digest


class LsaLink(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One link as one end advertises it.

    `adjacent` says that both ends hear each other's hellos; only such links carry traffic. `silent`
    says that its sender hears no probes over the link: it tells others whether a node is dead or
    only a link, and routes do not depend on it.
    """

    peer: _Name
    cost: _Cost = 1
    adjacent: bool = True
    drained: bool = False
    silent: bool = False


class Lsa(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    """What one node says of its links; a higher `seq` replaces a lower one."""

    origin: _Name
    seq: _U32
    links: Annotated[list[LsaLink], msgspec.Meta(max_length=256)]


class LsaAck(msgspec.Struct, frozen=True, array_like=True, tag=4, gc=False):
    """That LSA arrived."""

    origin: _Name
    seq: _U32


class Data(msgspec.Struct, frozen=True, array_like=True, tag=5, gc=False):
    """One message on its way; `traceparent` is empty for one that is not traced."""

    id: Annotated[int, msgspec.Meta(ge=0)]
    source: _Name
    destination: _Name
    ttl: Annotated[int, msgspec.Meta(ge=1, le=MAX_TTL)]
    topic: _Name
    payload: Annotated[bytes, msgspec.Meta(max_length=MAX_PAYLOAD)]
    traceparent: _Trace = ""
    tracestate: _Trace = ""


Frame = Probe | Hello | Lsa | LsaAck | Data

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Frame] = msgspec.msgpack.Decoder(Frame)


def encode(frame: Frame) -> bytes:
    """The datagram of a frame; raises ValueError when it would be longer than `MAX_DATAGRAM`."""
    datagram = _HEAD + _encoder.encode(frame)
    if len(datagram) > MAX_DATAGRAM:
        raise ValueError(
            f"a {type(frame).__name__} of {len(datagram)} bytes; a datagram holds at most {MAX_DATAGRAM}"
        )
    return datagram


def decode(datagram: bytes) -> Frame:
    """The frame in a datagram; raises `FrameError`, and only that, for anything else."""
    if len(datagram) > MAX_DATAGRAM:
        raise FrameError("too_long")
    if datagram[:2] != _HEAD[:2]:
        raise FrameError("not_ours")
    if datagram[2:3] != _HEAD[2:]:
        raise FrameError("version")
    try:
        return _decoder.decode(memoryview(datagram)[3:])
    except msgspec.ValidationError:
        raise FrameError("invalid") from None
    # MessagePack nested some thousand levels deep ends in RecursionError, a bad text in
    # UnicodeDecodeError, which is a ValueError.
    except (msgspec.DecodeError, ValueError, RecursionError, MemoryError, OverflowError):
        raise FrameError("undecodable") from None
