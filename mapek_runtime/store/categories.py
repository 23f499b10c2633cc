"""The values of one attribute as a few that can be compared: numbers of which there are many in ranges.

Pure. Each category has the condition of TraceQL that chooses its spans, where there is one.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

from .query.literals import literal_text
from .query.syntax import Kind, Literal

__all__ = ["ABSENT", "Categories", "Category"]

Number = int | float

ABSENT: Hashable = ("absent",)
"""The code of spans that do not have the attribute."""
_MOST_NUMBERS = 12
"""Different numbers that are compared one by one."""
_QUANTILES = (0.25, 0.5, 0.75)
_LEAST_INT = -(1 << 63)
_LONGEST_NUMBER = 40
"""Characters of a number in a query."""
_SHOWN = 200
"""Characters of a text that are shown."""
_LONGEST = 1000
"""Characters of a text that is put into a condition."""
_WORDS = {"status": Kind.STATUS, "kind": Kind.SPAN_KIND}


class Category(NamedTuple):
    """What the spans of a code have in common."""

    kind: str
    """string, int, float, bool, range, absent or other."""
    text: str
    condition: str
    """Empty where no condition says it."""


class Categories:
    """The codes of an attribute's values, from those of the selected spans and those of the rest.

    Ranges lie between the quartiles of both, so that a small selection has ranges of its own.
    """

    def __init__(self, key: str, selected: Sequence[Any], rest: Sequence[Any]) -> None:
        self._key = key
        sides = [sorted(value for value in values if _is_number(value)) for values in (selected, rest)]
        many = len({value for numbers in sides for value in numbers}) > _MOST_NUMBERS
        self._edges = _edges(sides) if many else []

    def code(self, value: Any) -> Hashable:
        """What stands for the value; equal for values that are compared as one."""
        if _is_number(value):
            return ("range", bisect_right(self._edges, value)) if self._edges else ("number", value)
        if isinstance(value, bool | str):
            return (type(value).__name__, value)
        return ("other", _text(value))

    def order(self, code: Hashable) -> int | None:
        """The place of a range among the others; None for what is none."""
        match code:
            case ("range", int(place)):
                return place
        return None

    def describe(self, code: Hashable) -> Category:
        """The category of a code."""
        key = self._key
        match code:
            case ("absent",):
                return Category("absent", "", f"{key} = nil")
            case ("range", int(place)):
                return self._range(place)
            case ("number", int() | float() as number):
                kind = "int" if isinstance(number, int) else "float"
                return Category(kind, _number_text(number), self._condition(("=", number)))
            case ("bool", bool(flag)):
                text = literal_text(Literal(Kind.BOOL, flag))
                return Category("bool", text, f"{key} = {text}")
            case ("str", str(text)):
                condition = ""
                if len(text) <= _LONGEST:
                    condition = f"{key} = {literal_text(Literal(_WORDS.get(key, Kind.STRING), text))}"
                return Category("string", _short(text), condition)
            case (_, text):
                return Category("other", _short(str(text)), "")
        raise AssertionError(code)

    def _range(self, place: int) -> Category:
        low = self._edges[place - 1] if place else None
        high = self._edges[place] if place < len(self._edges) else None
        bounds = [(op, edge) for op, edge in ((">=", low), ("<", high)) if edge is not None]
        if low is None or high is None:
            text = f"< {_number_text(high)}" if high is not None else f"≥ {_number_text(low)}"
        else:
            text = f"{_number_text(low)} to {_number_text(high)}"
        return Category("range", text, self._condition(*bounds))

    def _condition(self, *comparisons: tuple[str, Number]) -> str:
        numbers = [_literal_text(number) for _, number in comparisons]
        if any(len(number) > _LONGEST_NUMBER for number in numbers):
            return ""
        ops = [op for op, _ in comparisons]
        return " && ".join(f"{self._key} {op} {number}" for op, number in zip(ops, numbers, strict=True))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _edges(sides: Sequence[Sequence[Number]]) -> list[Number]:
    """Where ranges end: the quartiles of each side, as round as their distances allow."""
    found = [numbers[int(share * len(numbers))] for numbers in sides if numbers for share in _QUANTILES]
    spread = float(max(found)) - float(min(found))
    if not math.isfinite(spread):
        return sorted(set(found))
    step = 10.0 ** math.floor(math.log10(spread / 50)) if spread > 0 else 0.0
    return sorted({_rounded(number, step) for number in found})


def _rounded(number: Number, step: float) -> Number:
    if isinstance(number, int):
        whole = int(step)
        return number if whole <= 1 else max(number // whole * whole, _LEAST_INT)
    if not step:
        return number
    # What is left of 0.1 + 0.2 is rounded away.
    near = float(f"{math.floor(number / step) * step:.12g}")
    return near if math.isfinite(near) else number


def _number_text(number: Number | None) -> str:
    return f"{number:,}" if isinstance(number, int) else f"{number:,.12g}"


def _literal_text(number: Number) -> str:
    return literal_text(Literal(Kind.INT if isinstance(number, int) else Kind.FLOAT, number))


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.hex()
    return json.dumps(value, ensure_ascii=False, default=lambda each: each.hex())


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
