"""`POST /v1/traces`: OTLP over HTTP, from whoever sends spans to this store.

What a body means is the receiver's; here it is read within limits, handed on in a thread, and answered in
its own encoding (opentelemetry-proto, docs/specification.md#otlphttp). A request is answered when its spans
are in the store. Memory is promised before it is used: where too much is in use already, or the store does
not answer, the sender is told to come again.

The server must leave bodies packed (`auto_decompress=False` of aiohttp's runner): aiohttp would unpack them
on the loop, and without our limit.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol

import msgspec
from aiohttp import web
from aiohttp.web_app import Application
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from mapek_runtime.errors import StoreError, TransportError, TransportRejected
from mapek_runtime.export.notice import Notices
from mapek_runtime.store.receiver import JSON, MAX_BYTES, Received, Refused, media_type, receive

__all__ = ["Receiver", "ReceiverStatistics", "SpanStore"]

logger = logging.getLogger(__name__)

MAX_PACKED: Final = 16 << 20
MEMORY: Final = 128 << 20
_LEAST: Final = 4096
"""What a request takes at least, however small its body is."""
_PARSERS: Final = 2
"""Requests that are parsed at once: a small one is not to wait for one large one."""
_PATIENCE: Final = 8.0
"""Seconds for the store: senders give up after 10."""
_RETRY_AFTER: Final = 2
# The codes of google.rpc.Code.
_INVALID, _EXHAUSTED, _UNAVAILABLE = 3, 8, 14


class SpanStore(Protocol):
    """Where received spans go: `TraceStore`, or any exporter of bytes."""

    async def send(self, payload: bytes, count: int, /) -> int | None:
        """Keep `count` spans, and return when they are kept."""


@dataclass(slots=True)
class ReceiverStatistics:
    """What was received since the start; whoever reads it makes metrics of it."""

    requests: int = 0
    accepted: int = 0
    """Spans that are in the store."""
    rejected: Counter[str] = field(default_factory=Counter)
    """Spans by what was wrong with them."""
    refused: Counter[int] = field(default_factory=Counter)
    """Requests by the status of the answer."""
    bytes: int = 0
    """Of bodies, as they came."""
    held_bytes: int = 0
    """Memory of requests that are not answered yet."""


class Receiver:
    """Takes requests for `store`: bodies of at most `max_packed` bytes, `max_bytes` when unpacked.

    All requests together take at most about `memory` bytes; unset: 128 MiB, or more where one needs more.
    """

    def __init__(
        self,
        store: SpanStore,
        *,
        max_packed: int = MAX_PACKED,
        max_bytes: int = MAX_BYTES,
        memory: int | None = None,
        patience: float = _PATIENCE,
    ) -> None:
        if memory is None:
            memory = max(MEMORY, max_bytes + max_packed)
        if memory < max_bytes + max_packed:
            raise ValueError(
                f"memory is {memory!r}; it must hold one request: max_packed and max_bytes, "
                f"{max_packed + max_bytes} bytes together"
            )
        self.statistics = ReceiverStatistics()
        self._store = store
        self._max_packed = max_packed
        self._max_bytes = max_bytes
        self._memory = memory
        self._patience = patience
        self._lock = threading.Lock()
        self._parsers = asyncio.Semaphore(_PARSERS)
        self._notices = Notices(logger)

    def add_to(self, app: Application) -> None:
        """Serve `POST /v1/traces` there."""
        app.router.add_post("/v1/traces", self.handle)

    async def handle(self, request: web.Request) -> web.Response:
        """Answer one request."""
        self.statistics.requests += 1
        kind = JSON
        try:
            kind = media_type(request.headers.get("Content-Type", ""))
            with self._held() as held:
                received = await self._received(request, held)
                rejected, message = await self._kept(received)
        except Refused as refused:
            return self._refuse(kind, refused)
        return _response(kind, 200, _success(kind, rejected, message))

    async def _received(self, request: web.Request, held: _Held) -> Received:
        body = await self._body(request, held)
        self.statistics.bytes += len(body)
        work = partial(
            receive,
            body,
            request.headers.get("Content-Type", ""),
            request.headers.get("Content-Encoding", ""),
            max_bytes=self._max_bytes,
            grow=held.grow,
        )
        del body
        async with self._parsers:
            received = await asyncio.to_thread(work)
        self.statistics.rejected.update(received.reasons)
        return received

    async def _body(self, request: web.Request, held: _Held) -> bytes:
        if (request.content_length or 0) > self._max_packed:
            raise self._too_large()
        chunks = []
        size = 0
        try:
            async for chunk in request.content.iter_any():
                size += len(chunk)
                if size > self._max_packed:
                    raise self._too_large()
                held.grow(len(chunk))
                chunks.append(chunk)
        except web.RequestPayloadError as error:
            raise Refused(400, _INVALID, f"the body cannot be read: {error}") from None
        return b"".join(chunks)

    def _too_large(self) -> Refused:
        return Refused(
            413, _EXHAUSTED, f"the body is larger than {self._max_packed} bytes; send fewer spans at once"
        )

    async def _kept(self, received: Received) -> tuple[int, str]:
        """Store the spans; give how many were not taken after all, and what to say of them."""
        rejected, message = received.rejected, received.message
        accepted = received.accepted
        if accepted:
            try:
                async with asyncio.timeout(self._patience):
                    await self._store.send(received.payload, accepted)
            except TransportRejected as error:
                accepted -= error.rejected_spans
                rejected += error.rejected_spans
                message = "; ".join(filter(None, (message, str(error))))
                self.statistics.rejected["store"] += error.rejected_spans
            except (TransportError, StoreError, TimeoutError) as error:
                # The sender learns that it is to come again; why, only whoever runs this process.
                self._notices.warn(
                    "store", "received spans could not be stored: %s", str(error) or "no answer"
                )
                raise Refused(
                    503, _UNAVAILABLE, "the store does not take spans now", retry_after=_RETRY_AFTER
                ) from None
        self.statistics.accepted += accepted
        return rejected, message

    def _refuse(self, kind: str, refused: Refused) -> web.Response:
        self.statistics.refused[refused.status] += 1
        status = Status(code=refused.code, message=refused.message)
        if kind == JSON:
            body = msgspec.json.encode({"code": status.code, "message": status.message})
        else:
            body = status.SerializeToString()
        response = _response(kind, refused.status, body)
        if refused.retry_after is not None:
            response.headers["Retry-After"] = str(refused.retry_after)
        return response

    @contextmanager
    def _held(self) -> Iterator[_Held]:
        held = _Held(self)
        try:
            held.grow(_LEAST)
            yield held
        finally:
            self.hold(-held.size)

    def hold(self, size: int) -> None:
        """Take memory, or give it back; raises `Refused` when there is not that much."""
        with self._lock:
            if size > 0 and self.statistics.held_bytes + size > self._memory:
                raise Refused(
                    503,
                    _UNAVAILABLE,
                    "too many requests are being read at once",
                    retry_after=_RETRY_AFTER,
                )
            self.statistics.held_bytes += size


class _Held:
    """The memory of one request."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self.size = 0

    def grow(self, size: int) -> None:
        self._receiver.hold(size)
        self.size += size


def _success(kind: str, rejected: int, message: str) -> bytes:
    """An ExportTraceServiceResponse; partial success also carries warnings, with nothing rejected."""
    if kind == JSON:
        if not rejected and not message:
            return b"{}"
        partial_success = {"rejectedSpans": str(rejected), "errorMessage": message}
        return msgspec.json.encode({"partialSuccess": partial_success})
    answer = ExportTraceServiceResponse()
    if rejected or message:
        answer.partial_success.rejected_spans = rejected
        answer.partial_success.error_message = message
    return answer.SerializeToString()


def _response(kind: str, status: int, body: bytes) -> web.Response:
    return web.Response(status=status, body=body, headers={"Content-Type": kind})
