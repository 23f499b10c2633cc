"""The hold: where the ended spans of a cycle wait until the cycle is decided.

A root that is held gives its `Hold` to every span below it. They wait here until a cause to keep them
is found, the root ends, the context leaves the process, or memory or the provider comes to an end;
then all go the same way, and whatever ends later follows at once.

One rule makes traces whole: **a span whose sampled flag is set belongs to a cycle that is kept.** The
flag is the head decision until there is a verdict and the verdict from then on, and a head decision
to keep is never taken back. Whoever follows the flag, here or in another process, so never has a
parent that is missing.

There are no locks: a span may end in any thread, and inside the garbage collector. What is shared
rests on the atomicity of `deque`, `dict.setdefault` and `itertools.count`.
"""

from __future__ import annotations

import itertools
import logging
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from opentelemetry.trace import TraceState

from mapek_runtime.trace.forks import follow_forks
from mapek_runtime.trace.identity import SAMPLED
from mapek_runtime.trace.ring import Tally
from mapek_runtime.trace.span import UNSET

from .cause import TELLING, cause_of
from .duration import Durations

if TYPE_CHECKING:
    from mapek_runtime.trace.span import Span

__all__ = ["ADJUSTED_COUNT", "DROPPED", "REASON", "Hold", "Holds", "Verdict"]

logger = logging.getLogger(__name__)

ADJUSTED_COUNT = "sampling.adjusted_count"
"""On a kept root: how many cycles it stands for. No convention is stable; the name is that of
OpenTelemetry's experiments since OTEP 170, in the namespace that the Collector uses."""
REASON = "sampling.reason"
"""On a kept root: quiet, anomaly, action, error, duration, left, limit or shutdown."""

_CERTAIN = TraceState([("ot", "th:0")])


class Verdict(NamedTuple):
    """What becomes of a cycle, and what stands on its spans if it is kept."""

    kept: bool
    reason: str
    adjusted_count: float = 0.0
    trace_state: TraceState | None = None


DROPPED = Verdict(kept=False, reason="quiet")


class Hold:
    """Holds the spans of one cycle; `head` is the verdict if no cause is found."""

    __slots__ = ("_epoch", "_first", "_holds", "_room", "_spans", "head", "recording", "sampled", "verdict")

    def __init__(self, holds: Holds, head: Verdict) -> None:
        self._holds = holds
        self._epoch = holds.epoch
        self._spans: deque[Span] = deque()
        self._first: dict[str, Verdict] = {}
        self._room = 1
        self.head = head
        self.verdict: Verdict | None = None
        self.sampled = int(head.kept)
        """The sampled flag of spans that start now."""
        self.recording = True
        """Whether spans that start now are recorded: not after the cycle was dropped."""

    def take(self, span: Span) -> bool:
        """Take a span that has just ended; False when it is to be handed on at once."""
        verdict = self.verdict
        if not span._parent_id:
            verdict = self._end(span, verdict)
        elif verdict is None:
            # The common way, in one piece: most spans say nothing of their cycle.
            quiet = span._status is UNSET and span._name not in TELLING
            cause = None if quiet else cause_of(span)
            if cause is None:
                holds = self._holds
                self._spans.append(span)
                if len(self._spans) >= self._room:
                    self._grow()
                if (number := holds.count()) >= holds.mark:
                    holds.make_room(number)
                if (verdict := self.verdict) is not None:
                    # Decided in another thread since it was looked at, or just now for want of room.
                    self._release(verdict)
                return True
            verdict = self.keep(cause)
        if not verdict.kept:
            self._holds.swallowed.add()
            return True
        _stamp(span, verdict)
        if not span._parent_id:
            span._record({ADJUSTED_COUNT: verdict.adjusted_count, REASON: verdict.reason}, late=True)
        return False

    def keep(self, cause: str) -> Verdict:
        """There is a cause to keep the cycle, unless it was decided before."""
        return self._decide(Verdict(True, cause, 1.0, _CERTAIN))

    def follow_head(self, reason: str) -> Verdict:
        """Nobody can wait for a cause any longer: the head decision stands."""
        return self._decide(self._by_head(reason))

    def leave(self, span: Span) -> None:
        """The context of `span`, a span of this cycle, is about to leave the process."""
        verdict = self.verdict or self.follow_head("left")
        if verdict.kept and span._end_time is None:
            _stamp(span, verdict)

    def forget(self) -> None:
        """This is the child of a fork: what waits here belongs to the parent."""
        self._spans.clear()

    def __len__(self) -> int:
        """How many spans wait."""
        return len(self._spans)

    def _grow(self) -> None:
        holds = self._holds
        if holds.closed:
            self.follow_head("shutdown")
        elif self._room == 1:
            self._room = max(2, holds.most_per_cycle + 1)
            holds.enter(self)
        else:
            self.follow_head("limit")

    def _end(self, root: Span, verdict: Verdict | None) -> Verdict:
        assert root._end_time is not None and root._start_time is not None  # noqa: PT018 - both clocks
        duration = root._end_time - root._start_time
        unusual = self._holds.durations.judge(root._name, duration)
        if verdict is not None:
            return verdict
        if (cause := cause_of(root, root=True)) is not None:
            return self.keep(cause)
        return self.keep("duration") if unusual else self.follow_head("quiet")

    def _by_head(self, reason: str) -> Verdict:
        head = self.head
        return head if reason == head.reason or not head.kept else head._replace(reason=reason)

    def _decide(self, verdict: Verdict) -> Verdict:
        if self._epoch != self._holds.epoch:
            # Begun before a fork: this process has one half of the cycle, its parent the other.
            verdict = self._by_head("left")
        # The first to come decides, whichever thread it is.
        verdict = self._first.setdefault("verdict", verdict)
        self.recording = verdict.kept
        self.sampled = int(verdict.kept)
        self.verdict = verdict
        self._release(verdict)
        self._holds.leave(self)
        return verdict

    def _release(self, verdict: Verdict) -> None:
        while True:
            try:
                span = self._spans.popleft()
            except IndexError:
                return
            if not verdict.kept:
                self._holds.swallowed.add()
                continue
            _stamp(span, verdict)
            try:
                span.hand_on()
            except Exception:
                # Not the fault of whoever ends the cycle, and the next span must not pay for it.
                logger.exception("a span processor failed on span %r", span._name)


