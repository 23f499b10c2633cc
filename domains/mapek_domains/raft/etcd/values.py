"""What the engine writes into etcd: the names of its keys, and JSON as their values.

    <prefix>/leader                 who leads; created anew with each tenure
    <prefix>/nodes/<node>           the life of a node
    <prefix>/claims/<key>           who has a claim
    <prefix>/configuration/<name>   what was agreed upon; its version is the epoch
    <prefix>/fleet/<target>         which node manages a target

Anybody who may write to the cluster may write there. What is not of this form is refused, whoever wrote
it, and never overwritten: a newer runtime may have meant something by it.
"""

from __future__ import annotations

from typing import Annotated, TypeVar

import msgspec

from mapek_domains.raft.commands import MOST_VALUE

__all__ = [
    "Claim",
    "Configured",
    "Keys",
    "Managing",
    "Presence",
    "Refused",
    "Tenure",
    "Value",
    "decoded",
    "encoded",
]

FORMAT = 1
_LARGEST = 8192
"""Bytes of a value at most: JSON writes a character of a configured value with six."""

_Node = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
_Token = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class Value(msgspec.Struct, frozen=True, kw_only=True):
    """What all values have."""

    v: int = FORMAT
    """The format. A runtime leaves alone what is of another."""


class Presence(Value, frozen=True, kw_only=True):
    """A node lives; `instance` is another one in each of its lives."""

    instance: _Token
    fleet: Annotated[str, msgspec.Meta(max_length=64)] = ""
    """Stands for the targets that it shares with others; empty where it shares none."""


class Tenure(Value, frozen=True, kw_only=True):
    """A node leads."""

    node: _Node
    instance: _Token


class Claim(Value, frozen=True, kw_only=True):
    """A node has a claim, under a lease of so many `seconds`; `request` is the call that got it."""

    owner: _Node
    request: _Token
    seconds: Annotated[int, msgspec.Meta(ge=1)]


class Configured(Value, frozen=True, kw_only=True):
    """What was agreed upon, by which call."""

    value: Annotated[str, msgspec.Meta(max_length=MOST_VALUE)]
    request: _Token


class Managing(Value, frozen=True, kw_only=True):
    """A node manages a target."""

    owner: _Node
    instance: _Token


class Refused(Exception):
    """A value that is not ours; `reason` is a word to count it by."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


V = TypeVar("V", bound=Value)

_encoder = msgspec.json.Encoder()
_format = msgspec.json.Decoder(Value)


def encoded(value: Value) -> bytes:
    """The value as it is written."""
    return _encoder.encode(value)


def decoded(raw: bytes, kind: type[V]) -> V:
    """The value of that kind; raises `Refused`."""
    if len(raw) > _LARGEST:
        raise Refused("oversized", f"{len(raw)} bytes; a value has at most {_LARGEST}")
    try:
        found = _format.decode(raw)
        if found.v != FORMAT:
            raise Refused("version", f"format {found.v}; this runtime reads {FORMAT}")
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused("malformed", str(error)) from None


class Keys:
    """The names of the keys under a prefix."""

    def __init__(self, prefix: str) -> None:
        self.all = f"{prefix}/"
        self.leader = f"{prefix}/leader"
        self.nodes = f"{prefix}/nodes/"
        self.claims = f"{prefix}/claims/"
        self.configuration = f"{prefix}/configuration/"
        self.fleet = f"{prefix}/fleet/"
