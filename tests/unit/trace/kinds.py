"""Kinds of values that programs give to spans, and what of them can be recorded."""

from __future__ import annotations

import array
import ipaddress
import math
from collections import OrderedDict, deque
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, Flag, IntEnum, StrEnum
from fractions import Fraction
from pathlib import Path, PurePosixPath
from types import MappingProxyType, SimpleNamespace
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np

__all__ = ["ENDLESS", "KINDS", "ODD", "Blank", "Colour", "Liar", "Peer"]


class Colour(Enum):
    RED = 1
    DEEP = object()


class Level(IntEnum):
    HIGH = 3


class Word(StrEnum):
    YES = "yes"


class Right(Flag):
    READ = 1
    WRITE = 2


class Number(int):
    def __int__(self) -> int:
        return -1


class Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "other"


class Mute:
    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


class Liar:
    """An object that raises whatever it is asked."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)


class Blank:
    """An object without a text of its own."""


class Broken(list[int]):
    def __iter__(self) -> Any:
        raise RuntimeError("broken")


class Point(NamedTuple):
    x: int
    y: int


@dataclass
class Peer:
    name: str
    hops: int = 1


ENDLESS: list[Any] = [1]
ENDLESS.append(ENDLESS)
UUID_ONE = UUID(int=1)

KINDS: dict[str, tuple[Any, Any]] = {
    "none": (None, None),
    "text": ("a", "a"),
    "empty text": ("", ""),
    "true": (True, True),
    "integer": (7, 7),
    "largest integer": ((1 << 63) - 1, (1 << 63) - 1),
    "double": (1.5, 1.5),
    "infinity": (math.inf, math.inf),
    "bytes": (b"\xff", b"\xff"),
    "bytearray": (bytearray(b"ab"), b"ab"),
    "memoryview": (memoryview(b"ab"), b"ab"),
    "list": ([1, 2], (1, 2)),
    "mixed list": ([1, "a", None, True], (1, "a", None, True)),
    "nested list": ([[1], ["a", [2.5]]], ((1,), ("a", (2.5,)))),
    "empty tuple": ((), ()),
    "named tuple": (Point(1, 2), (1, 2)),
    "range": (range(3), (0, 1, 2)),
    "deque": (deque([1, 2]), (1, 2)),
    "array": (array.array("i", [1, 2]), (1, 2)),
    "set": ({3, 1, 2}, (1, 2, 3)),
    "set of many kinds": (frozenset({1, "a"}), (1, "a")),
    "keys": ({"b": 1, "a": 2}.keys(), ("b", "a")),
    "values": ({"b": 1, "a": 2}.values(), (1, 2)),
    "mapping": ({"a": 1, "b": [1]}, {"a": 1, "b": (1,)}),
    "mapping proxy": (MappingProxyType({"a": Decimal(2)}), {"a": 2.0}),
    "ordered": (OrderedDict(a=OrderedDict(b=1)), {"a": {"b": 1}}),
    "mapping with odd keys": ({1: 1, "": 2, Word.YES: 3}, {"1": 1, "yes": 3}),
    "enum": (Colour.RED, 1),
    "enum of an object": (Colour.DEEP, "DEEP"),
    "int enum": (Level.HIGH, 3),
    "str enum": (Word.YES, "yes"),
    "flag": (Right.READ | Right.WRITE, 3),
    "int of its own": (Number(5), 5),
    "str of its own": (Text("a"), "a"),
    "decimal": (Decimal("1.25"), 1.25),
    "fraction": (Fraction(1, 4), 0.25),
    "complex": (1 + 2j, "(1+2j)"),
    "uuid": (UUID_ONE, str(UUID_ONE)),
    "path": (Path("/a/b"), "/a/b"),
    "pure path": (PurePosixPath("a"), "a"),
    "path that is no UTF-8": (Path("a\udcff"), "a\\udcff"),
    "datetime": (datetime(2026, 1, 2, 3, tzinfo=UTC), "2026-01-02T03:00:00+00:00"),
    "date": (date(2026, 1, 2), "2026-01-02"),
    "time": (time(3, 4), "03:04:00"),
    "timedelta": (timedelta(minutes=1, milliseconds=500), 60.5),
    "numpy bool": (np.bool_(True), True),
    "numpy int": (np.int16(3), 3),
    "numpy double": (np.float64(1.5), 1.5),
    "numpy single": (np.float32(0.5), 0.5),
    "numpy extended": (np.longdouble(0.5), 0.5),
    "numpy text": (np.str_("a"), "a"),
    "numpy datetime": (np.datetime64("2026-01-02"), "2026-01-02"),
    "numpy duration": (np.timedelta64(1500, "ms"), 1.5),
    "numpy array": (np.array([[1, 2], [3, 4]]), ((1, 2), (3, 4))),
    "numpy array of texts": (np.array(["a", "b"]), ("a", "b")),
    "numpy array of times": (np.array(["2026-01-02"], "datetime64[D]"), ("2026-01-02",)),
    "numpy scalar array": (np.array(1.5), 1.5),
    "large numpy array": (np.zeros((100, 100)), "ndarray(shape=(100, 100), dtype=float64)"),
    "address": (ipaddress.ip_address("::1"), "::1"),
    "dataclass": (Peer("a"), "Peer(name='a', hops=1)"),
    "namespace": (SimpleNamespace(a=1), "namespace(a=1)"),
    "exception": (ValueError("no"), "no"),
    "type": (int, "<class 'int'>"),
    "surrogate in a list": (["\ud800"], ("\\ud800",)),
    "no text": (Blank(), None),
    "no text in a list": ([1, Blank()], (1, None)),
    "broken text": (Mute(), "<Mute>"),
    "broken list": (Broken([1]), None),
}
ODD: dict[str, Any] = {
    # As the SDK: kept on the span, and left out by every encoder.
    "huge integer": 1 << 64,
    "larger than Python prints": 10**5000,
    "lone surrogate": "\ud800",
    "not a number": math.nan,
    "holds itself": ENDLESS,
    "signalling decimal": Decimal("sNaN"),
    "huge fraction": Fraction(10**400, 1),
    "endless range": range(10**12),
    "generator": iter([1]),
    "function": len,
    "no time": np.datetime64("NaT", "s"),
    "structured": np.zeros(1, dtype=[("a", "i4"), ("b", "f8")]),
}
