"""How late the event loop is, and which span made it late.

A watchdog thread wakes at a fixed pace and looks at the stack of the loop's thread. While the loop
waits that is all: the loop itself is never woken. When it finds the loop in a step it asks for a turn
(`call_soon_threadsafe`), and the overshoot of that turn is the delay. When the turn has not come after
the threshold it looks who holds the loop, has the span marked, and counts and logs the name.

A thread, although this package has none for export: only another thread can look at a loop that
stands still, and what it stood for cannot be known afterwards. That is why it is started by whoever
wants to know (`async with LoopLag():`), and never by making a provider.

How exact it is:
* asyncio's loops tell when a turn began, so a delay that was seen is exact within a millisecond or two,
  whenever the watchdog came by. uvloop and others do not: there the delay counts from the start of the
  span that holds the loop, when that began since the loop was last seen waiting, else from the look.
  Either is off by at most one tick.
* Every delay of a tick or more is seen. A shorter one is seen with the probability of its length over
  the tick, as by every sampling; the counts of the histogram are right on average.
* `asyncio.loop.blocked_ms` on a span is exact when the span outlives the delay, and for one call that
  blocks (`time.sleep`). On a span that ends before the loop is free again it is what was known at the
  last look: looks come every 20 ms, or every tenth of the delay when that is longer.
* Of many short steps in one turn, the one that runs at the look is named.
* Spans are marked in the loop of the main thread. In a loop of another thread there is only the stack:
  the function is counted, no span is marked. A callback written in C is not seen on compiled loops.
  Other interpreters than CPython, and builds without its lock, get the histogram alone.

Not counted as lag: a suspended process, a debugger that waits for its user, a loop that is not run.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import sys
import threading
import time
import weakref
from collections import deque
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any

from .blame import Blocker, Blockers, Delay, Holder
from .histogram import LagHistogram
from .sight import Sight, Step, bell_of_this_thread, can_look

__all__ = ["LoopLag"]

logger = logging.getLogger(__name__)

TICK = 0.2
"""Seconds between two looks: what they cost stays below a thousandth of a core (`benchmarks.lag`)."""
THRESHOLD = 0.1
_SHORTEST_PAUSE = 0.005
_NEXT_LOOK = 0.02
_LONGEST_PAUSE = 5.0
_HANGS = 1.0
"""Seconds after which the log names who holds the loop without waiting for the end."""
_STOOD_STILL = 0.05
_BUSY = 0.1
"""A watchdog late by so much, in a process that used less than this share of the time: suspended."""
_LOG_INTERVAL = 10.0
_STOP_LIMIT = 1.0


class LoopLag:
    """Watches the loop it is started on: `async with LoopLag() as lag:`, or `await lag.start()`.

    `tick` is the pace of the looks in seconds, `threshold` the delay from which a holder is named.
    One log line names each blocker, at most once in ten seconds, on the logger of this module.
    """

    def __init__(self, *, tick: float = TICK, threshold: float = THRESHOLD) -> None:
        for name, value in (("tick", tick), ("threshold", threshold)):
            if not 0.01 <= value <= 60:
                raise ValueError(f"{name} is {value!r}; it must be between 0.01 and 60 seconds")
        self.histogram = LagHistogram()
        self.stood_still = 0
        """How often the whole process stood (suspended, or without a processor): not the loop's lag."""
        self._tick = tick
        self._threshold = threshold
        self._blockers = Blockers()
        self._watch: _Watch | None = None

    async def start(self) -> None:
        """Start watching the running loop. Raises RuntimeError when it watches one already."""
        if self._watch is not None and self._watch.is_alive:
            raise RuntimeError("this LoopLag watches a loop already; make one for each loop")
        self._watch = _Watch(self, asyncio.get_running_loop())
        await self._watch.start()

    async def stop(self) -> None:
        """Stop watching; what was found stays. Nothing happens when it is not started."""
        watch, self._watch = self._watch, None
        if watch is not None:
            await watch.stop()

    async def __aenter__(self) -> LoopLag:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    def milliseconds(self) -> dict[str, float]:
        """Median, 99th percentile and longest delay, in milliseconds."""
        return self.histogram.milliseconds()

    def blockers(self) -> tuple[Blocker, ...]:
        """Who held the loop for the threshold or longer, the longest in sum first."""
        return self._blockers.by_time()

    def as_dict(self) -> dict[str, Any]:
        """Everything found, as JSON has it."""
        return {
            "lag": self.histogram.as_dict(),
            "stood_still": self.stood_still,
            "blockers": [blocker.as_dict() for blocker in self.blockers()],
        }