class Holds:
    """All cycles of a provider that are open, and the account of their spans.

    At most `most_held` spans wait, and at most `most_per_cycle` of one cycle; whoever asks for more
    makes a cycle follow its head decision at once: the one too large, or the oldest ones. Neither
    choice looks at the head decision itself, so that the kept ones go on to stand for the others.
    """

    def __init__(self, *, most_per_cycle: int, most_held: int, slow: float) -> None:
        for name, value in (("most_spans_per_cycle", most_per_cycle), ("most_held_spans", most_held)):
            if value < 1:
                raise ValueError(f"{name} is {value!r}; it must be at least 1")
        if not slow >= 1:
            raise ValueError(f"slow is {slow!r}; it must be at least 1: so many times the usual duration")
        self.most_per_cycle = most_per_cycle
        self.most_held = most_held
        self.durations = Durations(slow)
        self.closed = False
        self.epoch = 0
        """How many forks lie between this process and the one that made this."""
        self._slow = slow
        self._open: dict[Hold, None] = {}
        self._clear()
        follow_forks(self._after_fork)

    def _clear(self) -> None:
        self.swallowed = Tally()
        self.count = itertools.count().__next__
        self.mark = self.most_held
        """The number that `count` gives when room may have to be made."""

    @property
    def held(self) -> int:
        """How many ended spans wait for a verdict."""
        return sum(map(len, list(self._open)))

    @property
    def sampled_out(self) -> int:
        """How many recorded spans went with the cycle that was not kept."""
        return self.swallowed.read()

    def settle(self) -> None:
        """Decide every open cycle now, and hold nothing from now on: the provider shuts down."""
        self.closed = True
        for hold in list(self._open):
            hold.follow_head("shutdown")

    def enter(self, hold: Hold) -> None:
        """The first span of a cycle waits."""
        self._open[hold] = None
        if hold.verdict is not None:  # pragma: no cover - decided in another thread at this moment
            self.leave(hold)

    def leave(self, hold: Hold) -> None:
        """A cycle was decided: nothing of it waits any more."""
        self._open.pop(hold, None)

    def make_room(self, number: int) -> None:
        """Let the oldest cycles follow their head decision while too many spans wait.

        `number` is what `count` gave for the span that asks.
        """
        waiting = self.held
        if waiting > self.most_held:
            # An eighth more than needed, so that this need not be done for every span.
            for hold in list(self._open):
                waiting -= len(hold)
                hold.follow_head("limit")
                if waiting <= self.most_held - self.most_held // 8:
                    break
        self.mark = number + 1 + self.most_held - max(0, waiting)

    def _after_fork(self) -> None:
        self.epoch += 1
        for hold in list(self._open):
            hold.forget()
        self._open.clear()
        self.durations = Durations(self._slow)
        self._clear()


def _stamp(span: Span, verdict: Verdict) -> None:
    """Write the verdict on a span, which began with the head decision."""
    if span._flags & SAMPLED and span._trace_state is verdict.trace_state:
        return
    span._flags |= SAMPLED
    span._trace_state = verdict.trace_state
    span._built_context = span._parent_context = None
