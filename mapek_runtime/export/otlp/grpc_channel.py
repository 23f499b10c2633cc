"""Channels: the three ways in which one request goes out over gRPC, and what a fork does to all of them.

`LoopChannel` is grpc.aio. `ThreadChannel` starts its calls in a thread, because gRPC compresses a message
where the call is started: on the loop, 2 MB held it up for 50 ms; from a thread gRPC lets go of the
interpreter meanwhile (measured). gRPC compresses at zlib's default level, 6, and lets nobody choose.
`InPlaceChannel` waits in place, for the last moments of a program, when no thread can be started any more;
grpc.aio needs one. Knows no OTLP but the name of its method.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import grpc  # type: ignore[import-untyped]
import grpc.aio  # type: ignore[import-untyped]

from mapek_runtime.errors import TransportError
from mapek_runtime.export.drain import DrainLoop
from mapek_runtime.trace.forks import follow_forks

from .grpc_status import CallFailed

__all__ = [
    "METHOD",
    "Channel",
    "Dial",
    "InPlaceChannel",
    "LoopChannel",
    "ThreadChannel",
    "forked",
    "open_channel",
]

METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"

IN_PLACE_BUDGET = 5.0
"""Seconds for all calls that wait in place: no timer of the loop can interrupt one. It is what a shutdown
at the end of a program has."""
SETTLE = 0.05
"""Seconds for the calls that were cut short to report, before their loop may be closed."""

FORKED = (
    "gRPC was used in this process before it was forked, and its threads and locks do not survive that; "
    "open no exporter's channel before the fork (export only in the children), or send with http/protobuf"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dial:
    """Everything that opens a channel: the target, how it is secured, and what each call carries."""

    address: str
    credentials: Callable[[], Any] | None
    """Makes gRPC's credentials when a channel is opened; None for an insecure one."""
    options: Sequence[tuple[str, Any]]
    metadata: tuple[tuple[str, str | bytes], ...]
    gzip: bool

    def open(self, room: Any) -> Any:
        """A channel made by `room`: the module `grpc` or `grpc.aio`."""
        given = {
            "options": tuple(self.options),
            "compression": grpc.Compression.Gzip if self.gzip else grpc.Compression.NoCompression,
        }
        if self.credentials is None:
            return room.insecure_channel(self.address, **given)
        return room.secure_channel(self.address, self.credentials(), **given)


class Channel(Protocol):
    """Carries requests to one target."""

    async def call(self, payload: bytes, timeout: float | None) -> bytes:
        """The answer to a request, or CallFailed."""

    async def close(self) -> None:
        """Cut the connections; calls on their way fail."""


def open_channel(dial: Dial) -> Channel:
    """A channel for the running loop; raises TransportError where a fork has left gRPC unusable."""
    if _core.forked:
        raise TransportError(FORKED, error_type="fork")
    in_place = isinstance(asyncio.get_running_loop(), DrainLoop)
    channel: Channel
    if in_place and not _can_start_threads():
        channel = InPlaceChannel(dial)
    elif dial.gzip and not in_place:
        channel = ThreadChannel(dial)
    else:
        channel = LoopChannel(dial)
    _core.watch(channel)
    return channel


def forked() -> bool:
    """Whether this is the child of a process that had used gRPC."""
    return _core.forked


