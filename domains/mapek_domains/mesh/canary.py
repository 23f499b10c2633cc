"""The canaries of one direction that a fault may hurt: did it hurt, and has it recovered?

Most faults stop what they hit: one canary that is lost proves harm, and a few dozen in a row prove that it
is over. Under a mild fault most canaries come through all the same, so that neither proves anything. Such a
direction is judged by two cumulative sums of likelihood ratios (E. S. Page, 1954), between what a fault
like this does to canaries and what happened before it: harm is proven at a thousand to one, its end at ten
thousand to one. A canary speaks for the fault when it is lost or, where the fault is a delay, when it took
more than half of the delay.

Pure: times are passed in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from mapek_runtime.loop.domain import Fault

from .schedule import SLOW, SLOW_BY

__all__ = ["OVERDUE", "STREAK", "Direction", "MildDirection", "direction"]

STREAK = 25
OVERDUE = 0.5
"""Seconds after which a canary that has not arrived is taken for lost."""
_STALE = 0.25
"""Seconds without an arrival after which a streak is not going on any more."""

_MILD_LOSS = 0.4
_HARM, _HEALED = math.log(1e3), math.log(1e4)
_BEFORE = 0.01
_LATE_BEFORE, _LATE_WITH = 0.1, 0.75


class Direction:
    """A direction under a fault that stops most: it recovers with a streak."""

    def __init__(self, source: str, destination: str) -> None:
        self.source = source
        self.destination = destination
        self.sent: list[float] = []
        """When each canary was sent; its index is its number."""
        self._last = -1
        self._lost = False
        self._streak = 0
        self._streak_began = 0.0

    def delivered(self, number: int, now: float) -> None:
        """Canary `number` arrived."""
        if number >= len(self.sent) or number <= self._last:
            return
        for missing in range(self._last + 1, number):
            self._judge(missing, well=False)
        self._last = number
        self._judge(number, well=self._in_time(now - self.sent[number]))

    def waited(self, now: float) -> float:
        """Seconds since the oldest canary that is on its way was sent."""
        waiting = self._last + 1
        return now - self.sent[waiting] if waiting < len(self.sent) else 0.0

    def hurt(self, now: float) -> bool:
        """Whether the fault cost this direction anything."""
        return self._lost or self.waited(now) > OVERDUE

    def recovered_at(self, now: float) -> float | None:
        """When the first canary of what proves the recovery was sent; None while it is not proven."""
        return self._streak_began if self._proven() and self.waited(now) < _STALE else None

    def _in_time(self, _took: float) -> bool:
        return True

    def _judge(self, number: int, *, well: bool) -> None:
        if not well:
            self._lost = True
            self._streak = 0
            return
        if not self._streak:
            self._streak_began = self.sent[number]
        self._streak += 1

    def _proven(self) -> bool:
        return self._streak >= STREAK


@dataclass(frozen=True, slots=True)
class _Odds:
    """The chance that a canary speaks for the fault, before it and under it; and what is late, in seconds."""

    before: float
    under: float
    late: float = math.inf


class MildDirection(Direction):
    """A direction under a fault that lets most through: it recovers when that is proven by chance alone."""

    def __init__(self, source: str, destination: str, odds: _Odds) -> None:
        super().__init__(source, destination)
        self._odds = odds
        self._for_well = math.log((1.0 - odds.before) / (1.0 - odds.under))
        self._for_fault = math.log(odds.under / odds.before)
        self._harm = 0.0
        self._health = 0.0

    def _in_time(self, took: float) -> bool:
        return took <= self._odds.late

    def _judge(self, number: int, *, well: bool) -> None:
        if well:
            if not self._health:
                self._streak, self._streak_began = 0, self.sent[number]
            self._health += self._for_well
            self._harm = max(0.0, self._harm - self._for_well)
        else:
            self._health = max(0.0, self._health - self._for_fault)
            self._harm += self._for_fault
            self._lost = self._lost or self._harm >= _HARM
        # All canaries since then, not those in a row.
        self._streak += 1

    def _proven(self) -> bool:
        return self._health >= _HEALED and self._streak >= STREAK


def direction(fault: Fault, source: str, destination: str, *, usual_loss: float = 0.0) -> Direction:
    """How the canaries from `source` to `destination` are to be judged under that fault.

    `usual_loss` is what links lose without any fault.
    """
    before = max(_BEFORE, usual_loss)
    loss = fault.parameters.get("loss", 1.0)
    if fault.kind == SLOW:
        delay = fault.parameters.get("delay", SLOW_BY) + 0.5 * fault.parameters.get("jitter", 0.0)
        return MildDirection(
            source, destination, _Odds(max(_LATE_BEFORE, before), _LATE_WITH, late=0.5 * delay)
        )
    if fault.kind == "link.loss" and loss < _MILD_LOSS:
        return MildDirection(source, destination, _Odds(min(before, loss / 2.0), loss))
    return Direction(source, destination)
