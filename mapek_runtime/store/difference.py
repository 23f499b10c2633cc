"""What distinguishes some spans from others: their attributes, ranked by how far each tells which is which.

Pure. The measure is the total variation of two distributions, held out: in one half of the traces it is
learned which values the selected spans have more often, in the other half it is counted by how much. It is
a share of spans from 0 to 1, and needs no table of exceptions: an attribute with a value of its own for each
span or trace foretells nothing of the other half, and what differs by chance in one half does not differ in
the other. What could still be chance, with as many attributes as were compared, is left out.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from statistics import NormalDist
from typing import Any, NamedTuple
from zlib import crc32

from .categories import ABSENT, Categories, Category
from .model import DifferentField, DifferentValue

__all__ = ["FEWEST", "Facts", "differences"]

FEWEST = 10
"""Spans of each side from which on they are compared."""
_LEAST = 0.05
"""The least share of spans by which a difference is worth a line."""
_MOST = 200
"""Attributes that are compared."""
_CHANCE = 0.001
"""How likely it may be that a line is there by chance."""
_SHOWN = 6
"""Values of an attribute that are told, those that differ most."""
_ALIKE = 0.9
"""Share of spans in which two attributes say the same, so that they are one line."""
_UNITS = (1, 1_000, 1_000_000, 1_000_000_000)
"""Nanoseconds in the units in which an attribute may tell the duration."""
_NEAR, _NEAR_NS = 0.05, 100_000


class Facts(NamedTuple):
    """A span as far as it is compared."""

    trace_id: bytes
    span_id: bytes
    duration: int
    values: Mapping[str, Any]
    """By the fields as TraceQL writes them."""


def differences(selected: Sequence[Facts], rest: Sequence[Facts]) -> tuple[DifferentField, ...]:
    """The attributes in which the sides differ, those that differ most first; none with too few spans.

    The order of the spans does not matter. Attributes that tell the duration once more are left out:
    spans are selected by it.
    """
    if min(len(selected), len(rest)) < FEWEST:
        return ()
    halves = _halves(selected, rest)
    keys = _keys(selected, rest)
    bound = NormalDist().inv_cdf(1 - _CHANCE / max(1, len(keys)))
    found = []
    for key in keys:
        column = _Column(key, selected, rest, halves)
        if column.score >= _LEAST and column.certainty > bound and not column.tells_duration():
            found.append(column)
    found.sort(key=lambda column: (-round(column.score, 3), len(column.codes), column.key))
    lines: list[tuple[_Column, list[str]]] = []
    for column in found:
        for first, alike in lines:
            if column.is_alike(first):
                alike.append(column.key)
                break
        else:
            lines.append((column, []))
    return tuple(column.told(alike) for column, alike in lines)


def _keys(*sides: Sequence[Facts]) -> list[str]:
    """The attributes that enough spans of a side have to make a difference, of very many the commonest."""
    shares: dict[str, float] = {}
    for side in sides:
        counts = Counter(key for span in side for key in span.values)
        for key, number in counts.items():
            shares[key] = max(shares.get(key, 0.0), number / len(side))
    common = [key for key, share in shares.items() if share >= _LEAST]
    return sorted(common, key=lambda key: (-shares[key], key))[:_MOST]


class _Halves(NamedTuple):
    """To which half each span belongs, 0 or 1, and how many there are in each half of each side."""

    of: tuple[list[int], list[int]]
    sizes: tuple[tuple[int, int], tuple[int, int]]


def _halves(selected: Sequence[Facts], rest: Sequence[Facts]) -> _Halves:
    by_trace = _sized([[crc32(span.trace_id) & 1 for span in side] for side in (selected, rest)])
    if min(min(sizes) for sizes in by_trace.sizes) >= FEWEST // 2 - 1:
        return by_trace
    # Too few traces: every other span then.
    return _sized([_every_other(side) for side in (selected, rest)])


def _sized(of: Sequence[list[int]]) -> _Halves:
    first, second = ((len(side) - sum(side), sum(side)) for side in of)
    return _Halves((of[0], of[1]), (first, second))


def _every_other(side: Sequence[Facts]) -> list[int]:
    order = sorted(range(len(side)), key=lambda index: (crc32(side[index].span_id), side[index][:2]))
    halves = [0] * len(side)
    for place, index in enumerate(order):
        halves[index] = place & 1
    return halves


class _Column:
    """One attribute of all spans."""

    def __init__(self, key: str, selected: Sequence[Facts], rest: Sequence[Facts], halves: _Halves) -> None:
        self.key = key
        self._sides = (selected, rest)
        values = [[span.values[key] for span in side if key in span.values] for side in self._sides]
        self._categories = Categories(key, *values)
        self._of_spans = [
            [self._categories.code(span.values[key]) if key in span.values else ABSENT for span in side]
            for side in self._sides
        ]
        # By side, then by half.
        self._counts: list[list[Counter[Hashable]]] = []
        for codes, half in zip(self._of_spans, halves.of, strict=True):
            counted: list[Counter[Hashable]] = [Counter(), Counter()]
            for code, which in zip(codes, half, strict=True):
                counted[which][code] += 1
            self._counts.append(counted)
        self.codes = set().union(*(counts for side in self._counts for counts in side))
        self._sizes = halves.sizes
        self.score, self.certainty = self._held_out()

    def _held_out(self) -> tuple[float, float]:
        """The difference of shares that one half foretells of the other, and in how many standard errors."""
        difference = variance = 0.0
        for learned, tested in ((0, 1), (1, 0)):
            more = self._more_often((self._share(0, learned), self._share(1, learned)))
            sign = 1
            for side in (0, 1):
                hits, size = sum(self._counts[side][tested][code] for code in more), self._sizes[side][tested]
                difference += sign * hits / size
                # With a span more of each kind, or few spans that agree would seem to be certain.
                share = (hits + 1) / (size + 2)
                variance += share * (1 - share) / size
                sign = -1
        return difference / 2, difference / math.sqrt(variance)

    def _share(self, side: int, half: int) -> dict[Hashable, float]:
        size = self._sizes[side][half]
        return {code: number / size for code, number in self._counts[side][half].items()}

    def _both(self, side: int) -> Counter[Hashable]:
        return self._counts[side][0] + self._counts[side][1]

    def _whole(self, side: int) -> dict[Hashable, float]:
        size = sum(self._sizes[side])
        return {code: number / size for code, number in self._both(side).items()}

    @staticmethod
    def _more_often(shares: tuple[Mapping[Hashable, float], Mapping[Hashable, float]]) -> set[Hashable]:
        selected, rest = shares
        return {code for code, share in selected.items() if share > rest.get(code, 0.0)}

    def tells_duration(self) -> bool:
        """Whether nine of ten numbers are the duration of their span in some unit."""
        pairs = [
            (span.values[self.key], span.duration)
            for side in self._sides
            for span in side
            if type(span.values.get(self.key)) in (int, float)
        ]
        return any(
            sum(abs(number * unit - duration) <= _NEAR * duration + _NEAR_NS for number, duration in pairs)
            >= 0.9 * len(pairs)
            for unit in _UNITS
        ) and bool(pairs)

    def is_alike(self, other: _Column) -> bool:
        """Whether the values that are more often selected are those of the same spans as the other's."""
        both = (self, other)
        chosen = [column._more_often((column._whole(0), column._whole(1))) for column in both]
        for side in (0, 1):
            either = common = 0
            for first, second in zip(self._of_spans[side], other._of_spans[side], strict=True):
                here, there = first in chosen[0], second in chosen[1]
                either += here or there
                common += here and there
            if common < _ALIKE * either:
                return False
        return True

    def told(self, alike: Iterable[str]) -> DifferentField:
        """The attribute with the values that differ most; ranges in their order."""
        selected, rest = self._whole(0), self._whole(1)
        numbers = self._both(0), self._both(1)
        described = {code: self._categories.describe(code) for code in self.codes}

        def rank(code: Hashable) -> tuple[float, float, Category]:
            here, there = selected.get(code, 0.0), rest.get(code, 0.0)
            return -round(abs(here - there), 9), -here, described[code]

        shown = sorted(self.codes, key=rank)
        places = {code: self._categories.order(code) for code in self.codes}
        # There are never more ranges than can be shown.
        ranges = sorted((place, code) for code, place in places.items() if place is not None)
        if ranges:
            shown = [code for _, code in ranges] + [code for code in shown if places[code] is None]
        most = max(_SHOWN, len(ranges) + 1)
        return DifferentField(
            field=self.key,
            score=self.score,
            values=tuple(
                DifferentValue(
                    kind=described[code].kind,
                    text=described[code].text,
                    condition=described[code].condition,
                    selected=numbers[0][code],
                    rest=numbers[1][code],
                )
                for code in shown[:most]
            ),
            more=max(0, len(shown) - most),
            alike=tuple(alike),
        )
