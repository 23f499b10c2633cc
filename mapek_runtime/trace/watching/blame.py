"""Who held the event loop: marks their spans, and keeps count of them.

`Delay` is one stand of the loop from its beginning to its end, with those who were seen holding it.
It knows no loop, no thread and no clock of its own: it is told what was seen, and when.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType
from typing import Any

from opentelemetry import trace as trace_api
from opentelemetry.sdk import trace as sdk

from mapek_runtime.trace.span import Span

from .sight import Place, Step

__all__ = ["BLOCKED_MS", "Blocker", "Blockers", "Delay", "Holder"]

BLOCKED_MS = "asyncio.loop.blocked_ms"
_EVENT = "asyncio.loop.blocked"
_MOST_HOLDERS = 16
_MOST_NAMES = 200
_OTHERS = "(others)"
_AT_WORK_ON_A_SPAN = (
    "mapek_runtime.trace.span",
    "mapek_runtime.trace.limits",
    "opentelemetry.sdk.trace",
    "opentelemetry.attributes",
)


@dataclass(slots=True)
class Blocker:
    """One that held the loop: a span by its name, or a function where there was no named span."""

    name: str
    is_span: bool
    count: int = 0
    seconds: float = 0.0
    longest: float = 0.0
    place: Place | None = None
    """Where it was seen last."""

    def as_dict(self) -> dict[str, Any]:
        """The blocker as JSON has it."""
        return {
            "name": self.name,
            "span": self.is_span,
            "count": self.count,
            "ms": round(self.seconds * 1000, 3),
            "longest_ms": round(self.longest * 1000, 3),
            "where": None if self.place is None else f"{self.place.file}:{self.place.line}",
            "function": None if self.place is None else self.place.function,
        }


@dataclass(slots=True)
class Holder:
    """Somebody who was seen holding the loop, and their span once it is known."""

    root: FrameType | None
    place: Place
    code: str
    since: float
    seen: float
    counts: bool
    """Whether it held the loop long enough by itself to be named."""
    known: float | None = None
    """When the context of this step was read last; None while it was not."""
    span: Any = None
    span_name: str | None = None
    before: float = 0.0
    """What earlier delays left on the span, in milliseconds."""
    marked: bool = False

    @property
    def seconds(self) -> float:
        """How long it held the loop, as far as was seen: not longer than its span has existed."""
        return min(self.seen - self.since, _age(self.span))


class Delay:
    """One stand of the loop. Told from two threads what was seen; both hold the interpreter's lock."""

    __slots__ = ("_after", "_open", "_threshold", "holders", "since", "told", "void")

    def __init__(self, since: float, threshold: float, *, after: float | None = None) -> None:
        """`after` is when the loop was last seen waiting, where it does not tell when a turn began."""
        self.since = since
        self.void = False
        """Whether it is not the loop's: a debugger, a suspended process, a loop that is not run."""
        self.told = False
        self.holders: list[Holder] = []
        self._threshold = threshold
        self._after = after
        self._open = True

    def seen(self, step: Step, now: float) -> None:
        """`step` holds the loop at `now`, seen from another thread."""
        holders = self.holders
        last = holders[-1] if holders else None
        if not self._open:
            return
        if last is not None and last.root is step.root:
            last.seen = now
            last.counts = last.counts or now - last.since >= self._threshold
        elif last is None or (len(holders) == 1 and last.known is None):
            # Of many short steps the first is named whose span can be told.
            holders[:] = [self._holder(step, self.since, now)]
        elif len(holders) < _MOST_HOLDERS:
            holders.append(self._holder(step, now, now))

    def read(self, step: Step, now: float) -> None:
        """`step` holds the loop at `now`, seen from within: its span is current, and is marked.

        Runs between two bytecodes of any code in the loop's thread, like a signal handler, so it takes
        no lock that the code may hold, and changes no span that the code is at work on.
        """
        holders = self.holders
        if not self._open or self.void or not holders or holders[-1].root is not step.root:
            return
        span: Any = trace_api.get_current_span()
        holder = holders[-1]
        if holder.known is not None and holder.span is not span:
            if len(holders) == _MOST_HOLDERS:
                return
            # What was seen since from outside may have been either.
            holder.seen = holder.known
            holder = self._holder(step, holder.seen, now)
            holders.append(holder)
        began = now - _age(span)
        if self._after is not None and holder is holders[0] and self._after < began < self.since:
            # The span began since the loop was last seen waiting: so long, at most, the step lasts.
            self.since = holder.since = began
        holder.span = span
        holder.known = holder.seen = now
        holder.counts = holder.counts or now - holder.since >= self._threshold
        holder.place = step.place()
        name = getattr(span, "name", None)
        holder.span_name = name if isinstance(name, str) else None
        module = str(step.frames[0].f_globals.get("__name__", ""))
        if holder.counts and not module.startswith(_AT_WORK_ON_A_SPAN):
            with suppress(Exception):
                _mark(holder)

    def end(self, now: float) -> None:
        """The loop came round at `now`: spans that are still open get the whole time."""
        self._open = False
        if not self.holders:
            return
        last = self.holders[-1]
        last.seen = now
        if last.marked:
            with suppress(Exception):
                _mark(last)
        for holder in self.holders:
            # Frames and spans are the program's: not kept a moment longer than needed.
            holder.since, holder.seen = 0.0, holder.seconds
            holder.root = holder.span = None
            holder.marked = False

    def _holder(self, step: Step, since: float, now: float) -> Holder:
        code = step.root.f_code.co_qualname
        return Holder(step.root, step.place(), code, since, now, counts=now - since >= self._threshold)

    def named(self) -> list[Holder]:
        """Those who held the loop long enough to be named; the first was found holding it."""
        return [holder for holder in self.holders if holder.counts]


