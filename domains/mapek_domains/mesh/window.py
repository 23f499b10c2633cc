"""The last probes of one link, raw, and what is usual on it: what a learned model judges by.

A window is a few numbers: the fates of the newest 256 probes of each direction as bits of an integer,
and the newest 64 round trips. Taking one costs about a microsecond, and so it stands in every reading.

What is usual is learned slowly, and never without bound, or a link that decays slowly would teach that
decay is normal: the usual loss is never taken to be more than 3 %, the usual round trip never more than
twice the lowest that was ever usual here (and 5 ms). Beyond that a link is judged, however long it has
been so. What does not look normal counts for a fiftieth: within these bounds a link whose way has changed
for good is believed after about an hour.

Pure: knows no clock, no packet and no model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

__all__ = ["MOST_RTTS", "MOST_VERDICTS", "Usual", "Window", "lost"]

MOST_VERDICTS = 256
MOST_RTTS = 64

_LEAST_LOSS, _MOST_LOSS = 0.005, 0.03
_PRIOR_LOST, _PRIOR_TOTAL = 0.5, 100.0
_MEMORY = 4000.0  # probes: three minutes at the default interval
_DOUBT = 0.02
_LESSON = 24  # probes
_SETTLED = 4  # lessons
_GAIN, _GAIN_DOWN = 1 / 32, 1 / 8
_ROOM = 0.005  # s


@dataclass(frozen=True, slots=True)
class Window:
    """The newest probes of one link as one of its ends saw them.

    `came_in` and `came_out` hold a bit for each probe, 1 for one that arrived, the newest lowest;
    `seen_in` and `seen_out` count all verdicts there ever were, `rtts` are seconds, the newest last.
    """

    came_in: int = 0
    seen_in: int = 0
    came_out: int = 0
    seen_out: int = 0
    rtts: tuple[float, ...] = ()
    seen_rtts: int = 0

    def since(self, earlier: Window) -> Window:
        """Without what was in an earlier window of the same link."""
        if (
            self.seen_in < earlier.seen_in
            or self.seen_out < earlier.seen_out
            or self.seen_rtts < earlier.seen_rtts
        ):
            # The counts began anew with another life of this end.
            return self
        fresh = self.seen_rtts - earlier.seen_rtts
        return replace(
            self,
            seen_in=self.seen_in - earlier.seen_in,
            seen_out=self.seen_out - earlier.seen_out,
            rtts=self.rtts[max(len(self.rtts) - fresh, 0) :],
        )

    def loss(self, probes: int = 64) -> float:
        """The share lost of the newest `probes`, in the worse direction."""
        return max(
            missed / total if total else 0.0
            for missed, total in (
                lost(self.came_in, self.seen_in, probes),
                lost(self.came_out, self.seen_out, probes),
            )
        )

    def loss_at_most(self, probes: int = 128) -> float:
        """What the loss may be in the worse direction: the share lost, and two deviations and a loss more."""
        worst = 0.0
        for came, seen in ((self.came_in, self.seen_in), (self.came_out, self.seen_out)):
            missed, total = lost(came, seen, probes)
            worst = max(worst, min((missed + 2.0 * math.sqrt(missed) + 1.0) / max(total, 1), 1.0))
        return worst

    def rtt(self, probes: int = 16) -> float:
        """The middle of the newest round trips, in seconds; 0 when there is none."""
        newest = sorted(self.rtts[-probes:])
        return newest[len(newest) // 2] if newest else 0.0


def lost(came: int, seen: int, probes: int) -> tuple[int, int]:
    """How many of the newest `probes` were lost, and how many there were: fewer at the beginning."""
    total = min(seen, probes, MOST_VERDICTS)
    return total - (came & ((1 << total) - 1)).bit_count(), total


@dataclass(frozen=True, slots=True)
class Usual:
    """What is usual on a link: shares lost, and the round trip and its spread in seconds."""

    lost_in: float = _PRIOR_LOST
    total_in: float = _PRIOR_TOTAL
    lost_out: float = _PRIOR_LOST
    total_out: float = _PRIOR_TOTAL
    rtt: float = 0.0
    spread: float = 0.0
    lowest: float = 0.0
    seen_in: int = 0
    seen_out: int = 0
    seen_rtts: int = 0
    lessons: int = 0

    @property
    def known(self) -> bool:
        """Whether enough was seen to hold anything against it."""
        return self.lessons >= _SETTLED

    @property
    def loss_in(self) -> float:
        """The share that may be lost on the way in."""
        return _upper(self.lost_in, self.total_in)

    @property
    def loss_out(self) -> float:
        """The share that may be lost on the way out."""
        return _upper(self.lost_out, self.total_out)

    def due(self, window: Window) -> bool:
        """Whether enough has come since the last lesson for another."""
        return min(window.seen_in - self.seen_in, window.seen_rtts - self.seen_rtts) >= _LESSON or (
            # Another life of this end: its counts began anew.
            window.seen_in < self.seen_in or window.seen_rtts < self.seen_rtts
        )

    def passed_over(self, window: Window) -> Usual:
        """Nothing is to be learned of what came up to here."""
        return replace(self, seen_in=window.seen_in, seen_out=window.seen_out, seen_rtts=window.seen_rtts)

    def after(self, window: Window, *, calm: bool) -> Usual:
        """What is usual when what came since the last lesson is believed; little of it where not calm."""
        if not window.rtts or not (calm or self.known):
            return self.passed_over(window)
        trust = 1.0 if calm else _DOUBT
        lost_in, total_in = _counted(
            self.lost_in, self.total_in, window.came_in, window.seen_in, self.seen_in, trust
        )
        lost_out, total_out = _counted(
            self.lost_out, self.total_out, window.came_out, window.seen_out, self.seen_out, trust
        )
        ordered = sorted(window.rtts)
        middle = ordered[len(ordered) // 2]
        spread = ordered[(9 * len(ordered)) // 10] - ordered[len(ordered) // 10]
        # The first lessons count alike, then the old ones fade; good news is believed sooner.
        gain = max(_GAIN, 1.0 / (self.lessons + 1))
        up = gain * trust
        rtt = self.rtt + (middle - self.rtt) * (max(gain, _GAIN_DOWN) if middle < self.rtt else up)
        spread = self.spread + (spread - self.spread) * up
        lowest = min(self.lowest, rtt) if self.lessons else rtt
        rtt = min(rtt, 2.0 * lowest + _ROOM)
        spread = min(spread, lowest + _ROOM)
        return Usual(
            lost_in=lost_in,
            total_in=total_in,
            lost_out=lost_out,
            total_out=total_out,
            rtt=rtt,
            spread=spread,
            lowest=lowest,
            seen_in=window.seen_in,
            seen_out=window.seen_out,
            seen_rtts=window.seen_rtts,
            lessons=self.lessons + 1,
        )


def _upper(lost: float, total: float) -> float:
    mean = lost / total
    return min(max(mean + math.sqrt(mean * (1.0 - mean) / (total + 1.0)), _LEAST_LOSS), _MOST_LOSS)


def _counted(
    lost_before: float, total_before: float, came: int, seen: int, counted: int, trust: float
) -> tuple[float, float]:
    # A count that is smaller than before is that of a new life.
    fresh = seen - counted if seen >= counted else seen
    missed, total = lost(came, seen, min(fresh, MOST_VERDICTS))
    keep = min(1.0, _MEMORY / (total_before + trust * total))
    # No more than may ever be called usual: what is beyond it would take as long to be forgotten.
    most = 2.0 * _MOST_LOSS
    total_after = (total_before + trust * total) * keep
    return min((lost_before + trust * missed) * keep, most * total_after), total_after