class LoopChannel:
    """grpc.aio, on the loop in which it is made."""

    def __init__(self, dial: Dial) -> None:
        self._metadata = dial.metadata
        self._channel = dial.open(grpc.aio)
        self._export = self._channel.unary_unary(METHOD)
        self._begun = self._ended = 0

    async def call(self, payload: bytes, timeout: float | None) -> bytes:
        """The answer to a request, or CallFailed."""
        self._begun += 1
        try:
            answer: bytes = await self._export(payload, timeout=timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            self._ended += 1
            raise _failed(error) from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and not task.cancelling():
                # grpc.aio says so when the channel was closed under the call: nobody cancelled us.
                raise CallFailed("CANCELLED", 1, "the channel was closed") from None
            raise
        self._ended += 1
        return answer

    async def close(self) -> None:
        """Cut the connections; calls on their way fail."""
        await self._channel.close()
        if self._begun > self._ended:
            # A call that was cut short still reports to its loop, through the thread of grpc.aio. Were the
            # loop closed by then, the next one would log an error about it; gRPC tells nobody when it is.
            await asyncio.sleep(SETTLE)


class ThreadChannel:
    """gRPC's synchronous channel, its calls started in the loop's executor and awaited on the loop."""

    def __init__(self, dial: Dial) -> None:
        self._metadata = dial.metadata
        self._channel = dial.open(grpc)
        self._export = self._channel.unary_unary(METHOD)

    async def call(self, payload: bytes, timeout: float | None) -> bytes:
        """The answer to a request, or CallFailed."""
        call = _ThreadCall(asyncio.get_running_loop())
        try:
            await asyncio.to_thread(call.start, self._export, payload, timeout, self._metadata)
            await call.done
        except asyncio.CancelledError:
            call.cancel()
            raise
        except ValueError:
            raise CallFailed("CANCELLED", 1, "the channel was closed") from None
        return call.answer()

    async def close(self) -> None:
        """Cut the connections; calls on their way fail."""
        self._channel.close()


class _ThreadCall:
    """One call that a thread starts, and that may be cancelled before it has."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.done: asyncio.Future[None] = loop.create_future()
        self._loop = loop
        self._lock = threading.Lock()
        self._unwanted = False
        self._rpc: Any = None

    def start(self, export: Any, payload: bytes, timeout: float | None, metadata: Any) -> None:
        rpc = export.future(payload, timeout=timeout, metadata=metadata)
        with self._lock:
            self._rpc = rpc
            unwanted = self._unwanted
        if unwanted:
            rpc.cancel()
        else:
            rpc.add_done_callback(self._tell)

    def cancel(self) -> None:
        with self._lock:
            self._unwanted = True
            rpc = self._rpc
        if rpc is not None:
            rpc.cancel()

    def answer(self) -> bytes:
        try:
            answer: bytes = self._rpc.result()
        except grpc.FutureCancelledError:
            raise CallFailed("CANCELLED", 1, "the channel was closed") from None
        except grpc.RpcError as error:
            raise _failed(error) from None
        return answer

    def _tell(self, _rpc: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed, and nobody waits any more
            self._loop.call_soon_threadsafe(self._resolve)

    def _resolve(self) -> None:
        if not self.done.done():
            self.done.set_result(None)


class InPlaceChannel:
    """gRPC's synchronous channel, waiting in place; one call after the other, within a budget for all."""

    def __init__(self, dial: Dial) -> None:
        self._metadata = dial.metadata
        self._channel = dial.open(grpc)
        self._export = self._channel.unary_unary(METHOD)
        self._left = IN_PLACE_BUDGET

    async def call(self, payload: bytes, timeout: float | None) -> bytes:
        """The answer to a request, or CallFailed."""
        # Whatever came due during the call before this one has its say first.
        await asyncio.sleep(0)
        limit = self._left if timeout is None else min(timeout, self._left)
        if limit <= 0:
            raise CallFailed("DEADLINE_EXCEEDED", 4, "no time is left at the end of the program")
        start = time.monotonic()
        try:
            answer: bytes = self._export(payload, timeout=limit, metadata=self._metadata)
        except grpc.RpcError as error:
            raise _failed(error) from None
        finally:
            self._left -= time.monotonic() - start
        return answer

    async def close(self) -> None:
        """Cut the connections."""
        self._channel.close()


class _Core:
    """What this process has done with gRPC's core, which no process survives that forks."""

    def __init__(self) -> None:
        self.forked = False
        self._used = False
        self._live: weakref.WeakSet[Channel] = weakref.WeakSet()
        follow_forks(self._after_fork)

    def watch(self, channel: Channel) -> None:
        self._used = True
        self._live.add(channel)

    def _after_fork(self) -> None:
        self.forked = self.forked or self._used
        for channel in self._live:
            # Kept for good, even from the interpreter's last cleaning: to let go of one would wait for
            # threads that this process does not have.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(channel))


_core = _Core()


def _can_start_threads() -> bool:
    """Whether the program is not yet at its end; asked first, because grpc.aio corrupts memory without."""
    try:
        threading.Thread(target=_nothing, daemon=True).start()
    except RuntimeError:
        return False
    return True


def _nothing() -> None:
    """Return at once."""


def _failed(error: Any) -> CallFailed:
    code = error.code()
    return CallFailed(code.name, code.value[0], error.details() or "", error.trailing_metadata() or ())
