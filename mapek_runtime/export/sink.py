"""A sink: how one exporter is called, whatever its kind, and the way it fails.

An exporter of this package is asyncio code with `async send(payload, count)`, which takes OTLP
bytes, or `async export(spans)`; and `async aclose()`. Any synchronous exporter of the SDK works too,
in one worker thread. Whatever an exporter does, `attempt` ends within the export timeout with an
`Outcome`, and never raises.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY as SUPPRESS
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter

from mapek_runtime.errors import TransportError, TransportRejected

from .account import Outcome
from .notice import Notices
from .outbox import Batch

__all__ = [
    "AsyncSpanExporter",
    "ByteExporter",
    "Exporter",
    "SUPPRESS",
    "Sink",
    "SpanSink",
    "require_asyncio",
]


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
        self._timeout = timeout
        self._notices = notices

    async def attempt(self, batch: Batch) -> Outcome:
        """Hand the batch over; gives what became of it."""
        return await self._judged(self._send(batch), batch.count)

    async def _judged(self, sending: Any, count: int) -> Outcome:
        """Await `sending`, within the export timeout, and say what became of its `count` spans."""
        try:
            async with asyncio.timeout(self._timeout):
                await sending
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
