"""`BatchSpanProcessor`: the SDK's interface in front of ring, batch task and exporters.

`on_end` costs a deque append. Everything else happens on an asyncio task of the loop in which the
first span ends, or, in a program without a loop, in the thread that fills the queue, flushes or
shuts down. Works behind `mapek_runtime.TracerProvider` and behind the SDK's own.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

from opentelemetry.metrics import MeterProvider
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

from mapek_runtime.trace.forks import follow_forks
from mapek_runtime.trace.identity import SAMPLED
from mapek_runtime.trace.ring import Ring
from mapek_runtime.trace.sampling.hold import Holds
from mapek_runtime.trace.span import Span

from .account import Account, Statistics
from .drain import DrainLoop
from .elsewhere import do_elsewhere, do_elsewhere_and_block, loop_here
from .exits import at_exit, at_exit_of_child, not_at_exit
from .kinds import Exporter, name_sinks
from .lane import Lane
from .loop_end import outlive
from .metrics import observe
from .notice import Notices
from .outbox import Outbox
from .pace import read_pace
from .sink import close_sinks
from .task import BatchTask

__all__ = ["BatchSpanProcessor"]

logger = logging.getLogger(__name__)

SHUTDOWN_LIMIT = 5.0
"""Seconds for a shutdown that was given no timeout."""
HURRY = 1.0
"""Seconds before the end of a shutdown, or half of it, from which spools take what is not sent yet."""
CLOSE_LIMIT = 0.1
"""Seconds that exporters have at least for closing, after the deadline was used up by the flush."""
INLINE_PAUSE = 5.0
"""Seconds without another inline export after one that failed: the program is not to stand still
for a collector that is away."""


Work = Callable[[float], Coroutine[Any, Any, bool]]
"""What is to be done on the batch task's loop within so many seconds."""


