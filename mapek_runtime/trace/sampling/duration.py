"""Unusual durations: which cycles took much longer than the others of their kind.

A duration is unusual when, among the last `WINDOW` of the same operation,

    duration > the 0.99 quantile   and   duration > slow * the median

and at least `WARM_UP` have been seen. The quantile bounds the share of what is unusual, however the
durations are spread; the factor keeps the slowest of a hundred near-equal ones from being called so.
A lasting change soon becomes the new usual: a few long ones lift the quantile. What grows without
end would beat any window, so no more than `SHARE` of all cycles, and `BURST` beyond it, are ever
unusual. Pure: it knows numbers only. Memory is bounded: `MOST_OPERATIONS` windows, the last of them
shared by whatever comes after.
"""

from __future__ import annotations

import math
import threading
from bisect import bisect_left, insort
from collections import deque

__all__ = ["BURST", "MOST_OPERATIONS", "SHARE", "WARM_UP", "WINDOW", "Durations", "Usual"]

WINDOW = 512
WARM_UP = 100
QUANTILE = 0.99
SHARE = 0.01
BURST = 10.0
MOST_OPERATIONS = 64


class Usual:
    """How long one operation usually takes."""

    __slots__ = ("_credit", "_slow", "_sorted", "_window")

    def __init__(self, slow: float) -> None:
        self._slow = slow
        self._window: deque[int] = deque()
        self._sorted: list[int] = []
        self._credit = BURST

    def judge(self, duration: int) -> bool:
        """Whether `duration` is unusual; from now on it is one of those seen."""
        seen = self._sorted
        count = len(seen)
        unusual = (
            count >= WARM_UP
            and self._credit >= 1
            and duration > seen[math.ceil(QUANTILE * count) - 1]
            and duration > self._slow * seen[count // 2]
        )
        self._credit = min(BURST, self._credit + SHARE) - unusual
        if count == WINDOW:
            del seen[bisect_left(seen, self._window.popleft())]
        self._window.append(duration)
        insort(seen, duration)
        return unusual


class Durations:
    """What is usual, by operation."""

    def __init__(self, slow: float) -> None:
        self._slow = slow
        self._usual: dict[str, Usual] = {}
        self._lock = threading.Lock()

    def judge(self, operation: str, duration: int) -> bool:
        """Whether `duration` (in nanoseconds) is unusual for `operation`; from any thread, never waits."""
        # Whoever comes while another thread is in here is not judged: a cycle may be missed, none waits.
        # The same holds for a span that the garbage collector ends in the middle of this.
        if not self._lock.acquire(blocking=False):
            return False
        try:
            usual = self._usual.get(operation)
            if usual is None:
                name = operation if len(self._usual) < MOST_OPERATIONS - 1 else ""
                usual = self._usual.setdefault(name, Usual(self._slow))
            return usual.judge(duration)
        finally:
            self._lock.release()

    def __len__(self) -> int:
        """How many operations are told apart."""
        return len(self._usual)
