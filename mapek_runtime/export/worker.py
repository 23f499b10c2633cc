"""A worker: a synchronous exporter of the SDK, called in one thread of its own.

The thread is started by the first call and ends with the exporter. It is the only one of the export
side; where the interpreter is ending and no thread can be started, the exporter is called in place.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Callable
from typing import Any

from opentelemetry.context import attach, set_value
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from mapek_runtime.errors import TransportError

from .drain import DrainLoop
from .notice import Notices
from .outbox import Batch
from .sink import SUPPRESS, SpanSink

__all__ = ["WorkerSink"]

logger = logging.getLogger(__name__)


class WorkerSink(SpanSink):
    """A synchronous exporter of the SDK, in one thread of its own."""

    def __init__(self, name: str, exporter: SpanExporter, timeout: float, notices: Notices) -> None:
        super().__init__(name, exporter, timeout, notices)
        self._jobs: queue.SimpleQueue[_Job | None] | None = None
        self._job: _Job | None = None

    async def _send(self, batch: Batch) -> None:
        # The SDK's own processor gives a list: exporters in the field may count on one.
        result = await self._call(lambda: self.exporter.export(list(batch.spans)))
        if result is not SpanExportResult.SUCCESS:
            raise TransportError(f"the exporter answered {result!r}", error_type="failure")

    async def aclose(self) -> None:
        """Shut the exporter down, beside an export that still goes on: that is what ends it early."""
        threads = [self._jobs]
        if self._job is not None and self._job.running:
            self._jobs = None
        try:
            await self._call(self.exporter.shutdown)
        finally:
            threads.append(self._jobs)
            for jobs in threads:
                if jobs is not None:
                    jobs.put(None)
            self._jobs = None

    def after_fork(self) -> None:
        """Threads do not survive a fork; exporters of the SDK look after themselves."""
        super().after_fork()
        self._jobs = self._job = None

    async def _call(self, function: Callable[[], Any]) -> Any:
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
            return await job.result
        finally:
            job.wanted = False

    def _start(self) -> queue.SimpleQueue[_Job | None]:
        jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        # A daemon: an exporter that hangs must not keep the process from ending.
        threading.Thread(target=_work, args=(jobs,), name=f"mapek-{self.name}", daemon=True).start()
        return jobs


class _Job:
    """A call for the worker; not begun any more once nobody waits for it."""

    def __init__(self, function: Callable[[], Any], loop: asyncio.AbstractEventLoop) -> None:
        self.function = function
        self.loop = loop
        self.result: asyncio.Future[Any] = loop.create_future()
        self.wanted = True
        self.running = False

    def run(self) -> None:
        self.running = True
        try:
            value, error = self.function(), None
        except Exception as raised:  # noqa: BLE001 - is raised where the result is awaited
            value, error = None, raised
        self.running = False
        try:
            self.loop.call_soon_threadsafe(self._resolve, value, error)
        except RuntimeError:
            logger.debug("the loop was closed before an export ended")

    def _resolve(self, value: Any, error: Exception | None) -> None:
        if self.result.done():
            return
        if error is None:
            self.result.set_result(value)
        else:
            self.result.set_exception(error)


def _work(jobs: queue.SimpleQueue[_Job | None]) -> None:
    attach(set_value(SUPPRESS, True))
    while (job := jobs.get()) is not None:
        if job.wanted:
            job.run()
        del job