class BatchSpanProcessor(SpanProcessor):
    """Exports ended spans in batches, on its own asyncio task.

    Takes any number of exporters: asyncio ones, and synchronous ones of the SDK, which get a thread.
    The settings default to `OTEL_BSP_*`. `statistics()` says what became of every span; where cycles
    decide, give it the sampler's `holds`, so that it also knows the spans that are held back from it.
    """

    def __init__(
        self,
        *exporters: Exporter,
        max_queue_size: int | None = None,
        schedule_delay_millis: float | None = None,
        max_export_batch_size: int | None = None,
        export_timeout_millis: float | None = None,
        max_concurrency: int | None = None,
        holds: Holds | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        if not exporters:
            raise TypeError("BatchSpanProcessor needs at least one exporter")
        pace = self._pace = read_pace(
            max_queue_size,
            schedule_delay_millis,
            max_export_batch_size,
            export_timeout_millis,
            max_concurrency,
        )
        self._exporters = exporters
        self._export_timeout = pace.export_timeout
        self._notices = Notices(logger)
        self._ring = Ring(pace.capacity, self._on_due, self._on_held)
        self._ring.arm(0)
        self._holds = holds
        self._account = Account(self._ring, holds)
        sinks = name_sinks(exporters, pace.export_timeout, self._notices, meter_provider)
        self._lanes = [
            Lane(
                sink, self._account, self._notices, capacity=pace.ahead if sink.takes_bytes else pace.capacity
            )
            for sink in sinks
        ]
        self._outbox = Outbox(
            self._ring,
            self._account,
            self._notices,
            encode=any(sink.takes_bytes for sink in sinks),
            keep=not all(sink.takes_bytes for sink in sinks),
        )
        self._append: Callable[[ReadableSpan], None] = self._ring.append
        self._task: BatchTask | None = None
        self._closing: asyncio.Task[bool] | None = None
        self._starting = threading.RLock()
        self._inline = threading.Lock()
        self._inline_from = 0.0
        self._told: set[str] = set()
        self._stopped = False
        self._closed = False
        meters = {sink.name: sink.meter for sink in sinks if sink.meter is not None}
        observe(self.statistics, pace.capacity, meter_provider, meters)
        at_exit(self._at_exit)
        follow_forks(self._after_fork)

    # The SDK's interface

    @property
    def span_exporter(self) -> Exporter:
        """The exporter, as the SDK's processor names it; the first of several."""
        exporter: Exporter = self._exporters[0]
        return exporter

    def on_end(self, span: ReadableSpan) -> None:
        """Take an ended span, if it is sampled. Never waits and never fails."""
        if type(span) is Span:
            if span._flags & SAMPLED:
                self._append(span)
            return
        context = span.context
        if context is not None and context.trace_flags.sampled:
            self._append(span)

    def force_flush(self, timeout_millis: int | None = None) -> bool:
        """Send what has ended so far, within the timeout (the export timeout unless given).

        On the thread of a running loop it cannot wait: it makes the batch task send at once and says
        whether nothing was left to send. There, `await aforce_flush()`.
        """
        timeout = self._export_timeout if timeout_millis is None else timeout_millis / 1000
        if self._stopped:
            return False
        if loop_here() is not None:
            self._tell_once("force_flush", "aforce_flush")
            self._task_here().press()
            now = self._account.statistics({})
            return now.queued + now.in_flight == 0
        return self._from_outside(self.aforce_flush, timeout)

    def shutdown(self, timeout_millis: int | None = None) -> None:
        """Send what is left and close the exporters, within the timeout (5 s unless given).

        On the thread of a running loop it cannot wait: the batch task does it in the next turns. There,
        `await ashutdown()`.
        """
        timeout = SHUTDOWN_LIMIT if timeout_millis is None else timeout_millis / 1000
        if self._closed or not (self._closing is None or self._closing.done()):
            return
        loop = loop_here()
        if loop is not None:
            self._tell_once("shutdown", "ashutdown")
            self._refuse_more()
            self._closing = loop.create_task(self.ashutdown(timeout), context=contextvars.Context())
            return
        self._from_outside(self.ashutdown, timeout)

    # The asyncio interface

    def start(self) -> None:
        """Start the batch task on the running loop, instead of when the first span ends there."""
        if not self._stopped:
            self._task_here()

    async def aforce_flush(self, timeout: float | None = None) -> bool:
        """Send what has ended so far; the loop keeps running.

        False when `timeout` seconds (the export timeout unless given) were not enough, or when an
        exporter did not take some of it. What was not sent stays queued.
        """
        if self._stopped:
            return False
        limit = self._export_timeout if timeout is None else timeout
        deadline = asyncio.get_running_loop().time() + limit
        done = await self._elsewhere(self.aforce_flush, deadline)
        if done is not None or self._stopped:
            return done is True
        return await self._task_here().flush(deadline)

    async def ashutdown(self, timeout: float | None = None) -> bool:
        """Send what is left and close the exporters; the loop keeps running.

        Ends within `timeout` seconds (5 unless given) whatever the collector does; what was not sent
        by then is counted as dropped with the reason `timeout`. True when everything was delivered.
        """
        if self._closed:
            return True
        limit = SHUTDOWN_LIMIT if timeout is None else timeout
        loop = asyncio.get_running_loop()
        deadline = loop.time() + limit
        done = await self._elsewhere(self.ashutdown, deadline)
        if done is not None or self._closed:
            return done is not False
        self._refuse_more()
        task = self._task_here()
        # What can be put on disk is not sent any more when time is nearly over.
        hurry = loop.call_at(deadline - min(HURRY, limit / 2), self._hurry)
        try:
            delivered = await task.flush(deadline)
            if not delivered and task.has_ended_with(loop) and not self._closed:
                # The loop is near its end, and so was the task; what it left has its time all the same.
                await task.stop()
                task = self._task_here()
                delivered = await task.flush(deadline)
        finally:
            hurry.cancel()
        await task.stop()
        self._outbox.tell_overflow()
        given_up = self._abandon("timeout")
        if given_up:
            self._notices.warn(
                "shutdown", "shutdown after %g s: spans dropped that were not sent", limit, count=given_up
            )
        self._closed = True
        not_at_exit(self._at_exit)
        await close_sinks([lane.sink for lane in self._lanes], max(CLOSE_LIMIT, deadline - loop.time()))
        return delivered and not given_up

    def statistics(self) -> Statistics:
        """What became of every span: the terms of the law, and each exporter's account."""
        return self._account.statistics({lane.sink.name: lane.account for lane in self._lanes})

    # Where the work is done

    def _on_due(self) -> None:
        """The ring asks for attention, in the thread that has just ended a span."""
        task = self._task
        if task is not None and task.is_alive:
            task.wake()
        elif (loop := loop_here()) is not None:
            if task is None or not task.has_ended_with(loop):
                self._task_here()
        else:
            self._ring.arm(0)
            if len(self._ring) >= self._ring.capacity:
                self._export_inline()

    def _on_held(self) -> None:
        """The ring fills, and a batch task has said that it need not hear of it."""
        task = self._task
        if task is None or not task.is_alive:
            # Its loop stopped before it could take that back.
            self._on_due()

    def _task_here(self) -> BatchTask:
        """The batch task; a new one on the running loop when there is none that can work."""
        # Spans may end on two loops in two threads at once.
        with self._starting:
            return self._start_task()

    def _start_task(self) -> BatchTask:
        task = self._task
        if task is not None:
            if task.is_alive:
                return task
            # Its loop has stopped or is closed. Should that loop run again, the task finds itself
            # replaced.
            task.retire()
        loop = asyncio.get_running_loop()
        self._ring.disarm()
        task = self._task = BatchTask(self._outbox, self._lanes, self._pace, loop)
        # Born in an empty context, or everything it does would belong to whatever span is open now.
        # (Not as an argument, which task factories from before Python 3.11 do not know.)
        handle = contextvars.Context().run(loop.create_task, task.run())
        handle.set_name("mapek-batch")
        handle.add_done_callback(self._report, context=contextvars.Context())
        outlive(handle)
        task.own(handle)
        return task

    def _report(self, handle: asyncio.Task[None]) -> None:
        if not handle.cancelled() and (error := handle.exception()) is not None:
            said = "the batch task failed; the next span starts another"
            self._notices.warn("failed", said, level=logging.ERROR, error=error)

    async def _elsewhere(self, work: Work, deadline: float) -> bool | None:
        """Do `work` on the batch task's loop while it lives on another; None when it does not."""
        here = asyncio.get_running_loop()
        while (task := self._task) is not None and task.is_alive and task.loop is not here:
            left = max(0.0, deadline - here.time())
            done = await do_elsewhere(task.loop, functools.partial(work, left), left)
            if done is not None:
                return done
        return None

    def _from_outside(self, work: Work, timeout: float) -> bool:
        """Do `work` from a thread without a loop: on the batch task's loop, or on a private one."""
        deadline = time.monotonic() + timeout
        while (task := self._task) is not None and task.is_alive:
            left = max(0.0, deadline - time.monotonic())
            done = do_elsewhere_and_block(task.loop, functools.partial(work, left), left)
            if done is not None:
                return done
        left = max(0.0, deadline - time.monotonic())
        if not self._inline.acquire(timeout=left):
            return False
        try:
            return contextvars.Context().run(self._drain, work, left)
        finally:
            self._inline.release()

    def _drain(self, work: Work, timeout: float) -> bool:
        loop = DrainLoop()

        async def drain() -> bool:
            done = await work(timeout)
            if self._task is not None and self._task.loop is loop:
                await self._task.stop()
            return done

        try:
            return loop.run_until_complete(drain())
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()
            self._ring.arm(0)

    def _export_inline(self) -> None:
        now = time.monotonic()
        if now < self._inline_from or not self._inline.acquire(blocking=False):
            self._outbox.tell_overflow()
            return
        self._inline.release()
        if not self._from_outside(self.aforce_flush, self._export_timeout):
            self._inline_from = time.monotonic() + INLINE_PAUSE

    def _hurry(self) -> None:
        for lane in self._lanes:
            lane.sink.hurry()

    def _abandon(self, reason: str) -> int:
        """Give up whatever waits anywhere; gives the number of spans."""
        before = self._account.unsent
        self._outbox.abandon(reason)
        for lane in self._lanes:
            lane.abandon(reason)
        return self._account.unsent - before

    def _refuse_more(self) -> None:
        if self._holds is not None:
            # What is kept of the cycles that are open still goes out with the last batch.
            self._holds.settle()
        self._stopped = True
        self._append = self._refuse

    def _refuse(self, _span: ReadableSpan) -> None:
        self._account.refuse()
        self._notices.warn("stopped", "a span ended after the shutdown; it is dropped")

    def _tell_once(self, plain: str, asynchronous: str) -> None:
        if plain not in self._told:
            self._told.add(plain)
            logger.warning(
                "%s() was called on the thread of a running event loop, where it cannot wait; use await %s()",
                plain,
                asynchronous,
            )

    def _at_exit(self) -> None:
        if self._closed:
            return
        self._closing = None
        left = self.statistics()
        # A shutdown that was begun on a loop that ended before it is finished here.
        if self._stopped or left.held + left.queued + left.in_flight:
            self.shutdown()

    def _after_fork(self) -> None:
        """This is the child of a fork: the spans so far belong to the parent, and so does its loop."""
        self._ring.clear()
        self._ring.arm(0)
        self._account.clear()
        self._outbox.clear()
        self._task = None
        self._closing = None
        self._starting = threading.RLock()
        self._inline = threading.Lock()
        for lane in self._lanes:
            lane.after_fork()
        at_exit_of_child(self._at_exit)
