"""OTLP attributes: `KeyValue` messages, written byte by byte.

Most of an attribute does not change from span to span: the key, the tags, and for short values the
lengths too. Each key therefore has one record, made when it is first seen, that holds these parts
ready. A value of any other than the four plain types takes the slow way, which follows the SDK's
conversion exactly.

Knows the wire format and nothing of spans.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .notice import Notices

__all__ = ["AttributeEncoder", "OddKey", "delimited", "encode_value", "field", "varint"]

logger = logging.getLogger(__name__)

MAX_KEYS = 4096
"""Keys remembered at once. A program with more has keys made from data; it starts afresh."""

SHORT = 104
"""Strings of fewer UTF-8 bytes use the headers made ready for their length."""

SMALL = 1 << 14
"""Integers from 0 up to here, which take one or two bytes, are looked up."""

_double = struct.Struct("<d").pack
_encode = str.encode


def varint(value: int) -> bytes:
    """A base-128 varint; a negative number is written as its 64-bit two's complement."""
    if 0 <= value < SMALL:
        return VARINTS[value]
    if value < 0:
        value += 1 << 64
    out = bytearray()
    while value > 0x7F:
        out.append((value & 0x7F) | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


VARINTS: tuple[bytes, ...] = tuple(
    bytes((n,)) if n < 0x80 else bytes(((n & 0x7F) | 0x80, n >> 7)) for n in range(SMALL)
)


def delimited(tag: bytes, body: bytes) -> bytes:
    """A length-delimited field, also when it is empty."""
    return tag + varint(len(body)) + body


def field(tag: bytes, text: str | None) -> bytes:
    """A string field; protobuf leaves an empty one out."""
    return delimited(tag, _encode(text, "utf-8")) if text else b""


class _Key:
    """What is known of one key under one tag."""

    __slots__ = ("double", "false", "head", "integers", "strings", "tag", "true", "widths")

    def __init__(self, tag: bytes, key: str) -> None:
        self.tag = tag
        self.head = delimited(b"\x0a", _encode(key, "utf-8")) if key else b""
        self.true = self.whole(b"\x10\x01")
        self.false = self.whole(b"\x10\x00")
        self.double = self.whole(b"\x21" + bytes(8))[:-8]
        self.integers: dict[int, bytes] = {}
        # Filled on demand: the header for a string of n bytes, for an integer n bytes wide.
        self.strings: list[bytes | None] = [None] * SHORT
        self.widths: list[bytes | None] = [None] * 11

    def whole(self, value: bytes) -> bytes:
        return delimited(self.tag, self.head + delimited(b"\x12", value))

    def string_header(self, size: int) -> bytes:
        inner = b"\x0a" + varint(size)
        return self._header(inner, size)

    def width_header(self, size: int) -> bytes:
        return self._header(b"\x18", size)

    def _header(self, inner: bytes, size: int) -> bytes:
        value = b"\x12" + varint(len(inner) + size) + inner
        return self.tag + varint(len(self.head) + len(value) + size) + self.head + value


class OddKey(Exception):
    """A key is empty or not exactly a `str`: no fault, but the attributes must be cleaned first."""


class AttributeEncoder:
    """Writes attributes as repeated `KeyValue` fields under one tag.

    With `clean_first` it raises OddKey for keys that the SDK cleans when they are recorded.
    """

    def __init__(self, tag: bytes, notices: Notices | None = None, *, clean_first: bool = False) -> None:
        self._tag = tag
        self._clean_first = clean_first
        self._keys: dict[str, _Key] = {}
        self._notices = notices if notices is not None else Notices(logger)

    def encode(self, items: Iterable[tuple[str, Any]], put: Any) -> None:
        """Call `put` with the pieces of each attribute; one that has no OTLP form is left out and logged."""
        keys = self._keys
        for key, value in items:
            record = keys.get(key)
            if record is None or type(key) is not str:
                record = self._learn(key)
                if record is None:
                    continue
            kind = type(value)
            if kind is str:
                try:
                    data = value.encode()
                except UnicodeEncodeError as error:
                    self._refuse(key, error)
                    continue
                size = len(data)
                if size < SHORT:
                    header = record.strings[size]
                    if header is None:
                        header = record.strings[size] = record.string_header(size)
                    put(header + data)
                else:
                    put(record.string_header(size))
                    put(data)
            elif kind is int:
                whole = record.integers.get(value)
                put(whole if whole is not None else self._integer(record, key, value))
            elif kind is float:
                put(record.double + _double(value))
            elif kind is bool:
                put(record.true if value else record.false)
            else:
                try:
                    put(record.whole(encode_value(value)))
                except Exception as error:  # noqa: BLE001 - the SDK leaves out what it cannot encode
                    self._refuse(key, error)

    def join(self, attributes: Mapping[str, Any] | None) -> bytes:
        """The attributes as one string of bytes."""
        if not attributes:
            return b""
        pieces: list[bytes] = []
        self.encode(attributes.items(), pieces.append)
        return b"".join(pieces)

    def _integer(self, record: _Key, key: str, value: int) -> bytes:
        if 0 <= value < 256:
            whole = record.integers[value] = record.whole(b"\x18" + VARINTS[value])
            return whole
        if 0 <= value < SMALL:
            digits = VARINTS[value]
        elif -(1 << 63) <= value < 1 << 63:
            digits = varint(value)
        else:
            self._refuse(key, ValueError(f"an integer of {value.bit_length()} bits does not fit in 64"))
            return b""
        header = record.widths[len(digits)]
        if header is None:
            header = record.widths[len(digits)] = record.width_header(len(digits))
        return header + digits

    def _learn(self, key: str) -> _Key | None:
        if self._clean_first and (type(key) is not str or not key):
            raise OddKey
        try:
            record = _Key(self._tag, key)
        except Exception as error:  # noqa: BLE001 - as for values
            self._refuse(key, error)
            return None
        if type(key) is str:
            if len(self._keys) >= MAX_KEYS:
                self._keys.clear()
            self._keys[key] = record
        return record

    def _refuse(self, key: object, error: Exception) -> None:
        self._notices.warn("attribute", "attribute %r has no OTLP form and is left out: %s", key, error)


def encode_value(value: Any) -> bytes:
    """An `AnyValue`: what the SDK makes of a value of any type; raises for one it refuses."""
    if value is None:
        return b""
    if isinstance(value, bool):
        return b"\x10\x01" if value else b"\x10\x00"
    if isinstance(value, str):
        return delimited(b"\x0a", _encode(value, "utf-8"))
    if isinstance(value, int):
        number = int.__index__(value)
        if not -(1 << 63) <= number < 1 << 63:
            raise ValueError(f"an integer of {number.bit_length()} bits does not fit in 64")
        return b"\x18" + varint(number)
    if isinstance(value, float):
        return b"\x21" + _double(value)
    if isinstance(value, bytes):
        return delimited(b"\x3a", value)
    if isinstance(value, Sequence):
        return delimited(b"\x2a", b"".join([delimited(b"\x0a", encode_value(item)) for item in value]))
    if isinstance(value, Mapping):
        return delimited(
            b"\x32", b"".join([delimited(b"\x0a", _pair(str(key), item)) for key, item in value.items()])
        )
    raise TypeError(
        f"{type(value).__name__} is no attribute value; it must be str, bool, int, float, bytes, None, "
        "a sequence or a mapping"
    )


def _pair(key: str, value: Any) -> bytes:
    return field(b"\x0a", key) + delimited(b"\x12", encode_value(value))
