"""When a leader takes a claim away: when its own clock says that the time is over.

The clock is the loop's, which no one sets. A new leader does not know how long ago a claim was granted, and
counts from its election. So a claim may be kept longer than was asked for, and never shorter: whoever holds
it counts from before it asked, the leader from after it was granted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf

from mapek_domains.raft.decisions import Held

__all__ = ["Leases"]

_SLACK = 1.01
"""Two clocks do not run equally fast; none is off by a hundredth."""
_AGAIN = 1.0


class Leases:
    """The ends of the claims in force, on the clock of one leader.

    An end is that of one grant, which its fence names. A node that is behind may be sent a snapshot in place
    of what happened, so a key that it counted for one owner may be another's by now.
    """

    def __init__(self) -> None:
        self._ends: dict[str, tuple[int, float]] = {}
        """Key → fence and end."""
        self._proposed: dict[str, float] = {}

    def begin(self, claims: Mapping[str, Held], now: float) -> None:
        """This node leads from now on."""
        self._ends.clear()
        self._proposed.clear()
        for key, held in claims.items():
            self.granted(key, held, now)

    def granted(self, key: str, held: Held, now: float) -> None:
        """The key was granted at this time, or before."""
        self._ends[key] = held.fence, now + held.hold_us / 1e6 * _SLACK

    def gone(self, key: str) -> None:
        """Nobody has the key."""
        self._ends.pop(key, None)
        self._proposed.pop(key, None)

    def over(self, claims: Mapping[str, Held], now: float) -> Sequence[tuple[str, int]]:
        """Keys and fences of the claims whose time is over; each again after a while, for what was proposed
        may be lost."""
        over = []
        for key, (fence, end) in tuple(self._ends.items()):
            if end > now:
                continue
            held = claims.get(key)
            if held is None:
                self.gone(key)
            elif held.fence != fence:
                self.granted(key, held, now)
            elif now - self._proposed.get(key, -inf) >= _AGAIN:
                self._proposed[key] = now
                over.append((key, fence))
        return over
