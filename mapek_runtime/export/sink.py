"""A sink: one exporter, how it is called, and its account.

An exporter of this package is asyncio code with `async send(payload, count)`, which takes OTLP
bytes, or `async export(spans)`; and `async aclose()`. Any synchronous exporter of the SDK works too,
in one worker thread. Whatever an exporter does, `deliver` ends within the export timeout with an
`Outcome`, and never raises.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY as SUPPRESS
from opentelemetry.context import attach, set_value
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from mapek_runtime.errors import TransportError, TransportRejected

from .account import Outcome, SinkAccount
from .drain import DrainLoop
from .notice import Notices
from .outbox import Batch

__all__ = [
    "AsyncSpanExporter",
    "ByteExporter",
    "Exporter",
    "SUPPRESS",
    "Sink",
    "SpanSink",
    "WorkerSink",
    "make_sink",
    "require_asyncio",
]

logger = logging.getLogger(__name__)


class ByteExporter(Protocol):
    """Carries OTLP bytes away."""

    async def send(self, payload: bytes, count: int, /) -> None:
        """Deliver a request of `count` spans, or raise TransportError or TransportRejected."""

    async def aclose(self) -> None:
        """Let go of everything; nothing is sent afterwards."""


class AsyncSpanExporter(Protocol):
    """Takes spans."""

    async def export(self, spans: Sequence[ReadableSpan], /) -> None:
        """Deliver `spans`, or raise TransportError or TransportRejected."""

    async def aclose(self) -> None:
        """Let go of everything; nothing is exported afterwards."""


Exporter = ByteExporter | AsyncSpanExporter | SpanExporter


class Sink:
    """An exporter that takes OTLP bytes."""

    takes_bytes = True
    concurrent = True

    def __init__(self, name: str, exporter: Any, timeout: float, notices: Notices) -> None:
        self.name = name
        self.exporter = exporter
        self.account = SinkAccount()
        self._timeout = timeout
        self._notices = notices

    async def deliver(self, batch: Batch) -> None:
        """Hand the batch over and write down what became of it."""
        self.account.in_flight += batch.count
        try:
            outcome = await self._attempt(batch)
        except BaseException:
            self.account.in_flight -= batch.count
            raise
        self.account.settle(batch.count, outcome)
        batch.outcomes[self.name] = outcome

    async def _attempt(self, batch: Batch) -> Outcome:
        count = batch.count
        try:
            async with asyncio.timeout(self._timeout):
                await self._send(batch)
        except TransportRejected as error:
            refused = max(0, min(count, error.rejected_spans))
            self._tell("rejected", refused, error)
            return Outcome(count - refused, refused, "rejected")
        except TransportError as error:
            self._tell(error.error_type, count, error)
            return Outcome(0, count, error.error_type)
        except TimeoutError:
            self._tell("timeout", count, f"no answer within {self._timeout:g} s")
            return Outcome(0, count, "timeout")
        except Exception as error:  # noqa: BLE001 - faults of an exporter end here, counted and told
            reason = type(error).__name__
            self._tell(reason, count, reason)
            return Outcome(0, count, reason)
        return Outcome(count)

    def _tell(self, reason: str, count: int, why: object) -> None:
        self._notices.warn(f"{self.name}/{reason}", "%s: spans dropped: %s", self.name, why, count=count)

    async def _send(self, batch: Batch) -> None:
        await self.exporter.send(batch.payload, batch.count)

    async def release(self) -> None:
        """The loop is going away: let go of what belongs to it."""
        release = getattr(self.exporter, "release", None)
        if release is not None:
            await release()

    async def aclose(self) -> None:
        """Close the exporter for good."""
        aclose = getattr(self.exporter, "aclose", None)
        if aclose is not None:
            await aclose()

    def after_fork(self) -> None:
        """This is the child of a fork: forget the counts and let go of the parent's connections."""
        self.account = SinkAccount()
        forget = getattr(self.exporter, "after_fork", None)
        if forget is not None:
            forget()


class SpanSink(Sink):
    """An asyncio exporter that takes spans, one export at a time."""

    takes_bytes = False
    concurrent = False

    async def _send(self, batch: Batch) -> None:
        await self.exporter.export(batch.spans)


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


def require_asyncio(exporter: object) -> None:
    """Raise TypeError in a thread without a running loop: the SDK's own processors call from there.

    They would take a coroutine that nobody awaits for a success, and lose every span in silence.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise TypeError(
            f"{type(exporter).__name__} is an asyncio exporter and this is a synchronous call; "
            "give it to mapek_runtime.BatchSpanProcessor"
        ) from None


def make_sink(name: str, exporter: Any, timeout: float, notices: Notices) -> Sink:
    """The sink for an exporter of any kind; raises TypeError for what is none."""
    if inspect.iscoroutinefunction(getattr(exporter, "send", None)):
        return Sink(name, exporter, timeout, notices)
    export = getattr(exporter, "export", None)
    if callable(export):
        if inspect.iscoroutinefunction(export) or inspect.iscoroutinefunction(
            getattr(exporter, "aclose", None)
        ):
            return SpanSink(name, exporter, timeout, notices)
        if callable(getattr(exporter, "shutdown", None)):
            return WorkerSink(name, exporter, timeout, notices)
    raise TypeError(
        f"{exporter!r} is no exporter; it needs async send(payload, count) or async export(spans), "
        "with async aclose(), or to be a SpanExporter of the SDK"
    )
