"""Experience: how often each action has worked, and how fast, counted by the node that acted.

What another node has done is known in two ways: from its incidents, each counted once, and from its own
word for how often an action of it has worked, which also speaks of incidents that nobody keeps any more.
The two are of the same deeds, so of each node and pair of action and target the larger count holds.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

__all__ = ["Experience"]

_KEPT_REPAIRS = 64


@dataclass(slots=True)
class _Seen:
    """What one node has done with one action on one target."""

    successes: int = 0
    failures: int = 0
    told_successes: int = 0
    told_failures: int = 0

    def total(self) -> tuple[int, int]:
        return max(self.successes, self.told_successes), max(self.failures, self.told_failures)


class Experience:
    """Counts by action, target and node; a node is named as it names itself, this one by an empty name."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[str, dict[str, _Seen]]] = {}
        self._repairs: dict[str, deque[float]] = {}

    def count(
        self, node: str, action: str, target: str, *, success: bool, repair_seconds: float | None
    ) -> None:
        """One more deed of that node."""
        seen = self._of(node, action, target)
        if success:
            seen.successes += 1
        else:
            seen.failures += 1
        if success and repair_seconds is not None:
            self._repairs.setdefault(action, deque(maxlen=_KEPT_REPAIRS)).append(repair_seconds)

    def told(self, node: str, action: str, target: str, *, successes: int, failures: int) -> None:
        """What that node says of all it has done; it takes the place of what it said before."""
        seen = self._of(node, action, target)
        seen.told_successes = successes
        seen.told_failures = failures

    def success_rate(self, action: str, target: str | None) -> float | None:
        """The share that worked, in 0..1; None without experience. With `target`, only on it."""
        by_target = self._seen.get(action, {})
        chosen = by_target.values() if target is None else [by_target.get(target, {})]
        totals = [seen.total() for nodes in chosen for seen in nodes.values()]
        successes = sum(total[0] for total in totals)
        deeds = successes + sum(total[1] for total in totals)
        return successes / deeds if deeds else None

    def repair_seconds(self, action: str) -> float | None:
        """The median time to repair; None without experience."""
        times = self._repairs.get(action)
        if not times:
            return None
        ordered = sorted(times)
        return ordered[len(ordered) // 2]

    def _of(self, node: str, action: str, target: str) -> _Seen:
        return self._seen.setdefault(action, {}).setdefault(target, {}).setdefault(node, _Seen())
