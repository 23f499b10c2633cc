"""What distinguishes some spans from others: their attributes, ranked by how far each tells which is which.

Pure. The measure is the total variation of two distributions, held out: in one half of the traces it is
learned which values the selected spans have more often, in the other half it is counted by how much. It is
a share of spans from 0 to 1, and needs no table of exceptions: an attribute with a value of its own for each
span or trace foretells nothing of the other half, and what differs by chance in one half does not differ in
the other. What could still be chance, with as many attributes as were compared, is left out.

Which attributes a span has depends on its name. So those of spans are compared as if both sides had the
same names as often: else every attribute of an operation would be told beside its name.
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
_NEAR = (0.7, 1.05)
"""What an attribute tells of the duration was measured inside the span, and is a little less."""


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
    weights = _by_name(selected, rest)
    keys = _keys(selected, rest)
    bound = NormalDist().inv_cdf(1 - _CHANCE / max(1, len(keys)))
    found = []
    for key in keys:
        column = _Column(key, (selected, rest), halves, weights if key.startswith("span") else None)
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


_Weights = tuple[list[float], list[float]]


def _by_name(selected: Sequence[Facts], rest: Sequence[Facts]) -> _Weights:
    """What each span counts, so that the rest has each name as often as the selected spans.

    A selected span of a name that the rest does not have counts nothing: its name says it all.
    """
    names = [[span.values.get("name") for span in side] for side in (selected, rest)]
    here, there = Counter(names[0]), Counter(names[1])
    return (
        [1.0 if there[name] else 0.0 for name in names[0]],
        [here[name] / there[name] for name in names[1]],
    )


_Halves = tuple[list[int], list[int]]
"""To which half each span of each side belongs, 0 or 1."""


def _halves(selected: Sequence[Facts], rest: Sequence[Facts]) -> _Halves:
    by_trace = tuple([crc32(span.trace_id) & 1 for span in side] for side in (selected, rest))
    least = min(min(sum(side), len(side) - sum(side)) for side in by_trace)
    if least >= FEWEST // 2 - 1:
        return by_trace[0], by_trace[1]
    # Too few traces: every other span then.
    return _every_other(selected), _every_other(rest)


def _every_other(side: Sequence[Facts]) -> list[int]:
    order = sorted(range(len(side)), key=lambda index: (crc32(side[index].span_id), side[index][:2]))
    halves = [0] * len(side)
    for place, index in enumerate(order):
        halves[index] = place & 1
    return halves


class _Part:
    """The weights of the codes in one half of one side."""

    def __init__(
        self, codes: Sequence[Hashable], weights: Sequence[float], halves: Sequence[int], half: int
    ) -> None:
        self.sums: dict[Hashable, float] = {}
        self.size = squares = 0.0
        for code, weight, which in zip(codes, weights, halves, strict=True):
            if which == half:
                self.sums[code] = self.sums.get(code, 0.0) + weight
                self.size += weight
                squares += weight * weight
        self.effective = self.size * self.size / squares if squares else 0.0
        """How many spans of one weight would be as sure (Kish)."""

    def shares(self) -> dict[Hashable, float]:
        """The share of each code."""
        return {code: weight / self.size for code, weight in self.sums.items()}


class _Column:
    """One attribute of all spans."""

    def __init__(
        self,
        key: str,
        sides: tuple[Sequence[Facts], Sequence[Facts]],
        halves: _Halves,
        weights: _Weights | None,
    ) -> None:
        self.key = key
        self._sides = sides
        values = [[span.values[key] for span in side if key in span.values] for side in sides]
        self._categories = Categories(key, *values)
        self._of_spans = [
            [self._categories.code(span.values[key]) if key in span.values else ABSENT for span in side]
            for side in sides
        ]
        self._numbers = tuple(Counter(codes) for codes in self._of_spans)
        self.codes = set().union(*self._numbers)
        weights = weights or ([1.0] * len(sides[0]), [1.0] * len(sides[1]))
        parts = [
            [_Part(*each, half) for half in (0, 1)]
            for each in zip(self._of_spans, weights, halves, strict=True)
        ]
        self.score, self.certainty = self._held_out(parts)
        # What counts nothing does not differ.
        self.score *= sum(weights[0]) / len(sides[0])

    def _held_out(self, parts: Sequence[Sequence[_Part]]) -> tuple[float, float]:
        """The difference of shares that one half foretells of the other, and in how many standard errors."""
        if any(not part.size for side in parts for part in side):
            return 0.0, 0.0
        difference = variance = 0.0
        for learned, tested in ((0, 1), (1, 0)):
            more = self._more_often(parts[0][learned].shares(), parts[1][learned].shares())
            for side, sign in zip(parts, (1, -1), strict=True):
                part = side[tested]
                share = sum(part.sums[code] for code in more if code in part.sums) / part.size
                difference += sign * share
                # With a span more of each kind, or few spans that agree would seem to be certain.
                share = (share * part.effective + 1) / (part.effective + 2)
                variance += share * (1 - share) / part.effective
        return difference / 2, difference / math.sqrt(variance)

    def _whole(self, side: int) -> dict[Hashable, float]:
        size = len(self._sides[side])
        return {code: number / size for code, number in self._numbers[side].items()}

    @staticmethod
    def _more_often(selected: Mapping[Hashable, float], rest: Mapping[Hashable, float]) -> set[Hashable]:
        return {code for code, share in selected.items() if share > rest.get(code, 0.0)}

    def tells_duration(self) -> bool:
        """Whether nine of ten numbers are the duration of their span in some unit."""
        pairs = [
            (span.values[self.key], span.duration)
            for side in self._sides
            for span in side
            if type(span.values.get(self.key)) in (int, float)
        ]
        least, most = _NEAR
        return bool(pairs) and any(
            sum(least * duration <= number * unit <= most * duration for number, duration in pairs)
            >= 0.9 * len(pairs)
            for unit in _UNITS
        )

    def is_alike(self, other: _Column) -> bool:
        """Whether the values that are more often selected are those of the same spans as the other's."""
        both = (self, other)
        chosen = [column._more_often(column._whole(0), column._whole(1)) for column in both]
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
        numbers = self._numbers
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
