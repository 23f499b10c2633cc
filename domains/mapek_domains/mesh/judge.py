"""What a learned model says of a node's links, beside the thresholds of `detect`; and what it learns from.

The model is asked for each reading. It is heard when it has spoken of trouble for a moment, and until the
link is well again: a score that is merely below its threshold does not yet say so. What was before a
drained link came into use again is not held against it: the end that drained it has looked. Nor is what a
threshold saw before anybody knew what is usual on the link.

A reading teaches what is normal when neither a threshold nor the model nor anything striking speaks
against it, and what is not normal when a threshold does. What only the model called abnormal, or nearly
so, teaches nothing: it cannot talk itself into anything. Beside each normal window stand copies of it,
with what happens to healthy links at times, and with faults (`damage`).

Without anybody who learns, nothing here does anything.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from mapek_runtime.loop.domain import Judgement, Normality

from .damage import damaged, tolerable
from .engine import LinkReading
from .features import DELAY, FEATURES, KIND, LOSS, Signs, features, plain, signs
from .window import Usual, Window

__all__ = ["LinkJudge", "Opinion"]

_HELD = 0.2  # s
_WELL = 0.8  # of the threshold
_TEACH_EVERY, _TEACH_LATER, _OFTEN = 0.5, 2.0, 120  # s of each link, and after so many times
_TOLERABLE, _DAMAGED = 3, 4
_LOUDEST = 3


@dataclass(frozen=True, slots=True)
class Opinion:
    """What the model says of a link that it has been asked about.

    `problem` is `link.lossy` or `link.slow` while the model is heard, else empty. `near`: it is not
    heard, or not any more, and yet the link does not look well. `loudest` names the features without
    which the score would be lowest, with their values.
    """

    judgement: Judgement
    window: Window
    usual: Usual
    problem: str = ""
    near: bool = False
    loudest: tuple[tuple[str, float], ...] = ()


@dataclass(slots=True)
class _Link:
    usual: Usual = field(default_factory=Usual)
    over_since: float | None = None
    problem: str = ""
    apart: Window | None = None
    """The last window that is not held against it."""
    in_use: bool = True
    taught: int = 0
    taught_at: float = float("-inf")


class LinkJudge:
    """Asks the model about the links of one node, and lets it learn from them."""

    def __init__(self, node_id: str, find: Callable[[], Normality | None]) -> None:
        self._node_id = node_id
        self._find = find
        # Of its own: what is drawn here must not change anybody else's luck.
        self._rng = random.Random(node_id)
        self._links: dict[str, _Link] = {}

    def judge(
        self,
        now: float,
        readings: Sequence[LinkReading],
        well: Mapping[str, bool | None],
        *,
        stalled: bool = False,
    ) -> dict[str, Opinion]:
        """The opinions, by link; none of those that are too new to be judged.

        `well` says what the thresholds say: True where nothing speaks against a link, False where a rule
        is broken, None where nobody knows. While this host has just stood still (`stalled`) nothing new is
        said of any link: all that came meanwhile came late.
        """
        normality = self._find()
        if normality is None:
            return {}
        windows: dict[str, Window] = {}
        seen: dict[str, Signs] = {}
        for reading in readings:
            if reading.window is not None and reading.peer_alive:
                link = self._links.setdefault(reading.link, _Link())
                window = self._fresh(link, reading.window, well[reading.link], drained=reading.drained)
                windows[reading.link] = window
                missed = max(reading.missed_in, reading.missed_out)
                seen[reading.link] = signs(window, link.usual, missed=missed)
        opinions: dict[str, Opinion] = {}
        for reading in readings:
            if reading.window is None or reading.link not in seen:
                continue
            link, window = self._links[reading.link], windows[reading.link]
            others = [each for name, each in seen.items() if name != reading.link]
            values = features(seen[reading.link], link.usual, others)
            opinion = self._opinion(normality, now, link, window, values, stalled=stalled)
            if opinion is not None:
                opinions[reading.link] = opinion
            fine = well[reading.link] is True and not (opinion is not None and opinion.near)
            calm = fine and plain(values)
            if link.usual.due(reading.window):
                # At first nothing is striking: what is there is what is usual, within its bounds.
                first = fine and not link.usual.known
                link.usual = link.usual.after(reading.window, calm=calm or first)
            every = _TEACH_EVERY if link.taught < _OFTEN else _TEACH_LATER
            if link.usual.known and now - link.taught_at >= every:
                link.taught_at = now
                link.taught += 1
                if calm:
                    self._teach(normality, window, link.usual, values)
                else:
                    normal = False if well[reading.link] is False else None
                    normality.observe(self._node_id, KIND, values, normal=normal)
        return opinions

    def _fresh(self, link: _Link, window: Window, well: bool | None, *, drained: bool) -> Window:
        """The window, without what is not held against the link."""
        if drained:
            link.apart, link.in_use = window, False
            return window
        if not link.in_use:
            link.in_use = True
            link.problem, link.over_since = "", None
        if well is not True and not link.usual.known:
            link.apart = window
        return window if link.apart is None else window.since(link.apart)

    def _opinion(
        self,
        normality: Normality,
        now: float,
        link: _Link,
        window: Window,
        values: tuple[float, ...],
        *,
        stalled: bool,
    ) -> Opinion | None:
        judgement = normality.judge(self._node_id, KIND, values) if link.usual.known else None
        if judgement is None:
            return None
        near = judgement.score >= _WELL * judgement.threshold
        if judgement.score < judgement.threshold or stalled:
            link.over_since = None
        elif link.over_since is None:
            link.over_since = now
        if not near:
            link.problem = ""
        elif not link.problem and link.over_since is not None and now - link.over_since >= _HELD:
            # It keeps its name until it is over, whatever else comes to it.
            link.problem = self._problem(normality, values)
        return Opinion(
            judgement,
            window,
            link.usual,
            link.problem,
            near,
            self._loudest(normality, values) if link.problem else (),
        )

    def _problem(self, normality: Normality, values: tuple[float, ...]) -> str:
        """Loss or delay: that without which the score is lower."""
        without_loss = self._score(normality, (*(0.0 for _ in values[LOSS]), *values[LOSS.stop :]))
        without_delay = self._score(
            normality, (*values[: DELAY.start], *(0.0 for _ in values[DELAY]), *values[DELAY.stop :])
        )
        return "link.lossy" if without_loss <= without_delay else "link.slow"

    def _loudest(self, normality: Normality, values: tuple[float, ...]) -> tuple[tuple[str, float], ...]:
        without = sorted(
            (self._score(normality, (*values[:place], 0.0, *values[place + 1 :])), place)
            for place in range(DELAY.stop)
            if values[place] > 0.0
        )
        return tuple((FEATURES[place], values[place]) for _, place in without[:_LOUDEST])

    def _score(self, normality: Normality, values: Sequence[float]) -> float:
        judgement = normality.judge(self._node_id, KIND, values)
        return 0.0 if judgement is None else judgement.score

    def _teach(self, normality: Normality, window: Window, usual: Usual, values: tuple[float, ...]) -> None:
        """A normal reading, and copies of it."""
        normality.observe(self._node_id, KIND, values, normal=True)
        for _ in range(_TOLERABLE):
            fine = signs(tolerable(window, usual, self._rng), usual)
            normality.observe(self._node_id, KIND, features(fine, usual), normal=True)
        for _ in range(_DAMAGED):
            bad = signs(damaged(window, usual, self._rng), usual)
            normality.observe(self._node_id, KIND, features(bad, usual), normal=False)
