"""Traces that arrive at a budget, and what became of them."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Mapping

from mapek_runtime.trace.sampling.budget import Budget
from mapek_runtime.trace.sampling.threshold import adjusted_count

__all__ = ["Arrivals"]


class Arrivals:
    """Counts what arrived and what was kept; the same seed gives the same traces."""

    def __init__(self, budget: float, *, seed: int = 1, operations: int = 100) -> None:
        self.budget = Budget(budget, now=0.0, operations=operations)
        self.now = 0.0
        self.arrived: Counter[str] = Counter()
        self.kept: Counter[str] = Counter()
        self.estimated: defaultdict[str, float] = defaultdict(float)
        """The sum of the adjusted counts."""
        self._random = random.Random(seed)

    @property
    def total_kept(self) -> int:
        return sum(self.kept.values())

    def one(self, name: str) -> bool:
        """One trace now."""
        threshold = self.budget.decide(name, self._random.getrandbits(56), self.now)
        self.arrived[name] += 1
        if threshold is None:
            return False
        self.kept[name] += 1
        self.estimated[name] += adjusted_count(threshold)
        return True

    def at_once(self, name: str, count: int) -> None:
        """So many traces at this moment."""
        for _ in range(count):
            self.one(name)

    def steady(self, rates: Mapping[str, float], seconds: float) -> Arrivals:
        """Traces at random moments, of each name so many a second."""
        until = self.now + seconds
        names, weights = list(rates), list(rates.values())
        while (moment := self.now + self._random.expovariate(sum(weights))) < until:
            self.now = moment
            self.one(self._random.choices(names, weights)[0])
        self.now = until
        return self
