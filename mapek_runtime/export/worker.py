"""A worker: one thread for what would hold up the loop, a call at a time and in order.

The thread is started by the first call, and is a daemon: a call that hangs does not keep the process
from ending. Where the interpreter is ending and no thread can be started, calls are made in place.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from opentelemetry.context import attach, set_value
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from mapek_runtime.errors import TransportError

from .drain import DrainLoop
from .notice import Notices
from .outbox import Batch
from .sink import SUPPRESS, SpanSink

__all__ = ["Worker", "WorkerSink"]

logger = logging.getLogger(__name__)

Result = TypeVar("Result")


class Worker:
    """Calls functions in its thread; a call that nobody waits for any more is not begun."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: queue.SimpleQueue[_Job | None] | None = None
        self._job: _Job | None = None

    async def call(self, function: Callable[[], Result], *, finish: float = 0.0) -> Result:
        """Call `function` after the calls before it; gives what it gives, raises what it raises.

        When whoever waits is cancelled, a call that has begun may still take `finish` seconds to end.
        """
        loop = asyncio.get_running_loop()
        job = self._job = _Job(function, loop)
        try:
            if self._jobs is None:
                self._jobs = self._start()
            self._jobs.put(job)
        except RuntimeError:
            if not isinstance(loop, DrainLoop):
                raise
            # The interpreter ends and starts no thread any more; nothing else is held up here.
            job.run()
        try:
            result: Result = await asyncio.shield(job.result)
        except asyncio.CancelledError:
            if finish and not job.claim.acquire(blocking=False):
                await asyncio.wait({job.result}, timeout=finish)
            raise
        finally:
            job.claim.acquire(blocking=False)
            # Nobody is to miss an error that comes when nobody waits for it any more.
            job.result.cancel()
        return result

    async def end(self, last: Callable[[], Any]) -> None:
        """Call `last`, beside a call that still goes on, and let the thread end."""
        threads = [self._jobs]
        if self._job is not None and self._job.running:
            self._jobs = None
        try:
            await self.call(last)
        finally:
            threads.append(self._jobs)
            for jobs in threads:
                if jobs is not None:
                    jobs.put(None)
            self._jobs = None

    def after_fork(self) -> None:
        """Threads do not survive a fork."""
        self._jobs = self._job = None

    def _start(self) -> queue.SimpleQueue[_Job | None]:
        jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        threading.Thread(target=_work, args=(jobs,), name=self._name, daemon=True).start()
        return jobs


class WorkerSink(SpanSink):
    """A synchronous exporter of the SDK, in a thread of its own."""

    def __init__(self, name: str, exporter: SpanExporter, timeout: float, notices: Notices) -> None:
        super().__init__(name, exporter, timeout, notices)
        self._worker = Worker(f"mapek-{name}")

    async def _send(self, batch: Batch) -> None:
        # The SDK's own processor gives a list: exporters in the field may count on one.
        result = await self._worker.call(lambda: self.exporter.export(list(batch.spans)))
        if result is not SpanExportResult.SUCCESS:
            answer = getattr(result, "name", repr(result))
            raise TransportError(f"the exporter answered {answer}", error_type="failure")

    async def aclose(self) -> None:
        """Shut the exporter down, beside an export that still goes on: that is what ends it early."""
        await self._worker.end(self.exporter.shutdown)

    def after_fork(self) -> None:
        """Leave the thread to the parent; exporters of the SDK look after themselves."""
        super().after_fork()
        self._worker.after_fork()


class _Job:
    """A call for the worker."""

    def __init__(self, function: Callable[[], Any], loop: asyncio.AbstractEventLoop) -> None:
        self.function = function
        self.loop = loop
        self.result: asyncio.Future[Any] = loop.create_future()
        self.claim = threading.Lock()
        """Taken by who comes first: the worker that begins, or the caller who wants it no more."""
        self.running = False

    def run(self) -> None:
        if not self.claim.acquire(blocking=False):
            return
        self.running = True
        value: Any = None
        error: Exception | None = None
        try:
            value = self.function()
        except Exception as raised:  # noqa: BLE001 - is raised where the result is awaited
            error = raised
        except BaseException as raised:  # noqa: BLE001 - an exit is the program's, not the exporter's
            error = RuntimeError(f"the call raised {raised!r}")
            error.__cause__ = raised
        finally:
            # What it holds, a batch of spans, is not to stay until the next call.
            self.function = _done
        self.running = False
        try:
            self.loop.call_soon_threadsafe(self._resolve, value, error)
        except RuntimeError:
            logger.debug("the loop was closed before a call in a worker ended")

    def _resolve(self, value: Any, error: Exception | None) -> None:
        if self.result.done():
            return
        if error is None:
            self.result.set_result(value)
        else:
            self.result.set_exception(error)


def _done() -> None:
    """The call was made."""


def _work(jobs: queue.SimpleQueue[_Job | None]) -> None:
    attach(set_value(SUPPRESS, True))
    while (job := jobs.get()) is not None:
        job.run()
        del job