class _Watch:
    """One start of a `LoopLag`: its thread, and what it knows of the loop."""

    def __init__(self, owner: LoopLag, loop: asyncio.AbstractEventLoop) -> None:
        self._owner = owner
        self._loop = loop
        self._tick = owner._tick
        self._threshold = owner._threshold
        self._sight = Sight(loop) if can_look() else None
        self._bell = None if self._sight is None else bell_of_this_thread()
        self._ident = threading.get_ident()
        # Held while watching: a lock that is waited for costs a third of an Event.
        self._gate = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="mapek-loop-lag", daemon=True)
        self._ended: asyncio.Future[None] = loop.create_future()
        self._turned: asyncio.Future[None] = loop.create_future()
        # The turns asked for are born in an empty context.
        self._context = contextvars.Context()
        self._delay: Delay | None = None
        self._sample_from = self._asked = 0.0
        self._waited = time.monotonic()
        """When the loop was last seen waiting."""
        self._cpu = 0.0
        self._found: deque[tuple[Blocker, Holder]] = deque(maxlen=100)
        self._told: dict[str, tuple[float, int]] = {}
        self._stopped = False

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    async def start(self) -> None:
        if self._sight is None:
            _say_once("who holds the loop is not looked for: that needs CPython with its interpreter lock")
        _stop_in_children(self)
        self._gate.acquire()
        self._thread.start()
        # One turn of the loop, so that already the step that started us can be seen.
        await self._turned

    async def stop(self) -> None:
        try:
            # The turn that was asked for while the caller held the loop comes before this one.
            await asyncio.sleep(0)
        finally:
            self._stopped = True
            self._delay = None
            self._gate.release()
        if self._thread.is_alive():
            # Not `join`: the thread may be writing a log line, and that may take as long as it likes.
            await asyncio.wait((self._ended,), timeout=_STOP_LIMIT)

    def forget(self) -> None:
        """In the child of a fork: the thread is not there, and what was asked for is not wanted."""
        self._stopped = True
        self._delay = None

    # In the thread

    def _run(self) -> None:
        try:
            pause = 0.0
            planned = time.monotonic()
            while not self._gate.acquire(timeout=max(0.0, planned + pause - time.monotonic())):
                due = planned + pause
                planned = time.monotonic()
                try:
                    pause = self._look(planned, planned - due)
                    self._tell()
                except Exception:
                    if not self._loop.is_closed():
                        pause = _LONGEST_PAUSE
                        logger.exception("looking at the event loop failed; trying again in %g s", pause)
                if self._loop.is_closed():
                    return
            self._tell()
        finally:
            # Raised when the loop was closed without a word to us: nobody waits.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._has_ended)

    def _look(self, now: float, late: float) -> float:
        """Look once, `late` seconds after it was planned; how long to wait for the next look."""
        cpu = time.process_time()
        used, self._cpu = cpu - self._cpu, cpu
        stood = late > _STOOD_STILL and used < late * _BUSY
        self._owner.stood_still += stood
        if stood or not self._loop.is_running():
            return self._not_the_loops()
        sight = self._sight
        step = None if sight is None else sight.look()
        if step is None and sight is not None and not sight.lost:
            self._waits(now, late)
            return self._tick
        if step is not None and step.in_debugger:
            return self._not_the_loops()
        return self._works(step, now, late)

    def _not_the_loops(self) -> float:
        if self._delay is not None:
            self._delay.void = True
        return self._tick

    def _waits(self, now: float, late: float) -> None:
        self._waited = now
        if self._delay is None and now >= self._sample_from:
            # A timer of the loop would have come as late as we: what kept us (somebody who holds the
            # interpreter's lock, the system's scheduler) would have kept it as well.
            self._record(late, now, now)

    def _works(self, step: Step | None, now: float, late: float) -> float:
        """The loop is in `step`, or it is not known what it does: ask for a turn."""
        told = step.since if step is not None else None
        since = now - max(0.0, late) if told is None else told
        delay = self._delay
        asks = delay is None and (now >= self._sample_from or now - since >= self._threshold)
        if asks:
            delay = Delay(since, self._threshold, after=self._waited if told is None else None)
            self._delay, self._asked = delay, now
        if delay is None and step is None:
            return max(_SHORTEST_PAUSE, self._sample_from - now)
        if delay is None:
            return max(_SHORTEST_PAUSE, min(self._tick, self._threshold - (now - since)))
        lasting = now - delay.since
        early = told is not None and lasting < self._threshold
        if step is not None and not early and not delay.void:
            delay.seen(step, now)
            if self._bell is not None:
                self._bell.ring(self._rung)
        if asks:
            # Last: it lets go of the interpreter's lock, and the step may be over before we have it again.
            self._loop.call_soon_threadsafe(self._turn, delay, context=self._context)
        if step is None:
            return self._tick
        if early:
            return max(_SHORTEST_PAUSE, min(self._tick, self._threshold - lasting))
        if lasting >= _HANGS and not (delay.told or delay.void):
            delay.told = True
            for holder in delay.named()[-1:]:
                self._log(holder.span_name or holder.code, holder, now - holder.since, "has been held")
        return min(_LONGEST_PAUSE, max(_NEXT_LOOK, lasting / 10))

    def _record(self, lag: float, asked: float, now: float) -> None:
        self._owner.histogram.record(lag, every=self._tick)
        # A look that comes a little early samples too, or every second one would.
        self._sample_from = max(now, asked + self._tick - _SHORTEST_PAUSE)

    def _tell(self) -> None:
        while self._found:
            blocker, holder = self._found.popleft()
            self._log(blocker.name, holder, holder.seconds, "was held")

    def _log(self, name: str, holder: Holder, seconds: float, how: str) -> None:
        now = time.monotonic()
        last, missed = self._told.get(name, (-_LOG_INTERVAL, 0))
        if now - last < _LOG_INTERVAL:
            self._told[name] = last, missed + 1
            return
        if len(self._told) > 1000:
            self._told.clear()
        self._told[name] = now, 0
        logger.warning(
            "the event loop %s for %.0f ms by %s%r in %s (%d since the last line about it)",
            how,
            seconds * 1000,
            "span " if holder.span_name is not None else "",
            name,
            holder.place,
            missed + 1,
        )

    # In the thread of the loop

    def _turn(self, delay: Delay) -> None:
        """The turn that the watchdog asked for has come."""
        now = time.monotonic()
        if delay is not self._delay or self._stopped:
            return
        self._delay = None
        if self._sight is not None and self._sight.lost:
            self._sight.anchor(sys._getframe(1))
        if not self._turned.done():
            self._turned.set_result(None)
        delay.end(now)
        if delay.void:
            return
        lag = now - delay.since
        self._record(lag, self._asked, now)
        if lag >= self._threshold:
            for holder in delay.named():
                self._found.append((self._owner._blockers.count(holder), holder))

    def _rung(self, frame: FrameType) -> None:
        """Between two bytecodes of whatever runs in the main thread."""
        delay = self._delay
        if delay is None or self._stopped or self._sight is None or threading.get_ident() != self._ident:
            return
        step = self._sight.step(frame)
        if step is not None:
            delay.read(step, time.monotonic())

    def _has_ended(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)


_watches: weakref.WeakSet[_Watch] = weakref.WeakSet()
_said: set[str] = set()
_follows_forks = False


def _stop_in_children(watch: _Watch) -> None:
    global _follows_forks  # noqa: PLW0603 - the hook is for the process, and cannot be taken back
    _watches.add(watch)
    if not _follows_forks and hasattr(os, "register_at_fork"):
        _follows_forks = True
        os.register_at_fork(after_in_child=_forget_all)


def _forget_all() -> None:
    for watch in list(_watches):
        watch.forget()


def _say_once(what: str) -> None:
    if what not in _said:
        _said.add(what)
        logger.warning(what)
