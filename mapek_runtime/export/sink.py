"""A sink: how one exporter is called, whatever its kind, and the way it fails.

An exporter of this package is asyncio code with `async send(payload, count)`, which takes OTLP
bytes, or `async export(spans)`; and `async aclose()`. Any synchronous exporter of the SDK works too,
in one worker thread. Whatever an exporter does, `attempt` ends within the export timeout with an
`Outcome`, and never raises.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY as SUPPRESS
from opentelemetry.sdk.trace import ReadableSpan

from mapek_runtime.errors import TransportError, TransportRejected

from .account import Outcome
from .metrics import ExporterMeter
from .notice import Notices
from .outbox import Batch

if TYPE_CHECKING:
    from .lane import Lane

__all__ = [
    "AsyncSpanExporter",
    "Attempt",
    "ByteExporter",
    "SUPPRESS",
    "Sink",
    "SpanSink",
    "close_sinks",
    "require_asyncio",
]


logger = logging.getLogger(__name__)

CANCELLED = "cancelled"
"""The reason where something that the exporter waited for was cancelled."""


class ByteExporter(Protocol):
    """Carries OTLP bytes away."""

    async def send(self, payload: bytes, count: int, /) -> int | None:
        """Deliver a request of `count` spans, or raise TransportError or TransportRejected.

        Gives the status of the answer, for the metrics, where the protocol has one.
        """

    async def aclose(self) -> None:
        """Let go of everything; nothing is sent afterwards."""


class AsyncSpanExporter(Protocol):
    """Takes spans."""

    async def export(self, spans: Sequence[ReadableSpan], /) -> None:
        """Deliver `spans`, or raise TransportError or TransportRejected."""

    async def aclose(self) -> None:
        """Let go of everything; nothing is exported afterwards."""


class Attempt(NamedTuple):
    """What one try gave: the outcome if it is left at that, and whether a later one may do better."""

    outcome: Outcome
    why: str = ""
    may_pass: bool = False
    retry_after: float | None = None


class Sink:
    """An exporter that takes OTLP bytes."""

    takes_bytes = True
    concurrent = True

    def __init__(self, name: str, exporter: Any, timeout: float, notices: Notices) -> None:
        self.name = name
        self.exporter = exporter
        self.meter: ExporterMeter | None = None
        self._timeout = timeout
        self._notices = notices
        self._limits: set[asyncio.Timeout] = set()

    async def attempt(self, batch: Batch, lane: Lane) -> Outcome | None:
        """Hand over a batch of `lane`; gives what became of it, None when the lane was told already."""
        attempt = await self._try(self._send(batch), batch.count)
        if attempt.outcome.reason == CANCELLED:
            # `asyncio.run` cancels every task at its end, and with them those in which an exporter
            # looks up a name or connects. What is begun after that is left alone.
            attempt = await self._try(self._send(batch), batch.count)
        self._tell(attempt)
        return attempt.outcome

    async def _try(self, sending: Coroutine[Any, Any, int | None], count: int) -> Attempt:
        """Await `sending`, within the export timeout, and say what became of its `count` spans."""
        clock = asyncio.get_running_loop().time
        started = clock()
        status: int | None = None
        try:
            async with asyncio.timeout(self._timeout) as limit:
                self._limits.add(limit)
                try:
                    status = await sending
                finally:
                    self._limits.discard(limit)
            attempt = Attempt(Outcome(count))
        except TransportRejected as error:
            refused = max(0, min(count, error.rejected_spans))
            attempt = Attempt(Outcome(count - refused, refused, "rejected"), str(error))
        except TransportError as error:
            status = error.status_code
            passing = error.retryable or error.error_type == "timeout"
            attempt = Attempt(Outcome(0, count, error.error_type), str(error), passing, error.retry_after)
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) is None or task.cancelling():
                raise
            # Nobody cancelled us: something that the exporter waited for was, as when its channel closed.
            attempt = Attempt(Outcome(0, count, CANCELLED), "it cancelled itself", may_pass=True)
        except TimeoutError:
            why = f"no answer within {clock() - started:.3g} s"
            attempt = Attempt(Outcome(0, count, "timeout"), why, may_pass=True)
        except Exception as error:  # noqa: BLE001 - faults of an exporter end here, counted and told
            attempt = Attempt(Outcome(0, count, type(error).__name__), type(error).__name__)
        if self.meter is not None:
            reason = attempt.outcome.reason or None
            self.meter.finished(clock() - started, error_type=reason, status_code=status)
        return attempt

    def _tell(self, attempt: Attempt) -> None:
        outcome = attempt.outcome
        if outcome.dropped:
            self._notices.warn(
                f"{self.name}/{outcome.reason}",
                "%s: spans dropped: %s",
                self.name,
                attempt.why,
                count=outcome.dropped,
            )

    async def _send(self, batch: Batch) -> int | None:
        status: int | None = await self.exporter.send(batch.payload, batch.count)
        return status

    async def attend(self, lane: Lane) -> None:
        """Do what there is to do beside sending fresh batches, for as long as the loop runs."""

    def take_back(self, lane: Lane) -> None:
        """Whoever attends does so no more, though it may not have noticed: its loop has stopped."""

    def hurry(self) -> None:
        """The shutdown's time is nearly over."""

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
        """This is the child of a fork: let go of the parent's connections."""
        forget = getattr(self.exporter, "after_fork", None)
        if forget is not None:
            forget()


class SpanSink(Sink):
    """An asyncio exporter that takes spans, one export at a time."""

    takes_bytes = False
    concurrent = False

    async def _send(self, batch: Batch) -> None:
        await self.exporter.export(batch.spans)


async def close_sinks(sinks: Iterable[Sink], limit: float) -> None:
    """Close them all for good, at once, so that one that hangs keeps no other from it."""
    try:
        async with asyncio.timeout(limit), asyncio.TaskGroup() as group:
            for sink in sinks:
                group.create_task(_close(sink))
    except TimeoutError:
        logger.warning("exporters were not closed within %.1f s", limit)


async def _close(sink: Sink) -> None:
    try:
        await sink.aclose()
    except Exception:
        logger.warning("%s could not be closed", sink.name, exc_info=True)


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
