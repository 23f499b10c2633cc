"""Values as attributes can hold them: whatever a program has at hand, turned into what OTLP can say.

What the SDK accepts is kept as the SDK keeps it: text, numbers, booleans, bytes, and sequences and
mappings of them. On top of that

    Enum                              its value
    numpy scalars and arrays          numbers, texts, nested sequences; a large array by its shape
    Decimal, Fraction                 the nearest double, so that it can be compared in queries
    UUID, Path                        text
    datetime, date, time              ISO 8601
    timedelta                         seconds
    bytearray, memoryview             bytes
    set, frozenset, dictionary views  a sequence; a set in order
    anything else                     its text, cut; None where it has none of its own

None as the value of an attribute means that there is no value: it is left out. Nothing here raises,
and what cannot be kept is said in one warning a key.

Knows nothing of spans and of limits but the length of a text.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterable, Mapping, MappingView, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from itertools import islice
from pathlib import PosixPath, WindowsPath
from typing import Any, cast
from uuid import UUID

__all__ = ["clean_attributes", "clean_value", "kind_of", "text_of"]

logger = logging.getLogger(__name__)

MOST_TEXT = 8192
"""Characters kept of the text of an object that is no attribute value itself."""
MOST_ITEMS = 65_536
"""Items kept of one value, those inside others counted: a range may be endless, a list hold itself."""
MOST_IN_ARRAY = 1024
"""Items of the largest array that is recorded with its items."""
DEEPEST = 31
"""Sequences and mappings inside one another; what lies deeper is recorded as an ellipsis."""
MOST_WARNED = 1024
"""Keys that are remembered because their warning was given. A program with more makes keys from data."""

_warned: set[str] = set()


def clean_attributes(attributes: Mapping[str, Any], length: int | None) -> tuple[dict[str, Any], int]:
    """The attributes as they may be recorded, and how many were lost to keys that are no keys.

    `length` cuts each text.
    """
    kept: dict[str, Any] = {}
    lost = 0
    for key, value in tuple(attributes.items()):
        name = key if type(key) is str and key else _name(key)
        if not name:
            lost += 1
        elif value is not None:
            lost += name in kept
            kept[name] = clean_value(name, value, length)
    return kept, lost


def clean_value(key: str, value: Any, length: int | None) -> Any:
    """`value` as it may be recorded under `key`; None where nothing of it can be kept."""
    cleaning = _Cleaning(length)
    try:
        cleaned = cleaning.of(value, 0)
    except Exception as error:  # noqa: BLE001 - methods of any object are called
        cleaning.fault = f"{type(value).__name__} cannot be read: {type(error).__name__}"
        cleaned = None
    if cleaning.fault:
        _warn(key, cleaning.fault)
    return cleaned


def text_of(value: object) -> str:
    """The text of any object; never raises, and always has a UTF-8 form."""
    try:
        return _encodable(str(value))
    except Exception:  # noqa: BLE001 - a method of any object; its other one may do better
        text = f"<{type(value).__name__}>"
    with suppress(Exception):
        text = _encodable(repr(value))
    return text


class _Cleaning:
    """One value on its way: what may still be taken, and what went wrong."""

    __slots__ = ("fault", "length", "room")

    def __init__(self, length: int | None) -> None:
        self.length = length
        self.room = MOST_ITEMS
        self.fault = ""

    def of(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if kind is str:
            return self.text(value)
        if kind in _AS_THEY_ARE:
            return value
        if kind is list or kind is tuple:
            if _NUMBERS.issuperset(map(type, value)):
                self.room -= len(value)
                return tuple(value)
            return self.items(value, depth)
        if kind is dict:
            return self.pairs(value, depth)
        convert = _CONVERT.get(kind)
        if convert is not None:
            return self.of(convert(value), depth)
        return self.other(value, depth)

    def other(self, value: Any, depth: int) -> Any:
        """What has to be asked for its kind: subclasses, and what was never heard of."""
        if isinstance(value, Enum):
            inner = value.value
            # A value that is an object of its own says less than the name.
            plain = isinstance(inner, str | int | float | bytes)
            return self.of(inner if plain else value.name, depth)
        for base, convert in _CONVERT_SUBCLASSES:
            if isinstance(value, base):
                return self.of(convert(value), depth)
        numpy = sys.modules.get("numpy")
        if numpy is not None:
            if isinstance(value, getattr(numpy, "generic", ())):
                return self.of(_from_scalar(numpy, value), depth)
            if isinstance(value, getattr(numpy, "ndarray", ())):
                return self.of(_from_array(value), depth)
        if isinstance(value, Mapping):
            return self.pairs(value, depth)
        if isinstance(value, AbstractSet) and not isinstance(value, MappingView):
            return self.items(_in_order(islice(value, MOST_ITEMS + 1)), depth)
        if isinstance(value, Sequence | MappingView):
            return self.items(cast("Iterable[Any]", value), depth)
        if _has_text(value):
            return self.text(text_of(value)[:MOST_TEXT])
        self.fault = f"{kind_of(value)} is no attribute value and has no text of its own"
        return None

    def text(self, value: str) -> str:
        if self.length is not None and len(value) > self.length:
            value = value[: self.length]
        return value if value.isascii() else _encodable(value)

    def items(self, value: Iterable[Any], depth: int) -> Any:
        if depth >= DEEPEST:
            self.fault = f"nested deeper than {DEEPEST}; the rest is left out"
            return "..."
        return tuple([self.of(item, depth + 1) for item in self.take(value)])

    def pairs(self, value: Mapping[Any, Any], depth: int) -> Any:
        if depth >= DEEPEST:
            self.fault = f"nested deeper than {DEEPEST}; the rest is left out"
            return "..."
        kept = {}
        for key, item in self.take(tuple(value.items())):
            name = key if type(key) is str and key else _name(key)
            if name:
                kept[name] = self.of(item, depth + 1)
        return kept

    def take(self, value: Iterable[Any]) -> Iterable[Any]:
        for item in value:
            if self.room <= 0:
                self.fault = f"more than {MOST_ITEMS} items; the rest is left out"
                return
            self.room -= 1
            yield item


def kind_of(value: object) -> str:
    """The name of the type of `value`, with its module where that is not the language."""
    kind = type(value)
    module = kind.__module__
    return f"{module}.{kind.__qualname__}" if module and module != "builtins" else kind.__qualname__


_NUMBERS = frozenset((int, float, bool))
_AS_THEY_ARE = frozenset((int, float, bool, bytes, type(None)))


def _from_decimal(value: Decimal) -> float:
    # float() refuses a signalling NaN.
    return float("nan") if value.is_nan() else float(value)


_CONVERT: dict[type, Callable[[Any], Any]] = {
    Decimal: _from_decimal,
    UUID: str,
    PosixPath: str,
    WindowsPath: str,
    datetime: datetime.isoformat,
    date: date.isoformat,
    time: time.isoformat,
    timedelta: timedelta.total_seconds,
    bytearray: bytes,
    memoryview: memoryview.tobytes,
}
"""Types that are met often, looked up in one step."""

_CONVERT_SUBCLASSES: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
    # The methods of the built-in type, whatever the subclass makes of them: they give the plain value.
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
    (bytes, lambda value: b"".join((value,))),
    (datetime, lambda value: value.isoformat()),
    (date, lambda value: value.isoformat()),
    (time, lambda value: value.isoformat()),
    (timedelta, timedelta.total_seconds),
    (bytearray, bytes),
    (Decimal, _from_decimal),
    (Fraction, float),
    (UUID, str),
    (os.PathLike, os.fsdecode),
)


def _from_scalar(numpy: Any, value: Any) -> Any:
    if isinstance(value, numpy.datetime64):
        return str(value)
    if isinstance(value, numpy.timedelta64):
        return float(value / numpy.timedelta64(1, "s"))
    item = value.item()
    # What Python has no type for (an extended double) stays what it was.
    return float(value) if type(item) is type(value) else item


def _from_array(value: Any) -> Any:
    if value.size > MOST_IN_ARRAY:
        return f"{type(value).__name__}(shape={value.shape}, dtype={value.dtype})"
    return (value.astype(str) if value.dtype.kind in "Mm" else value).tolist()


def _in_order(items: Iterable[Any]) -> list[Any]:
    """The items of a set in an order that is the same in every process."""
    found = list(items)
    try:
        return sorted(found)
    except Exception:  # noqa: BLE001 - comparing is a method of any object
        return sorted(found, key=text_of)


def _name(key: Any) -> str:
    """An odd key as text, by the SDK's rules; empty where it is no key."""
    name = ""
    try:
        if isinstance(key, str):
            name = str.__str__(key)
        elif key and _has_text(key):
            name = text_of(key)[:MOST_TEXT]
    except Exception:  # noqa: BLE001 - truth is a method of any object
        name = ""
    if not name:
        _warn(f"<{type(key).__name__}>", "a key must be a text that is not empty; the attribute is left out")
    return name


def _has_text(value: object) -> bool:
    # The text every object has is an address.
    kind = type(value)
    return kind.__str__ is not object.__str__ or kind.__repr__ is not object.__repr__


def _encodable(value: str) -> str:
    """The text with each lone surrogate (a file name that is no UTF-8) written as its escape."""
    value = str.__str__(value)
    try:
        value.encode()
    except UnicodeEncodeError:
        return value.encode(errors="backslashreplace").decode()
    return value


def _warn(key: str, fault: str) -> None:
    if key in _warned or len(_warned) >= MOST_WARNED:
        return
    _warned.add(key)
    logger.warning("attribute %r: %s (this key is not warned of again)", key, fault)
