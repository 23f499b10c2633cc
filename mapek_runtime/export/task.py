"""The batch task: sends what is in the ring, a slice in each turn of the loop.

It sleeps until a batch is full or the delay is over. While there is a backlog it takes a step every
turn: at most a millisecond of encoding while the ring is less than half full, growing to five, and
then at least as many spans as were created since the last step. Nothing ever waits inside a span.

One task serves one loop; when the loop ends, what was in flight goes back to the outbox.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

from opentelemetry.context import attach, set_value

from .account import Outcome
from .outbox import Batch, Outbox
from .pace import Pace
from .sink import SUPPRESS, Sink

__all__ = ["BatchTask"]

CALM_SLICE = 0.001
FULL_SLICE = 0.005
RELEASE_LIMIT = 0.5
"""Seconds that letting go of connections may take when the loop ends."""


class BatchTask:
    """Exports from one outbox on one loop."""

    def __init__(
        self, outbox: Outbox, sinks: Sequence[Sink], pace: Pace, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.loop = loop
        self._thread = threading.get_ident()
        self._outbox = outbox
        self._ring = outbox.ring
        self._sinks = sinks
        self._pace = pace
        self._flying: set[Batch] = set()
        self._waiter: asyncio.Future[None] | None = None
        self._watchers: set[asyncio.Future[None]] = set()
        self._flush_to = 0
        self._until = 0.0
        """When the delay is over, on the loop's clock."""
        self._seen = self._ring.ended
        self._over = False
        self._handle: asyncio.Task[None] | None = None
        self._group: asyncio.TaskGroup | None = None

    @property
    def is_alive(self) -> bool:
        """Whether the task can work now: it has not ended and its loop runs."""
        ended = self._handle is not None and self._handle.done()
        return not (self._over or ended) and self.loop.is_running()

    def own(self, handle: asyncio.Task[None]) -> None:
        """Keep the asyncio task that runs this one: the loop itself holds it only weakly."""
        self._handle = handle

    def wake(self) -> None:
        """There is something to do; from any thread."""
        if threading.get_ident() == self._thread:
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
        lost = self._lost()
        target = self.press()
        try:
            async with asyncio.timeout_at(deadline):
                while not self._settled(target):
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
        return self._lost() == lost

    async def stop(self) -> None:
        """End the task; what was in flight is in the outbox afterwards."""
        if self._handle is not None and not self._handle.done():
            self._handle.cancel()
            await asyncio.wait({self._handle}, timeout=RELEASE_LIMIT * 2)
        self.retire()

    def retire(self) -> None:
        """Another task takes over; what this one had in flight goes back to the outbox."""
        self._over = True
        for batch in sorted(self._flying, key=lambda batch: batch.start):
            self._outbox.put_back(batch)
        self._flying.clear()
        self._progress()

    async def run(self) -> None:
        """Export until cancelled."""
        # Our own requests must not become spans.
        attach(set_value(SUPPRESS, True))
        self._until = self.loop.time() + self._pace.delay
        try:
            async with asyncio.TaskGroup() as self._group:
                while not self._over:
                    await self._turn()
        finally:
            if not self._over:
                self.retire()
                self._ring.arm(0)
            await self._let_go()

    async def _turn(self) -> None:
        outbox, ring, pace = self._outbox, self._ring, self._pace
        if len(self._flying) >= pace.concurrency:
            # Nothing can be sent, so nothing is taken: the ring decides what goes if it overflows.
            ring.disarm()
            await self._sleep(None)
        elif outbox.has_returned:
            self._launch(outbox.take_returned())
        elif not outbox.waiting:
            if not self._armed(1):
                return
            await self._sleep(None)
            self._until = self.loop.time() + pace.delay
        elif outbox.waiting >= pace.size or self._is_due():
            ring.disarm()
            self._step()
            await asyncio.sleep(0)
        elif self._armed(pace.size - outbox.open):
            await self._sleep(self._until)

    def _armed(self, waiting: int) -> bool:
        # The mark is set before the look, so that an append from another thread in between is seen.
        self._ring.arm(waiting)
        return len(self._ring) < waiting

    def _is_due(self) -> bool:
        return (
            self.loop.time() >= self._until or min(self._outbox.oldest, self._outbox.removed) < self._flush_to
        )

    def _step(self) -> None:
        outbox, ring, pace = self._outbox, self._ring, self._pace
        outbox.tell_overflow()
        ended = ring.ended
        created, self._seen = ended - self._seen, ended
        fullness = len(ring) / ring.capacity
        seconds, obliged = CALM_SLICE, 0
        if fullness > 0.5:
            seconds += (FULL_SLICE - CALM_SLICE) * min(1.0, 2 * fullness - 1)
            obliged = created
        while True:
            done = outbox.fill(pace.most, seconds, obliged)
            obliged -= done
            emptied = not len(ring)
            if outbox.is_full(pace.most) or (emptied and (outbox.open >= pace.size or self._is_due())):
                batch = outbox.close()
                if batch is not None:
                    self._launch(batch)
            if emptied or obliged <= 0 or not done or len(self._flying) >= pace.concurrency:
                break
        if emptied and not outbox.open:
            self._until = self.loop.time() + pace.delay
            self._progress()

    def _launch(self, batch: Batch) -> None:
        assert self._group is not None
        self._outbox.account.begin(batch.count)
        self._flying.add(batch)
        self._group.create_task(self._deliver(batch))

    async def _deliver(self, batch: Batch) -> None:
        todo = [sink for sink in self._sinks if sink.name not in batch.outcomes]
        if len(todo) == 1:
            await todo[0].deliver(batch)
        else:
            async with asyncio.TaskGroup() as group:
                for sink in todo:
                    group.create_task(sink.deliver(batch))
        if batch in self._flying:
            self._flying.remove(batch)
            # A span is exported when one exporter has taken it: the best outcome counts.
            best = max(
                batch.outcomes.values(), key=lambda outcome: outcome.exported, default=Outcome(batch.count)
            )
            self._outbox.account.settle(best)
            self._outbox.tell_overflow()
            self._progress()

    def _settled(self, target: int) -> bool:
        outbox = self._outbox
        return min(outbox.removed, outbox.oldest, *(batch.start for batch in self._flying)) >= target

    def _lost(self) -> int:
        return sum(self._outbox.account.dropped.values())

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
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _progress(self) -> None:
        self._release_waiter()
        for watcher in self._watchers:
            if not watcher.done():
                watcher.set_result(None)

    async def _let_go(self) -> None:
        try:
            async with asyncio.timeout(RELEASE_LIMIT):
                for sink in self._sinks:
                    await sink.release()
        except TimeoutError:
            pass
