"""The histogram of how late the event loop was: fixed buckets, so that it never grows.

The buckets are those of OpenTelemetry's exponential histogram at scale 3: each is 9 % wider than the
one before. It knows no loop and no clock.
"""

from __future__ import annotations

import math
from typing import Any

__all__ = ["LagHistogram"]

_SCALE = 3
_PER_DOUBLING = 1 << _SCALE
_LOWEST = -17 * _PER_DOUBLING
"""The index of the first bucket: what is shorter than 2**-17 s (8 us) is counted as no delay."""
_BUCKETS = 32 * _PER_DOUBLING
"""Up to 2**15 s (nine hours); what is longer is counted in the last one."""


class LagHistogram:
    """Counts delays, in seconds; quantiles are right within 5 %, the maximum is exact."""

    __slots__ = ("_buckets", "_maximum", "_sum", "_zero")

    def __init__(self) -> None:
        self._buckets = [0] * _BUCKETS
        self._zero = 0
        self._sum = 0.0
        self._maximum = 0.0

    def record(self, seconds: float, *, every: float | None = None) -> None:
        """Count a delay; `every` is the pace at which delays are looked for.

        A loop that stands for ten paces is asked once where it should have been asked ten times. With
        `every` the other nine are counted too, each as late as it would have been; without them the
        quantiles of a program that stands still would look best (coordinated omission).
        """
        seconds = max(0.0, seconds)
        self._add(seconds, 1)
        self._maximum = max(self._maximum, seconds)
        if every is None or seconds <= every:
            return
        missed = math.ceil(seconds / every) - 1
        # The same as adding seconds - every, seconds - 2 * every, ...; a day's delay costs no more.
        self._sum += missed * seconds - every * missed * (missed + 1) / 2
        counted = 0
        for index in range(_index(seconds), -1, -1):
            longer = min(missed, max(0, math.ceil((seconds - _lower(index)) / every) - 1))
            self._buckets[index] += longer - counted
            counted = longer
        self._zero += missed - counted

    @property
    def count(self) -> int:
        """How many delays were counted, those of no length included."""
        return self._zero + sum(self._buckets)

    @property
    def maximum(self) -> float:
        """The longest delay, in seconds."""
        return self._maximum

    def quantile(self, share: float) -> float:
        """The delay that `share` of all do not exceed, in seconds; 0 of none."""
        rank = max(1, math.ceil(share * self.count))
        seen = self._zero
        if seen >= rank:
            return 0.0
        for index, count in enumerate(self._buckets):
            seen += count
            if seen >= rank:
                # The middle of the bucket, on the scale on which the buckets are even.
                return min(self._maximum, _lower(index) * math.exp2(0.5 / _PER_DOUBLING))
        return self._maximum

    def milliseconds(self) -> dict[str, float]:
        """Median, 99th percentile and longest, in milliseconds."""
        return {
            "median": round(self.quantile(0.5) * 1000, 3),
            "p99": round(self.quantile(0.99) * 1000, 3),
            "max": round(self._maximum * 1000, 3),
        }

    def as_dict(self) -> dict[str, Any]:
        """The histogram as JSON has it, in the words of OTLP's exponential histogram; seconds."""
        used = [index for index, count in enumerate(self._buckets) if count]
        first, last = (used[0], used[-1] + 1) if used else (0, 0)
        return {
            "unit": "s",
            "count": self.count,
            "sum": self._sum,
            "max": self._maximum,
            "scale": _SCALE,
            "zeroCount": self._zero,
            "zeroThreshold": _lower(0),
            "positive": {"offset": first + _LOWEST, "bucketCounts": self._buckets[first:last]},
        }

    def _add(self, seconds: float, count: int) -> None:
        self._sum += seconds * count
        index = _index(seconds)
        if index < 0:
            self._zero += count
        else:
            self._buckets[index] += count


def _index(seconds: float) -> int:
    """The bucket of a delay; -1 for one that is too short to count."""
    if seconds <= _lower(0):
        return -1
    # OpenTelemetry's buckets hold their upper bound, not their lower one.
    index = math.ceil(math.log2(seconds) * _PER_DOUBLING) - 1 - _LOWEST
    return max(0, min(index, _BUCKETS - 1))


def _lower(index: int) -> float:
    return math.exp2((index + _LOWEST) / _PER_DOUBLING)
