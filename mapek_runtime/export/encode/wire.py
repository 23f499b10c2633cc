"""The wire format of protobuf: varints, and fields with a length.

What a field takes is what protobuf's own setters take, so that a message that the SDK can write is
written here too; everything else raises. See protobuf.dev/programming-guides/encoding.

Knows nothing of OTLP.
"""

from __future__ import annotations

from operator import index
from struct import Struct

from mapek_runtime.trace.values import text_of

__all__ = ["VARINTS", "any_text", "delimited", "double", "fixed64", "text", "utf8", "varint"]

_LOW = [bytes((digit | 0x80,)) for digit in range(0x80)]
_HIGH = [bytes((digit,)) for digit in range(0x80)]
VARINTS = (*_HIGH, *[low + high for high in _HIGH[1:] for low in _LOW])
"""Those of one and of two bytes, 0 to 16,383: about 0.7 MB that is always there."""

_PAIRS = [low + high for high in _LOW for low in _LOW]
"""Fourteen bits that are followed by others: as much again."""

_PAIR = 0x3FFF
_FOUR = 1 << 28

double = Struct("<d").pack
_uint64 = Struct("<Q").pack


def varint(value: int) -> bytes:
    """A base-128 varint; a negative number is written as its 64-bit two's complement."""
    if value < 0:
        value += 1 << 64
    if value <= _PAIR:
        return VARINTS[value]
    if value < _FOUR:
        return _PAIRS[value & _PAIR] + VARINTS[value >> 14]
    # Halves that the interpreter keeps in one digit: what lies above is slow to divide.
    low, high = value & (_FOUR - 1), value >> 28
    start = _PAIRS[low & _PAIR] + _PAIRS[low >> 14]
    if high <= _PAIR:
        return start + VARINTS[high]
    if high < _FOUR:
        return start + _PAIRS[high & _PAIR] + VARINTS[high >> 14]
    return start + _PAIRS[high & _PAIR] + _PAIRS[high >> 14 & _PAIR] + VARINTS[high >> 28]


def delimited(tag: bytes, body: bytes) -> bytes:
    """A field with a length, also when it is empty."""
    return tag + varint(len(body)) + body


def fixed64(tag: bytes, value: int | None) -> bytes:
    """An unsigned number of eight bytes; protobuf leaves 0 out."""
    if value is None:
        return b""
    number = index(value)
    return tag + _uint64(number) if number else b""


def text(tag: bytes, value: str | bytes | None) -> bytes:
    """A string field; protobuf leaves an empty one out."""
    data = utf8(value)
    return tag + varint(len(data)) + data if data else b""


def utf8(value: str | bytes | None) -> bytes:
    """What a string field holds: text, or bytes that are UTF-8; raises for everything else."""
    if isinstance(value, str):
        # The method of the built-in type, whatever a subclass makes of it.
        return str.encode(value, "utf-8")
    if value is None:
        return b""
    if isinstance(value, bytes):
        value.decode("utf-8")
        return value
    raise TypeError(f"{type(value).__name__} is no text")


def any_text(tag: bytes, value: object) -> bytes:
    """A string field of whatever there is; never raises.

    What is no text is sent as its `str()`, and each lone surrogate or byte that is no UTF-8 as U+FFFD.
    """
    try:
        return text(tag, value)  # type: ignore[arg-type]
    except (TypeError, UnicodeError):
        if isinstance(value, bytes):
            return text(tag, value.decode("utf-8", "replace"))
        plain = str.__str__(value) if isinstance(value, str) else text_of(value)
        # UTF-16 has lone surrogates, and joins the two halves of a pair.
        return text(tag, plain.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace"))
