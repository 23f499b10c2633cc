"""OTLP attributes: `KeyValue` messages (opentelemetry/proto/common/v1/common.proto).

Most of an attribute does not change from span to span: the key, the tags, and for short values the
lengths too. Each key therefore has one record, made when it is first seen, that holds these parts
ready. A value of any other than the four plain types
takes the slow way, which follows the SDK's conversion exactly. What the SDK leaves out because it has
no form on the wire is left out here too, and told.

Knows nothing of spans.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mapek_runtime.export.notice import Notices

from .wire import VARINTS, delimited, double, text, utf8, varint

__all__ = ["AttributeEncoder", "OddKey", "encode_value"]

logger = logging.getLogger(__name__)

MAX_BYTES = 4_000_000
"""Bytes that one encoder remembers. A program with more has keys made from data: it starts afresh."""

MAX_KEY = 1024
"""Characters of the longest key that is remembered."""

SHORT = 104
"""Texts of fewer UTF-8 bytes use the headers made ready for their length."""

DEEPEST = 100
"""Messages inside one another that every protobuf library reads: a request with more is refused whole."""

_RECORD_BYTES = 1800
_PIECE_BYTES = 64


class _Key:
    """What is known of one key under one tag."""

    __slots__ = ("double", "false", "head", "headers", "integers", "tag", "true", "widths")

    def __init__(self, tag: bytes, key: str | bytes | None) -> None:
        self.tag = tag
        self.head = text(b"\x0a", key)
        self.true = self.whole(b"\x10\x01")
        self.false = self.whole(b"\x10\x00")
        self.double = self.whole(b"\x21" + bytes(8))[:-8]
        # Filled on demand: the header for a text of n bytes, for an integer n bytes wide, and small
        # integers whole. Whole texts are not worth it: to find one costs as much as to encode it.
        self.headers: list[bytes | None] = [None] * SHORT
        self.widths: list[bytes | None] = [None] * 11
        self.integers: dict[int, bytes] = {}

    def whole(self, value: bytes) -> bytes:
        """The attribute with an encoded `AnyValue`."""
        return self.header(value, 0) if len(value) < SHORT else delimited(self.tag, self._pair(value))

    def header(self, start: bytes, size: int) -> bytes:
        """All of the attribute but the last `size` bytes, where the `AnyValue` begins with `start`."""
        value = b"\x12" + varint(len(start) + size) + start
        return self.tag + varint(len(self.head) + len(value) + size) + self.head + value

    def _pair(self, value: bytes) -> bytes:
        return b"".join((self.head, b"\x12", varint(len(value)), value))


class OddKey(Exception):
    """A key is empty or not exactly a `str`: no fault, but the attributes must be cleaned first."""


class AttributeEncoder:
    """Writes attributes as repeated `KeyValue` fields under one tag, `depth` messages deep.

    With `clean_first` it raises OddKey for keys that the SDK cleans when they are recorded. May be
    used by several threads at once.
    """

    def __init__(
        self, tag: bytes, depth: int, notices: Notices | None = None, *, clean_first: bool = False
    ) -> None:
        self._tag = tag
        self._depth = depth + 1
        self._clean_first = clean_first
        self._keys: dict[str, _Key] = {}
        self._remembered = 0
        self._notices = notices if notices is not None else Notices(logger)

    def encode(self, items: Iterable[tuple[str, Any]], pieces: list[bytes]) -> None:
        """Append the pieces of each attribute; one that has no OTLP form is left out and logged."""
        keys = self._keys
        for key, value in items:
            try:
                record = keys[key]
            except KeyError:
                found = self._learn(key)
                if found is None:
                    continue
                record = found
            kind = type(value)
            try:
                if kind is str:
                    data = value.encode()
                    size = len(data)
                    if size < SHORT:
                        header = record.headers[size]
                        if header is None:
                            header = self._header(record, size)
                        pieces.append(header + data)
                    else:
                        pieces.append(record.header(b"\x0a" + varint(size), size))
                        pieces.append(data)
                elif kind is int:
                    whole = record.integers.get(value)
                    pieces.append(whole if whole is not None else self._integer(record, value))
                elif kind is float:
                    pieces.append(record.double + double(value))
                elif kind is bool:
                    pieces.append(record.true if value else record.false)
                else:
                    pieces.append(record.whole(encode_value(value, self._depth)))
            except Exception as error:  # noqa: BLE001 - the SDK leaves out what it cannot encode
                self._refuse(key, error)

    def join(self, attributes: Mapping[str, Any] | None) -> bytes:
        """The attributes as one string of bytes."""
        if not attributes:
            return b""
        pieces: list[bytes] = []
        self.encode(attributes.items(), pieces)
        return b"".join(pieces)

    def _header(self, record: _Key, size: int) -> bytes:
        header = record.headers[size] = record.header(b"\x0a" + varint(size), size)
        self._count(len(header) + _PIECE_BYTES)
        return header

    def _integer(self, record: _Key, value: int) -> bytes:
        if 0 <= value < 256:
            whole = record.integers[value] = record.whole(b"\x18" + VARINTS[value])
            self._count(len(whole) + _PIECE_BYTES)
            return whole
        if not -(1 << 63) <= value < 1 << 63:
            raise ValueError(f"an integer of {value.bit_length()} bits does not fit in 64")
        digits = varint(value)
        header = record.widths[len(digits)]
        if header is None:
            header = record.widths[len(digits)] = record.header(b"\x18", len(digits))
            self._count(len(header) + _PIECE_BYTES)
        return header + digits

    def _learn(self, key: str) -> _Key | None:
        if self._clean_first and (type(key) is not str or not key):
            raise OddKey
        try:
            record = _Key(self._tag, key)
        except Exception as error:  # noqa: BLE001 - as for values
            self._refuse(key, error)
            return None
        if type(key) is str and len(key) <= MAX_KEY:
            self._count(_RECORD_BYTES + 4 * len(record.true))
            self._keys[key] = record
        return record

    def _count(self, size: int) -> None:
        self._remembered += size
        if self._remembered > MAX_BYTES:
            self._remembered = 0
            self._keys.clear()

    def _refuse(self, key: object, error: Exception) -> None:
        self._notices.warn("attribute", "attribute %r has no OTLP form and is left out: %s", key, error)


def encode_value(value: Any, depth: int = 0) -> bytes:
    """An `AnyValue`, `depth` messages deep: what the SDK makes of a value of any type.

    Raises for one that the SDK refuses, and for one that lies too deep for the receiver.
    """
    if depth > DEEPEST:
        raise ValueError(f"it is nested deeper than the {DEEPEST} messages that a receiver must read")
    if value is None:
        return b""
    if isinstance(value, bool):
        return b"\x10\x01" if value else b"\x10\x00"
    if isinstance(value, str):
        return delimited(b"\x0a", utf8(value))
    if isinstance(value, int):
        number = int.__index__(value)
        if not -(1 << 63) <= number < 1 << 63:
            raise ValueError(f"an integer of {number.bit_length()} bits does not fit in 64")
        return b"\x18" + varint(number)
    if isinstance(value, float):
        return b"\x21" + double(value)
    if isinstance(value, bytes):
        return delimited(b"\x3a", value)
    if isinstance(value, Sequence):
        items = [delimited(b"\x0a", encode_value(item, depth + 2)) for item in value]
        return delimited(b"\x2a", b"".join(items))
    if isinstance(value, Mapping):
        pairs = [delimited(b"\x0a", _pair(str(key), item, depth + 2)) for key, item in value.items()]
        return delimited(b"\x32", b"".join(pairs))
    raise TypeError(
        f"{type(value).__name__} is no attribute value; it must be str, bool, int, float, bytes, None, "
        "a sequence or a mapping"
    )


def _pair(key: str, value: Any, depth: int) -> bytes:
    return text(b"\x0a", key) + delimited(b"\x12", encode_value(value, depth + 1))
