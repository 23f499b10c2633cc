"""When a cycle starts: a fixed rate on a monotonic clock, and triggers from outside.

The rate does not drift: the n-th tick is due at `origin + n · interval`, however long a cycle took.
A trigger is never lost. Ticks and triggers that meet a running cycle are handled by `overlap`:

| overlap | a tick | a trigger |
|---|---|---|
| `skip` | is dropped and counted | starts one more cycle when this one is done |
| `queue` | starts one more cycle when this one is done | the same |
| `cancel` | ends the running cycle and starts another | the same |

What waits is coalesced into one cycle, which carries every reason.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal

from .model import Trigger

__all__ = ["Scheduler"]

logger = logging.getLogger(__name__)

_MOST_REASONS = 64
"""Different reasons one cycle carries; a reason that is there already is counted, not repeated."""


class Scheduler:
    """Calls `start(triggers)` whenever a cycle is due; one at a time."""

    def __init__(
        self,
        start: Callable[[Sequence[Trigger]], Awaitable[object]],
        *,
        interval: float,
        jitter: float = 0.0,
        overlap: Literal["skip", "queue", "cancel"] = "skip",
        rng: random.Random | None = None,
        on_count: Callable[[Literal["skipped", "coalesced"], int], None] | None = None,
    ) -> None:
        self._start = start
        self._interval = interval
        self._jitter = jitter
        self._overlap = overlap
        self._rng = rng or random.Random()
        self._on_count = on_count
        self._pending: dict[str, Trigger] = {}
        self._running: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._stopping = False
        self.paused = False
        self.ran = 0
        self.skipped = 0
        self.coalesced = 0

    @property
    def busy(self) -> bool:
        """Whether a cycle runs now or is about to."""
        return self._running is not None or bool(self._pending)

    def trigger(self, trigger: Trigger) -> None:
        """Ask for a cycle as soon as may be; safe from the loop's own thread only."""
        if self._pending:
            self._count("coalesced", 1)
        if trigger.reason not in self._pending and len(self._pending) < _MOST_REASONS:
            self._pending[trigger.reason] = trigger
        self._wake.set()

    def pause(self) -> None:
        """No cycle starts until `resume`; triggers wait, ticks are dropped and counted."""
        self.paused = True

    def resume(self) -> None:
        """Start cycles again."""
        self.paused = False
        self._wake.set()

    def stop(self) -> None:
        """Finish the running cycle and return from `run`."""
        self._stopping = True
        self._wake.set()

    async def run(self) -> None:
        """Schedule until `stop`; cancellation ends the running cycle too."""
        loop = asyncio.get_running_loop()
        origin = due = loop.time()
        tick = 0
        late = self._lateness()
        try:
            while not self._stopping:
                if loop.time() >= due + late:
                    # Ticks that were slept through are one tick.
                    behind = max(0, int((loop.time() - due) // self._interval))
                    self._count("skipped", behind)
                    tick += behind + 1
                    due, late = origin + tick * self._interval, self._lateness()
                    self._tick()
                if self._ready():
                    self._begin()
                # Always a turn of the loop, or an interval shorter than this block would starve it.
                await self._sleep_until(due + late)
            if self._running is not None:
                # `wait`, because a cycle that a newer one has just cancelled must not cancel this task.
                await asyncio.wait((self._running,))
        except asyncio.CancelledError:
            if self._running is not None:
                self._running.cancel()
                await asyncio.wait((self._running,))
            raise

    def _lateness(self) -> float:
        return self._rng.uniform(0.0, self._jitter) if self._jitter else 0.0

    def _tick(self) -> None:
        if self.paused or (self._running is not None and self._overlap == "skip"):
            self._count("skipped", 1)
        else:
            self.trigger(Trigger(reason="interval"))

    def _count(self, result: Literal["skipped", "coalesced"], count: int) -> None:
        if result == "skipped":
            self.skipped += count
        else:
            self.coalesced += count
        if self._on_count is not None:
            self._on_count(result, count)

    def _ready(self) -> bool:
        if self.paused or not self._pending or self._stopping:
            return False
        return self._running is None or (self._overlap == "cancel" and not self._running.cancelling())

    def _begin(self) -> None:
        if self._running is not None:
            # The cycle marks its span, and wakes this loop when it is gone.
            self._running.cancel("a newer cycle took its place")
            return
        triggers = tuple(self._pending.values())
        self._pending.clear()
        self.ran += 1
        # Born in an empty context: a cycle belongs to no span that happened to be open.
        self._running = asyncio.get_running_loop().create_task(
            self._one(triggers), name="mape_k.cycle", context=contextvars.Context()
        )
        # A callback, because a task that is cancelled before its first step runs no line of its own.
        self._running.add_done_callback(self._ended)

    async def _one(self, triggers: Sequence[Trigger]) -> None:
        await self._start(triggers)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running = None
        self._wake.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a cycle was lost: %s: %s", type(error).__name__, error, exc_info=error)

    async def _sleep_until(self, due: float) -> None:
        # Nothing was awaited since the last look, so no wake-up can be lost by clearing here.
        self._wake.clear()
        timer = asyncio.get_running_loop().call_at(due, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            timer.cancel()