class Blockers:
    """Counts who held the loop, by name: at most 200 names, the rest as one."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, bool], Blocker] = {}

    def count(self, holder: Holder) -> Blocker:
        """Add one stand of the loop to whoever held it."""
        key = (holder.span_name or holder.code, holder.span_name is not None)
        blocker = self._found.get(key)
        if blocker is None:
            if len(self._found) >= _MOST_NAMES:
                key = (_OTHERS, False)
            blocker = self._found.setdefault(key, Blocker(*key))
        blocker.count += 1
        blocker.seconds += holder.seconds
        blocker.longest = max(blocker.longest, holder.seconds)
        blocker.place = holder.place
        return blocker

    def by_time(self) -> tuple[Blocker, ...]:
        """All of them, the one that held the loop longest first."""
        return tuple(sorted(self._found.values(), key=lambda each: -each.seconds))


def _mark(holder: Holder) -> None:
    span = holder.span
    # Others' spans may do anything when they are touched in the middle of their own code.
    if not isinstance(span, sdk.Span) or not span.is_recording():
        return
    # Spans of the SDK, their attributes and their events have locks that may not be taken twice.
    if any(_is_locked(part) for part in (span, span._attributes, span._events)):
        return
    if isinstance(span, Span):
        # Whoever is looping over the attributes of the open span keeps the dictionary they have.
        span._attributes = dict(span._attributes)
    if not holder.marked:
        attributes: Mapping[str, Any] = span.attributes or {}
        before = attributes.get(BLOCKED_MS, 0.0)
        holder.before = before if isinstance(before, float) else 0.0
        holder.marked = True
        span.add_event(
            _EVENT,
            {
                "code.file.path": holder.place.file,
                "code.line.number": holder.place.line,
                "code.function.name": holder.place.function,
                BLOCKED_MS: round(holder.seconds * 1000, 3),
            },
        )
    span.set_attribute(BLOCKED_MS, round(holder.before + holder.seconds * 1000, 3))


def _is_locked(part: object) -> bool:
    lock = getattr(part, "_lock", None)
    return lock is not None and (not hasattr(lock, "locked") or bool(lock.locked()))


def _age(span: Any) -> float:
    """For how many seconds a span has been there, or was; infinite where it does not tell."""
    started, ended = getattr(span, "start_time", None), getattr(span, "end_time", None)
    if not isinstance(started, int):
        return float("inf")
    age = ((ended if isinstance(ended, int) else time.time_ns()) - started) / 1e9
    # A clock that was set meanwhile, or that is not the wall's, tells nothing.
    return age if age > 0 else float("inf")
