"""Copies of a healthy window with something wrong, or with something that is not: examples to learn from.

What a link looks like when it is bad is seldom seen, and nobody can wait for it. So examples are made
from what is normal on the very link: the raw probes are thinned, in bursts or evenly, and the round
trips lengthened, as if it had begun some probes ago. Beside them stand copies with what must *not* be
held against a link: a loss of up to two hundredths, one short burst, a host that is busy for a moment.
Between the two lies the boundary that is learned.

Pure; the generator is given.
"""

from __future__ import annotations

import math
import random
from dataclasses import replace

from .window import MOST_RTTS, MOST_VERDICTS, Usual, Window

__all__ = ["damaged", "tolerable"]

_BEGAN = (10.0, 160.0)  # probes ago
_HARMFUL_LOSS = (0.08, 0.7)
_HARMLESS_LOSS = 0.02
_LEAST_HARMFUL_DELAY = 0.005  # s
_DELAY_SHARE, _DELAY_SPREADS = 0.3, 2.0
_DELAYS = (1.0, 30.0)
_BUSY, _BUSY_SHARE = 0.03, 0.6  # s
_SHORT_BURST = 3
_OVER = 16  # probes


def damaged(window: Window, usual: Usual, rng: random.Random) -> Window:
    """The window as it would be had the link gone bad some probes ago."""
    began = int(_between(rng, _BEGAN))
    what = rng.random()
    copy = window
    if what < 0.6:
        share = _between(rng, _HARMFUL_LOSS)
        burst = 1.0 if rng.random() < 0.7 else rng.uniform(1.5, 5.0)
        ways = rng.choice(("in", "out", "both"))
        copy = _thinned(copy, ways, share, began, burst, rng)
    if what > 0.5:
        copy = _slowed(copy, usual, began, rng)
    return copy


def tolerable(window: Window, usual: Usual, rng: random.Random) -> Window:
    """The window with what happens to healthy links."""
    what = rng.random()
    began = int(_between(rng, _BEGAN))
    copy = _thinned(window, "both", rng.uniform(0.0, _HARMLESS_LOSS), MOST_VERDICTS, 1.0, rng)
    if what < 0.5:
        if rng.random() < 0.5:
            start, length = rng.randrange(began), rng.randint(1, _SHORT_BURST)
        else:
            start, length = rng.randint(_OVER, 140), int(_between(rng, (3.0, 128.0)))
        gone = ((1 << length) - 1) << start
        if rng.random() < 0.5:
            copy = replace(copy, came_in=copy.came_in & ~gone)
        else:
            copy = replace(copy, came_out=copy.came_out & ~gone)
    if what > 0.4:
        copy = replace(copy, rtts=_busy(copy.rtts, usual, rng))
    return copy


def _between(rng: random.Random, bounds: tuple[float, float]) -> float:
    """As likely between 1 and 2 as between 10 and 20."""
    return math.exp(rng.uniform(math.log(bounds[0]), math.log(bounds[1])))


def _thinned(window: Window, ways: str, share: float, began: int, burst: float, rng: random.Random) -> Window:
    came_in, came_out = window.came_in, window.came_out
    if ways != "out":
        came_in &= ~_gone(share, began, burst, rng)
    if ways != "in":
        came_out &= ~_gone(share, began, burst, rng)
    return replace(window, came_in=came_in, came_out=came_out)


def _gone(share: float, began: int, burst: float, rng: random.Random) -> int:
    """The bits of the probes that are lost; bursts have `burst` probes on average (E. N. Gilbert, 1960)."""
    if share <= 0.0:
        return 0
    # From one burst to the next: both lengths are geometric.
    begins = min(share / burst / max(1.0 - share, 1e-3), 0.9) if burst > 1.0 else share
    bits, place = 0, _geometric(begins, rng) - 1
    while place < began:
        length = _geometric(1.0 / burst, rng) if burst > 1.0 else 1
        bits |= ((1 << length) - 1) << place
        place += length + (_geometric(begins, rng) if burst > 1.0 else _geometric(begins, rng) - 1)
    return bits & ((1 << began) - 1)


def _geometric(chance: float, rng: random.Random) -> int:
    """How many tries until the first that succeeds."""
    return 1 + int(math.log(1.0 - rng.random()) / math.log1p(-chance)) if chance < 1.0 else 1


def _harm(usual: Usual) -> float:
    """The least delay that is worth an action: no less than comes and goes here all the time."""
    return max(_LEAST_HARMFUL_DELAY, _DELAY_SHARE * usual.rtt, _DELAY_SPREADS * usual.spread)


def _busy(rtts: tuple[float, ...], usual: Usual, rng: random.Random) -> tuple[float, ...]:
    """Round trips while the host does something else now and then, and while the way is a little longer."""
    share, most = rng.uniform(0.0, _BUSY_SHARE), rng.uniform(0.0, _BUSY)
    shift = rng.uniform(0.0, 0.5) * _harm(usual) if rng.random() < 0.5 else 0.0
    # For all of the window, or only of late.
    new = len(rtts) if rng.random() < 0.5 else min(rng.randint(4, 32), len(rtts))
    share = share / 2.0 if new == len(rtts) else share
    return (
        *(rtt + shift for rtt in rtts[: len(rtts) - new]),
        *(
            rtt + shift + (rng.random() * most if rng.random() < share else 0.0)
            for rtt in rtts[len(rtts) - new :]
        ),
    )


def _slowed(window: Window, usual: Usual, began: int, rng: random.Random) -> Window:
    delay = _between(rng, _DELAYS) * _harm(usual)
    # A share of it, or all of it, may come and go from probe to probe.
    moves = rng.choice((0.0, rng.random(), 1.0))
    new = min(began, MOST_RTTS, len(window.rtts))
    old = len(window.rtts) - new
    slow = tuple(
        rtt + delay * (1.0 - moves) + 2.0 * rng.random() * delay * moves for rtt in window.rtts[old:]
    )
    return replace(window, rtts=window.rtts[:old] + slow)
