"""What a learned model is told of a link: how far its last probes are from what is usual on it.

All features are about nought where everything is as usual, and grow with the evidence that it is not.

* Loss: the evidence against the usual loss in the newest 16 to 128 probes, the generalised likelihood
  ratio n * KL(share lost, usual share) of a binomial count in nats (S. S. Wilks, 1938). The worse
  direction comes first, so that both ends and both directions of a link look alike to the model. A run
  of losses counts once in `worse_runs`: one burst is not a lossy link.
* Delay: the middle, the least and the spread of the newest round trips, less the usual ones, in usual
  spreads; the least is what a host that is busy now and then does not change.
* What all other links of the node show at the same time is taken away from both, of the delay in seconds:
  that is rather this host than this link, or there is no better way in any case.

Pure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .window import Usual, Window, lost

__all__ = ["DELAY", "FEATURES", "KIND", "LOSS", "Signs", "features", "plain", "signs"]

KIND = "mesh.link"
"""Of readings with these features."""

FEATURES = (
    "worse_loss_16",
    "worse_loss_32",
    "worse_loss_64",
    "worse_loss_128",
    "worse_runs_128",
    "better_loss_32",
    "better_loss_128",
    "missed",
    "rtt_middle_16",
    "rtt_least_16",
    "rtt_middle_64",
    "rtt_least_64",
    "rtt_spread_16",
    "rtt_spread_64",
    "usual_loss",
    "usual_rtt",
)
"""The names of the features, in order."""

LOSS = slice(0, 8)
"""Which of them speak of loss."""
DELAY = slice(8, 14)
"""Which of them speak of delay."""

_LEAST_SCALE = 0.0005  # s: a round trip on loopback moves by as much when the host has other work.
_SCALE_SHARE = 0.1
_MOST_SPREADS = 40.0
_MOST_NATS = 40.0
_NATS = 4.0  # that make one
_FEW = 12  # round trips
_NO_DELAY = (0.0,) * 6
_NOTHING_LOST = (0.0, 0.0, 0.0, 0.0, 0.0)
_PLAIN_LOSS, _PLAIN_DELAY = 2.0, 2.5  # 8 nats, or four deviations; six usual spreads


@dataclass(frozen=True, slots=True)
class Signs:
    """What one link shows by itself: evidence of loss, and seconds more than usual."""

    loss: tuple[float, ...]
    delay: tuple[float, ...]
    usual_loss: float
    telling: bool
    """Whether enough is known of it to hold it against other links."""


def signs(window: Window, usual: Usual, *, missed: int = 0) -> Signs:
    """Look at one link; `missed` counts the probes overdue in a row now, in the worse direction."""
    loss_in, loss_out = usual.loss_in, usual.loss_out
    ways = (
        (_loss_ratios(window.came_in, window.seen_in, loss_in), loss_in),
        (_loss_ratios(window.came_out, window.seen_out, loss_out), loss_out),
    )
    worse, better = (ways[0], ways[1]) if sum(ways[0][0]) >= sum(ways[1][0]) else (ways[1], ways[0])
    loss = (*worse[0], better[0][1], better[0][3], min(missed, 20) / 4.0)
    telling = usual.known and len(window.rtts) >= _FEW
    return Signs(loss, _delays(window.rtts, usual), worse[1], telling)


def features(mine: Signs, usual: Usual, others: Sequence[Signs] = ()) -> tuple[float, ...]:
    """The features of one reading, in the order of `FEATURES`; each is finite, and none is negative."""
    loss, delay = mine.loss, mine.delay
    beside = [other for other in others if other.telling]
    if beside:
        loss = tuple(_less(value, [other.loss[i] for other in beside]) for i, value in enumerate(loss))
        delay = tuple(_less(value, [other.delay[i] for other in beside]) for i, value in enumerate(delay))
    scale = max(usual.spread, _SCALE_SHARE * usual.rtt, _LEAST_SCALE)
    return (
        *loss,
        # Squeezed: a second more is not a hundred times as wrong as ten milliseconds more.
        *(math.asinh(min(value / scale, _MOST_SPREADS)) if value > 0.0 else 0.0 for value in delay),
        10.0 * mine.usual_loss,
        math.log10(1000.0 * usual.rtt + 1.0),
    )


def plain(values: Sequence[float]) -> bool:
    """Whether nothing about them is striking. A window that is not may be normal; it is no example of it."""
    return max(values[LOSS]) < _PLAIN_LOSS and max(values[DELAY]) < _PLAIN_DELAY


def _loss_ratios(came: int, seen: int, usual: float) -> tuple[float, float, float, float, float]:
    if not lost(came, seen, 128)[0]:
        return _NOTHING_LOST
    short, middle = _ratio(*lost(came, seen, 16), usual), _ratio(*lost(came, seen, 32), usual)
    long, longest = _ratio(*lost(came, seen, 64), usual), _ratio(*lost(came, seen, 128), usual)
    # A loss after an arrival begins a run.
    total = min(seen, 128)
    runs = (~came & (came >> 1) & ((1 << total) - 1)).bit_count()
    return short, middle, long, longest, _ratio(min(runs, total), total, usual)


def _ratio(missed: int, total: int, usual: float) -> float:
    """The likelihood ratio in nats, scaled: nought where no more than usual is lost."""
    if not total or missed <= usual * total:
        return 0.0
    share = missed / total
    nats = missed * math.log(share / usual)
    if missed < total:
        nats += (total - missed) * math.log((1.0 - share) / (1.0 - usual))
    return min(max(nats, 0.0), _MOST_NATS) / _NATS


def _less(value: float, others: list[float]) -> float:
    return max(value - max(min(others), 0.0), 0.0) if value > 0.0 else 0.0


def _delays(rtts: Sequence[float], usual: Usual) -> tuple[float, ...]:
    """Seconds above the usual: the middle and the least of the newest and of all, and both spreads."""
    if len(rtts) < _FEW or not usual.lessons:
        return _NO_DELAY
    new, all_ = sorted(rtts[-16:]), sorted(rtts)
    return (
        new[len(new) // 2] - usual.rtt,
        new[0] - usual.rtt,
        all_[len(all_) // 2] - usual.rtt,
        all_[0] - usual.rtt,
        _spread(new) - usual.spread,
        _spread(all_) - usual.spread,
    )


def _spread(ordered: Sequence[float]) -> float:
    return ordered[(9 * len(ordered)) // 10] - ordered[len(ordered) // 10]
