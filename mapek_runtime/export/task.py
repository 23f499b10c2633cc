"""The batch task: sends what is in the ring, a slice in each turn of the loop.

It sleeps until a batch is full or the delay is over. While there is a backlog it takes a step every
turn: at most a millisecond of encoding while the ring is less than half full, growing to five, and
then at least as many spans as were created since the last step. Nothing ever waits inside a span.

One task serves one loop. When the loop ends the tasks of the program are cancelled first, and spans end
in that; then what is in flight has a moment to arrive, and the rest waits for another loop or the exit.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from opentelemetry.context import attach, set_value

from .account import Outcome
from .elsewhere import loop_here
from .lane import Lane
from .loop_end import outlive, when_loop_ends
from .outbox import Batch, Outbox
from .pace import Pace
from .sink import SUPPRESS

__all__ = ["BatchTask"]

logger = logging.getLogger(__name__)

CALM_SLICE = 0.001
FULL_SLICE = 0.005
SOME = 16
"""The share of the ring, one in so many, from which each step encodes as much as was created since."""
FAST = 0.05
"""Seconds within which a batch was filled whose successor may be twice as large."""
FINISH_LIMIT = 0.5
"""Seconds for what is in flight when the loop ends; what has no answer by then is sent once more later."""
RELEASE_LIMIT = 0.1
"""Seconds that letting go of connections may take when the loop ends."""


class BatchTask:
    """Exports from one outbox, through the lanes, on one loop."""

    def __init__(
        self, outbox: Outbox, lanes: Sequence[Lane], pace: Pace, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.loop = loop
        self._outbox = outbox
        self._ring = outbox.ring
        self._lanes = lanes
        self._pace = pace
        self._some = self._ring.capacity // SOME
        self._half = max(1, self._ring.capacity // 2)
        self._worth = pace.size
        """Spans that make a batch worth sending just now."""
        self._closed_at = 0.0
        self._waiter: asyncio.Future[None] | None = None
        self._watchers: set[asyncio.Future[None]] = set()
        self._flush_to = 0
        self._until = 0.0
        """When the delay is over, on the loop's clock."""
        self._seen = self._ring.ended
        self._pressed = False
        """Whether the ring was half full when this turn began: then more is sent at once, and ahead."""
        self._over = False
        self._ending = False
        """Whether the loop is about to end, so that nothing new is sent."""
        self._handle: asyncio.Task[None] | None = None
        self._group: asyncio.TaskGroup | None = None

    @property
    def is_alive(self) -> bool:
        """Whether the task can work now: it has not ended and its loop runs."""
        ended = self._handle is not None and self._handle.done()
        return not (self._over or ended) and self.loop.is_running()

    def has_ended_with(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether `loop` is this task's, and so near its end that no other task is to be started there."""
        return self._ending and self.loop is loop

    def own(self, handle: asyncio.Task[None]) -> None:
        """Keep the asyncio task that runs this one: the loop itself holds it only weakly."""
        self._handle = handle

    def wake(self) -> None:
        """There is something to do; from any thread."""
        # Not by the thread: a loop may run in another one than the one it was made in.
        if loop_here() is self.loop:
            self._release_waiter()
            return
        try:
            self.loop.call_soon_threadsafe(self._release_waiter)
        except RuntimeError:
            # The loop was closed at this moment; the next append finds that out.
            self._ring.arm(0)

    def press(self) -> int:
        """Send everything that has ended so far without waiting for a full batch; from any thread."""
        target = self._flush_to = max(self._flush_to, self._ring.ended)
        self.wake()
        return target

    async def flush(self, deadline: float) -> bool:
        """Wait until what has ended so far is settled, or until `deadline` on the loop's clock.

        False when time was over, or when an exporter did not take some of it.
        """
        unsent = self._unsent()
        target = self.press()
        return await self._watch(lambda: self._settled(target), deadline) and self._unsent() <= unsent

    async def finish(self) -> None:
        """The loop is about to end: wait a moment for what is in flight."""
        self._ending = True
        deadline = self.loop.time() + FINISH_LIMIT
        await self._watch(lambda: not any(lane.at_once for lane in self._lanes), deadline)
        await self.stop()
        self._ring.arm(0)

    async def stop(self) -> None:
        """End the task; what was in flight waits in the lanes afterwards."""
        if self._handle is not None and not self._handle.done():
            self._handle.cancel()
            await asyncio.wait({self._handle}, timeout=RELEASE_LIMIT * 2)
        self.retire()

    def retire(self) -> None:
        """Another task takes over; what this one had in flight goes back to the lanes."""
        if self._over:
            return  # who took over has the lanes now
        self._over = True
        for lane in self._lanes:
            lane.give_back(self)
            lane.sink.take_back(lane)
        self._progress()

    async def run(self) -> None:
        """Export until cancelled."""
        if self._over:
            return
        # Our own requests must not become spans.
        attach(set_value(SUPPRESS, True))
        self._until = self.loop.time() + self._pace.delay
        take_back = await when_loop_ends(self.finish)
        try:
            async with asyncio.TaskGroup() as self._group:
                for lane in self._lanes:
                    self._start(self._attend(lane))
                self._launch()
                while not self._over:
                    await self._turn()
        finally:
            take_back()
            if not self._over:
                self.retire()
                self._ring.arm(0)
            await self._let_go()

    async def _turn(self) -> None:
        outbox, ring, pace = self._outbox, self._ring, self._pace
        self._pressed = len(ring) >= self._half
        if self._ending:
            await self._sleep(None)
        elif not outbox.waiting:
            if not self._armed(1):
                return
            await self._sleep(None)
            self._until = self.loop.time() + pace.delay
        elif not self._can_take():
            # Nothing can be sent, so nothing is taken: the ring decides what goes if it overflows.
            if not any(lane.has_room for lane in self._lanes):
                ring.disarm()
            elif not self._armed(self._half):
                return
            await self._sleep(None)
        elif outbox.waiting >= self._worth or self._is_due():
            ring.disarm()
            self._step()
            await asyncio.sleep(0)
        elif self._armed(self._worth - outbox.open):
            await self._sleep(self._until)

    def _can_take(self) -> bool:
        """Whether another batch is wanted: to be sent at once, or to be ready while the ring fills."""
        limit = self._limit()
        for lane in self._lanes:
            if not lane.has_waiting and lane.at_once < (limit if lane.sink.concurrent else 1):
                return True
        return self._pressed and any(lane.has_room for lane in self._lanes)

    def _limit(self) -> int:
        """How many requests an exporter may have in flight just now."""
        return self._pace.most_at_once if self._pressed else self._pace.at_once

    def _armed(self, waiting: int) -> bool:
        # The mark is set before the look, so that an append from another thread in between is seen.
        self._ring.arm(waiting)
        return len(self._ring) < waiting

    def _is_due(self) -> bool:
        return self.loop.time() >= self._until or self._outbox.oldest < self._flush_to

    def _step(self) -> None:
        outbox, ring, pace = self._outbox, self._ring, self._pace
        outbox.tell_overflow()
        ended = ring.ended
        created, self._seen = ended - self._seen, ended
        waiting = len(ring)
        seconds = CALM_SLICE
        # Spans that live long cost the garbage collector more than encoding them does.
        obliged = created if waiting > self._some else 0
        if self._pressed:
            seconds += (FULL_SLICE - CALM_SLICE) * min(1.0, 2 * waiting / ring.capacity - 1)
        while True:
            done = outbox.fill(pace.most, seconds, obliged)
            obliged -= done
            emptied = outbox.waiting == outbox.open
            if outbox.is_full(pace.most) or (emptied and (outbox.open >= self._worth or self._is_due())):
                self._close()
            if emptied or obliged <= 0 or not done or not self._can_take():
                break
        if emptied and not outbox.open:
            self._until = self.loop.time() + pace.delay
            self._progress()

    def _close(self) -> None:
        pace, now = self._pace, self.loop.time()
        batch = self._outbox.close()
        if batch is None:
            return
        # A request costs the loop as much as some hundred spans: where spans come fast, it carries more.
        fast = now - self._closed_at < FAST
        self._worth = min(2 * self._worth, max(pace.size, pace.most // 4)) if fast else pace.size
        self._closed_at = now
        self._offer(batch)

    def _offer(self, batch: Batch) -> None:
        self._outbox.account.offer(batch.fate, [lane.account for lane in self._lanes])
        for lane in self._lanes:
            lane.put(batch)
        self._launch()

    def _launch(self) -> None:
        """Send what waits in the lanes, as far as there are slots."""
        limit = self._limit()
        for lane in self._lanes:
            most = limit if lane.sink.concurrent else 1
            while lane.at_once < most and (batch := lane.take(self)) is not None:
                self._start(self._send(lane, batch))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        assert self._group is not None
        outlive(self._group.create_task(work))

    async def _send(self, lane: Lane, batch: Batch | None) -> None:
        """Send a batch, and then what waits in the lane: so a slot loses no turn between two requests."""
        while batch is not None:
            try:
                outcome = await lane.sink.attempt(batch, lane)
            except Exception as error:
                # A fault in one sink is not to end the task for all.
                logger.exception("%s: %d spans dropped", lane.sink.name, batch.count)
                outcome = Outcome(0, batch.count, type(error).__name__)
            if outcome is not None and not lane.settle(batch, self, outcome):
                return
            batch = None if self._over or self._ending else lane.take(self)
            self._outbox.tell_overflow()
            self._progress()

    async def _attend(self, lane: Lane) -> None:
        try:
            await lane.sink.attend(lane)
        except Exception:
            logger.exception("%s: it is not attended any more", lane.sink.name)

    async def _watch(self, holds: Callable[[], bool], deadline: float) -> bool:
        """Wait until something holds; False when it does not by the deadline, or when the task is over."""
        try:
            async with asyncio.timeout_at(deadline):
                while not holds():
                    if self._over:
                        return False
                    watcher = self.loop.create_future()
                    self._watchers.add(watcher)
                    try:
                        await watcher
                    finally:
                        self._watchers.discard(watcher)
        except TimeoutError:
            return False
        return True

    def _settled(self, target: int) -> bool:
        oldest = self._outbox.oldest
        return oldest >= target and all(lane.oldest(target) >= target for lane in self._lanes)

    def _unsent(self) -> int:
        return self._outbox.account.unsent + sum(lane.unsent for lane in self._lanes)

    async def _sleep(self, until: float | None) -> None:
        waiter = self._waiter = self.loop.create_future()
        timer = self.loop.call_at(until, self._release_waiter) if until is not None else None
        try:
            await waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()

    def _release_waiter(self) -> None:
        if self._waiter is not None and not self.loop.is_closed() and not self._waiter.done():
            # What was created while nothing could be sent is no debt that one step has to pay.
            self._seen = self._ring.ended
            self._waiter.set_result(None)

    def _progress(self) -> None:
        self._release_waiter()
        for watcher in self._watchers:
            if not (watcher.done() or self.loop.is_closed()):
                watcher.set_result(None)

    async def _let_go(self) -> None:
        if loop_here() is not self.loop:
            return  # collected with a loop that was abandoned; nothing can be awaited any more
        try:
            async with asyncio.timeout(RELEASE_LIMIT):
                for lane in self._lanes:
                    await lane.sink.release()
        except TimeoutError:
            pass
