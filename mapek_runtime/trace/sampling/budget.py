"""The budget of adaptive sampling: who may keep how many traces in this second.

Plain arithmetic over names and numbers; whoever asks brings the time. Each operation has tokens of
its own and there is a common pool; a trace that is kept costs one. Once a second new tokens are given
out, as many as the budget allows for the time that passed: each operation gets what it needs, up to
a level that is equal for all (max-min fairness), and what nobody needs goes to the pool.

The probability of an operation is its share over its measured rate. Once its tokens and the pool's
are used up, each further trace that is kept divides the probability by four: it is never nought, so
what is counted with it stays unbiased, and yet a burst of any height keeps only a few traces more.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence

from .threshold import LEAST_RATIO, threshold_of

__all__ = ["DEFAULT_OPERATIONS", "Budget", "shares_of"]

DEFAULT_OPERATIONS = 100
PERIOD = 1.0
"""Seconds from one division of the budget to the next."""
RISE, FALL = 1.0, 3.0
"""Seconds in which a measured rate forgets most of what was before, when it rises and when it falls."""
RESERVE = 2.0
"""Seconds' worth of its share that an operation can save up."""
IDLE = 60.0
"""Seconds after which an operation that did not occur makes room for another."""
HEADROOM = 1.25
"""What an operation is given, if there is enough, over its measured rate."""
AIM = 0.85, 1.15
"""The part of its share that an operation aims at: with an empty pool, so that chance alone does not
use up its tokens, and with a full one, so that the pool is spent."""
SET_ASIDE = 0.1
"""The part of the budget that is divided equally, whatever is needed."""
_STEP = 4.0
_MOST_STEPS = 28
"""So many steps lead from 1 to the least probability there is."""


class Budget:
    """Divides `per_second` kept traces among operations, and decides for each trace."""

    def __init__(self, per_second: float, *, now: float, operations: int = DEFAULT_OPERATIONS) -> None:
        if not (per_second > 0 and math.isfinite(per_second)):
            raise ValueError(f"budget is {per_second!r}; it must be a number of traces a second above 0")
        if operations < 1:
            raise ValueError(f"operations is {operations!r}; it must be at least 1")
        self.per_second = per_second
        self._most = operations
        self._most_pool = self._pool = max(1.0, per_second)
        self._divided = now
        self._next = now + PERIOD
        self._operations: dict[str, _Operation] = {}
        self._others = _Operation()
        # Only against two threads that divide at once; a decision takes no lock.
        self._dividing = threading.Lock()

    def decide(self, name: str, randomness: int, now: float) -> int | None:
        """The threshold at which a trace that begins with this operation is kept; None: it is not."""
        if now >= self._next:
            self._divide(now)
        operation = self._operations.get(name)
        if operation is None:
            operation = self._meet(name)
        operation.arrived += 1
        tokens = operation.tokens
        if tokens < 1.0 <= self._pool:
            self._pool -= 1.0
            tokens = operation.tokens = tokens + 1.0
        threshold = operation.threshold if tokens >= 1.0 else operation.raised()
        if randomness < threshold:
            return None
        operation.tokens -= 1.0
        return threshold

    def probability(self, name: str) -> float:
        """The probability that an operation has by its rate; 1 for one that was not met yet."""
        operation = self._operations.get(name)
        return 1.0 if operation is None else operation.probability

    def _meet(self, name: str) -> _Operation:
        if len(self._operations) >= self._most:
            return self._others
        operation = self._operations[name] = _Operation()
        return operation

    def _divide(self, now: float) -> None:
        if not self._dividing.acquire(blocking=False):
            return
        try:
            passed = now - self._divided
            self._divided, self._next = now, now + PERIOD
            for name, operation in tuple(self._operations.items()):
                operation.measure(passed)
                # Only with a token in hand: it pays for the one that a newcomer begins with.
                if operation.idle >= IDLE and operation.tokens >= 1.0:
                    del self._operations[name]
            self._others.measure(passed)
            everyone = (*self._operations.values(), self._others)
            shares = shares_of(self.per_second, [operation.rate * HEADROOM for operation in everyone])
            left = (self.per_second - sum(shares)) * passed
            aim = AIM[0] + (AIM[1] - AIM[0]) * max(0.0, self._pool) / self._most_pool
            for operation, share in zip(everyone, shares, strict=True):
                left += operation.receive(share, passed)
                operation.aim(aim * share)
            self._pool = min(self._most_pool, self._pool + max(0.0, left))
        finally:
            self._dividing.release()


def shares_of(budget: float, needs: Sequence[float]) -> list[float]:
    """Divide a budget so that each gets what it needs, up to a level that is equal for all.

    A part of the budget goes to all alike, so that who needed nothing lately has a share too.
    """
    least = SET_ASIDE * budget / len(needs)
    shares = [0.0] * len(needs)
    left = budget
    by_need = sorted(range(len(needs)), key=lambda index: needs[index])
    for waiting, index in zip(range(len(needs), 0, -1), by_need, strict=True):
        shares[index] = min(max(needs[index], least), left / waiting)
        left -= shares[index]
    return shares


class _Operation:
    """What is known of one operation: how often it occurs, and what it may still keep."""

    __slots__ = ("_is_new", "_raised", "arrived", "idle", "probability", "rate", "threshold", "tokens")

    def __init__(self) -> None:
        self.arrived = 0
        self.rate = 0.0
        self.idle = 0.0
        # The first trace is kept, whatever the others need.
        self.tokens = 1.0
        self.probability = 1.0
        self.threshold = 0
        self._is_new = True
        self._raised: dict[int, int] = {}

    def measure(self, passed: float) -> None:
        """Take in what arrived in the `passed` seconds."""
        arrived, self.arrived = self.arrived, 0
        self.idle = 0.0 if arrived else self.idle + passed
        change = arrived / passed - self.rate
        memory = RISE if change > 0 else FALL
        self.rate += change if self._is_new else change * (1 - math.exp(-passed / memory))
        self._is_new = False

    def receive(self, share: float, passed: float) -> float:
        """Take the tokens of `passed` seconds; what cannot be saved up goes back."""
        tokens = self.tokens + share * passed
        self.tokens = min(tokens, max(1.0, RESERVE * share))
        return tokens - self.tokens

    def aim(self, per_second: float) -> None:
        """Choose the probability that keeps so many traces a second at the measured rate."""
        self.probability = 1.0 if self.rate <= per_second else max(LEAST_RATIO, per_second / self.rate)
        self.threshold = threshold_of(self.probability)
        self._raised.clear()

    def raised(self) -> int:
        """The threshold of one that has used up its tokens."""
        steps = min(_MOST_STEPS, math.ceil(1.0 - self.tokens))
        threshold = self._raised.get(steps)
        if threshold is None:
            threshold = threshold_of(max(LEAST_RATIO, self.probability / _STEP**steps))
            self._raised[steps] = threshold
        return threshold
