"""When is a link bad? Loss over a window and a run of misses, judged apart for each direction.

Two rules, each with a bound on its false alarms:

* *lossy*: Page's cumulative sum (E. S. Page, "Continuous inspection schemes", 1954) of the
  likelihood ratio between the loss that is normal here and a loss that hurts. Its threshold is
  ln(1e8): by Lorden's bound a healthy link then gives less than one false alarm in 1e8 probes. The
  probes since the sum was last zero are the evidence, a window that fits itself to the change.
* *dead*: so many probes missed in a row that the normal loss would do it once in 1e9: 4 on a clean
  link (0.2 s at the default interval), 10 where a tenth is lost all the time.

Normal is learned, from times judged normal only: verdicts wait until the sum is back at zero, and
those of an alarm are thrown away. Up to a twentieth is never held against a link, and the sum looks
for a half: were it to look for less on a link that seemed clean, a mesh that begins to lose a tenth
everywhere would drain itself. So 60 % is found in about a second, 40 % in about one and a half, and
up to a fifth becomes the new normal. The upper end of what the loss may be is used (mean and two
deviations), so a link that was watched for a second is not yet trusted to be clean.

`LinkState` turns alarms into few actions: drain once, cool down (longer after each relapse), and
use the link again only after it was good for a while.

Pure: knows no clock, no packet and no span.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from dataclasses import dataclass

__all__ = [
    "THRESHOLD",
    "Detector",
    "LinkState",
    "Normal",
    "Phase",
    "harmful_loss",
    "run_limit",
]

THRESHOLD = math.log(1e8)
"""Of the cumulative sum; exp(-THRESHOLD) bounds the false alarms per probe."""

_RUN_CHANCE = 1e-9
_RUN_MIN, _RUN_MAX = 4, 20
_FLOOR = 0.05  # Less than this is not worth an action: routing over it is right.
_CEILING = 0.3
_HARM = 0.5
_PRIOR_LOST, _PRIOR_TOTAL = 1.0, 20.0
_MEMORY = 600.0  # probes: half a minute at the default interval
_RECENT = 1 / 32
_CAP = THRESHOLD + 3.0  # So that a healed link is not called lossy for long.


def run_limit(loss: float) -> int:
    """How many probes in a row must be missed before a link that loses `loss` is called dead.

    >>> run_limit(0.0), run_limit(0.1), run_limit(0.5)
    (4, 9, 20)
    """
    bounded = min(max(loss, 1e-4), 0.99)
    return min(max(math.ceil(math.log(_RUN_CHANCE) / math.log(bounded) - 1e-9), _RUN_MIN), _RUN_MAX)


def harmful_loss(normal: float) -> float:
    """The loss that the cumulative sum looks for, where `normal` is usual."""
    return max(_HARM, min(4.0 * normal, 0.9))


@dataclass(frozen=True, slots=True)
class Normal:
    """What was learned of a direction: probes lost, of how many. Kept in Knowledge."""

    lost: float = _PRIOR_LOST
    total: float = _PRIOR_TOTAL

    @property
    def upper(self) -> float:
        """What the loss may be: the mean of the posterior and two deviations."""
        mean = self.lost / self.total
        return min(mean + 2.0 * math.sqrt(mean * (1.0 - mean) / (self.total + 1.0)), 1.0)

    def after(self, lost: int, total: int) -> Normal:
        """With `total` more probes, the oldest forgotten."""
        all_lost, all_total = self.lost + lost, self.total + total
        keep = min(1.0, _MEMORY / all_total)
        # Never quite zero: a clean hour does not prove that no probe is ever lost.
        return Normal(max(all_lost * keep, 0.02), all_total * keep)


class Detector:
    """One direction of one link. Feed it verdicts in order; read `score` and `alarmed`."""

    __slots__ = (
        "_drop",
        "_gain",
        "_normal",
        "_recent",
        "_run",
        "_tainted",
        "_window",
        "_window_lost",
        "probes",
        "score",
    )

    def __init__(self, normal: Normal | None = None) -> None:
        self._normal = normal or Normal()
        self._recent = 0.0
        self._run = 0
        self._window = 0
        self._window_lost = 0
        self._tainted = False
        self.score = 0.0
        self.probes = 0
        self._weigh()

    @property
    def normal(self) -> Normal:
        """What is usual here, as learned so far."""
        return self._normal

    @property
    def loss(self) -> float:
        """The share lost since the sum was last zero: the evidence of `score`."""
        return self._window_lost / self._window if self._window else 0.0

    @property
    def baseline(self) -> float:
        """The loss that a run of misses is held against: learned, or what was seen just now."""
        return max(self._normal.upper, self._recent)

    @property
    def run(self) -> int:
        """Probes lost in a row, up to the last verdict."""
        return self._run

    @property
    def lossy(self) -> bool:
        """The sum is over its threshold."""
        return self.score >= THRESHOLD

    def alarmed(self, missed: int) -> bool:
        """Whether the direction is bad, when `missed` more probes are overdue beyond the verdicts."""
        return self.score >= THRESHOLD or self._run + missed >= run_limit(self.baseline)

    def feed(self, arrived: bool) -> None:
        """One more verdict."""
        self.probes += 1
        self._window += 1
        if arrived:
            # A run of misses counts towards what was seen just now only once it has ended: a
            # blackhole must not make itself look normal while it lasts.
            if self._run:
                keep = (1 - _RECENT) ** min(self._run, _RUN_MAX)
                self._recent = 1 - (1 - self._recent) * keep
                self._run = 0
            self._recent *= 1 - _RECENT
            self.score += self._drop
            if self.score <= 0.0:
                self.score = 0.0
                self._learn()
        else:
            self._run += 1
            self._window_lost += 1
            self.score = min(self.score + self._gain, _CAP)
            if self.score >= THRESHOLD:
                self._tainted = True

    def _learn(self) -> None:
        if not self._tainted:
            self._normal = self._normal.after(self._window_lost, self._window)
            self._weigh()
        self._tainted = False
        self._window = self._window_lost = 0

    def _weigh(self) -> None:
        usual = min(max(self._normal.upper, _FLOOR), _CEILING)
        harmful = harmful_loss(usual)
        self._gain = math.log(harmful / usual)
        self._drop = math.log((1 - harmful) / (1 - usual))


class Phase(enum.Enum):
    """Where a link stands."""

    UP = "up"
    DRAINED = "drained"


class LinkState:
    """Flap damping for one link: at most one drain and one undrain a cool-down.

    A cool-down lasts `first` seconds and doubles, up to `longest`, each time the link goes bad
    again within `memory` seconds of being used again.
    """

    __slots__ = (
        "_calm_since",
        "_drained_at",
        "_first",
        "_longest",
        "_memory",
        "_up_since",
        "cool_down",
        "least",
        "phase",
    )

    GOOD_PROBES = 40
    """In a row, in both directions: two seconds at the default interval."""
    SOME_PROBES = 3
    CALM = 3.0
    """Or seconds without an alarm and with a low sum, for a link on which some loss is normal."""

    def __init__(self, *, first: float = 5.0, longest: float = 300.0, memory: float = 60.0) -> None:
        self._first = first
        self._longest = longest
        self._memory = memory
        self._drained_at = -math.inf
        self._up_since = -math.inf
        self._calm_since: float | None = None
        self.cool_down = 0.0
        self.least = 0.0
        """Seconds that it rests at least as things stand, however long it would by itself."""
        self.phase = Phase.UP

    def observe(
        self, now: float, *, drained: bool, alarmed: bool, calm: bool, rest: Callable[[], float] = lambda: 0.0
    ) -> None:
        """Take in what is true now; `drained` is what the engine says, whoever did it.

        `rest` gives the seconds that it cools down at least; asked for when it was drained just now.
        """
        if drained and self.phase is Phase.UP:
            # No relapse without an undrain before it.
            relapsed = self.cool_down > 0 and now - self._up_since <= max(self._memory, self.cool_down)
            self.cool_down = max(min(self.cool_down * 2, self._longest) if relapsed else self._first, rest())
            self._drained_at = now
            self.phase = Phase.DRAINED
        elif not drained and self.phase is Phase.DRAINED:
            self.phase = Phase.UP
            self._up_since = now
        if alarmed or not calm:
            self._calm_since = None
        elif self._calm_since is None:
            self._calm_since = now

    def cooling(self, now: float) -> float:
        """Seconds until the link may be used again; 0 when it may."""
        return max(0.0, self._rests_until() - now) if self.phase is Phase.DRAINED else 0.0

    def recovered(self, now: float, good: int) -> bool:
        """Whether a drained link has been good for long enough to be used again."""
        if self.phase is not Phase.DRAINED or now < self._rests_until() or self._calm_since is None:
            return False
        if good < self.SOME_PROBES:
            # No alarm is not enough: a direction of which nothing is known makes none.
            return False
        return good >= self.GOOD_PROBES or now - self._calm_since >= self.CALM

    def _rests_until(self) -> float:
        return self._drained_at + max(self.cool_down, self.least)
