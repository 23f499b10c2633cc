"""When a leader takes a claim away: when its own clock says that the time is over.

The clock is the loop's, which no one sets. A new leader does not know how long ago a claim was granted, and
counts from its election. So a claim may be kept longer than was asked for, and never shorter: whoever holds
it counts from before it asked, the leader from after it was granted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mapek_domains.raft.decisions import Held

__all__ = ["Leases"]

_SLACK = 1.01
"""Two clocks do not run equally fast; none is off by a hundredth."""
_AGAIN = 1.0


class Leases:
    """The ends of the claims in force, on the clock of one leader."""

    def __init__(self) -> None:
        self._ends: dict[str, float] = {}
        self._proposed: dict[str, float] = {}

    def begin(self, claims: Mapping[str, Held], now: float) -> None:
        """This node leads from now on."""
        self._ends = {key: now + held.hold_us / 1e6 * _SLACK for key, held in claims.items()}
        self._proposed.clear()

    def granted(self, key: str, hold_us: int, now: float) -> None:
        """The key was granted for that long, or for longer."""
        end = now + hold_us / 1e6 * _SLACK
        self._ends[key] = max(end, self._ends.get(key, end))

    def gone(self, key: str) -> None:
        """Nobody has the key."""
        self._ends.pop(key, None)
        self._proposed.pop(key, None)

    def over(self, now: float) -> Sequence[str]:
        """The keys whose time is over; each again after a while, for what was proposed may be lost."""
        over = [
            key
            for key, end in self._ends.items()
            if end <= now and now - self._proposed.get(key, float("-inf")) >= _AGAIN
        ]
        self._proposed.update(dict.fromkeys(over, now))
        return over
