"""What stands in the log: typed commands of bounded size, in MessagePack.

`decode` is for bytes that a peer sent as well: it gives a command or raises `CommandError`, and nothing
else, whatever the bytes. Durations are whole microseconds, so that no command holds a number that is none.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from mapek_runtime.errors import MapekError

__all__ = [
    "MOST_COMMAND",
    "MOST_HOLD",
    "MOST_KEY",
    "MOST_VALUE",
    "Admit",
    "Claim",
    "Command",
    "CommandError",
    "Configure",
    "Expire",
    "Lead",
    "Release",
    "Request",
    "decode",
    "encode",
]

MOST_KEY = 200
"""Characters of a claim's key and of a configured name."""
MOST_VALUE = 700
"""Characters of a configured value."""
MOST_HOLD = 86_400.0
"""Seconds for which a key is given at most."""
MOST_COMMAND = 4096
"""Bytes of a command at most; four bytes a character leave room for the rest."""

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
_Key = Annotated[str, msgspec.Meta(min_length=1, max_length=MOST_KEY)]
_Value = Annotated[str, msgspec.Meta(max_length=MOST_VALUE)]
_U63 = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
_Hold = Annotated[int, msgspec.Meta(ge=1, le=round(MOST_HOLD * 1e6))]


class CommandError(MapekError):
    """These bytes are not a command."""


class Request(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Who asks, and which of its questions it is: asked again, it is answered as the first time.

    `session` is a random number of one life of the owner, `number` grows by one with each question, and
    all below `settled` are answered and will not be asked again (Ongaro's dissertation, section 6.3).
    """

    owner: _Name
    session: _U63
    number: _U63
    settled: _U63 = 0


class Lead(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """A new leader says so, in the first entry of its term but one."""

    node: _Name
    term: _U63


class Claim(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """`owner` of the request wants `key` for itself, for `hold_us` microseconds on the leader's clock."""

    request: Request
    key: _Key
    hold_us: _Hold
    leader_only: bool = False


class Release(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    """The owner gives back what it was granted with that `fence`."""

    request: Request
    key: _Key
    fence: _U63


class Expire(msgspec.Struct, frozen=True, array_like=True, tag=4, gc=False):
    """The leader found that the time of that grant is over."""

    key: _Key
    fence: _U63


class Configure(msgspec.Struct, frozen=True, array_like=True, tag=5, gc=False):
    """A value for all; with `expected`, only where that is the epoch."""

    request: Request
    name: _Key
    value: _Value
    expected: _U63 | None = None


class Admit(msgspec.Struct, frozen=True, array_like=True, tag=6, gc=False):
    """The leader lets a node vote that came with an empty journal; `identity` is that journal's."""

    node: _Name
    identity: _U63


Command = Lead | Claim | Release | Expire | Configure | Admit

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Command] = msgspec.msgpack.Decoder(Command)


def encode(command: Command) -> bytes:
    """The bytes of a command; the same on every node. Raises ValueError above `MOST_COMMAND` bytes."""
    encoded = _encoder.encode(command)
    if len(encoded) > MOST_COMMAND:
        raise ValueError(
            f"a {type(command).__name__} of {len(encoded)} bytes; a command has at most {MOST_COMMAND}"
        )
    return encoded


def decode(encoded: bytes) -> Command:
    """The command of these bytes; raises `CommandError`, and only that, for anything else."""
    if len(encoded) > MOST_COMMAND:
        raise CommandError("too_long")
    try:
        return _decoder.decode(encoded)
    except msgspec.ValidationError:
        raise CommandError("invalid") from None
    except (msgspec.DecodeError, ValueError, RecursionError, MemoryError, OverflowError):
        raise CommandError("undecodable") from None
