"""Collectors that take no span, each in its own way, and a heartbeat beside them."""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager

from tests.integration.collector import answer

__all__ = ["STUBBORN", "Heartbeat", "heartbeat"]

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Heartbeat:
    """How long the loop kept a task waiting at worst, in seconds."""

    worst = 0.0


@asynccontextmanager
async def heartbeat() -> AsyncIterator[Heartbeat]:
    beat = Heartbeat()

    async def run() -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.01)
            beat.worst = max(beat.worst, time.monotonic() - before - 0.01)

    task = asyncio.create_task(run())
    try:
        yield beat
    finally:
        task.cancel()


@asynccontextmanager
async def refusing() -> AsyncIterator[str]:
    """Nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{free.getsockname()[1]}/v1/traces"


@asynccontextmanager
async def black_hole() -> AsyncIterator[str]:
    """The kernel accepts, and nobody ever reads or answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/v1/traces"


@asynccontextmanager
async def deaf() -> AsyncIterator[str]:
    """Not even a connection comes about: the queue of the listening socket is full."""
    with ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        while True:
            caller = stack.enter_context(socket.socket())
            caller.setblocking(False)
            assert caller.connect_ex(server.getsockname()) == errno.EINPROGRESS
            await asyncio.sleep(0.02)
            try:
                caller.getpeername()
            except OSError:
                break
        yield f"http://127.0.0.1:{server.getsockname()[1]}/v1/traces"


@asynccontextmanager
async def serving(serve: Serve, scheme: str = "http") -> AsyncIterator[str]:
    tasks: set[asyncio.Task[None]] = set()

    async def guarded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(guarded, "127.0.0.1", 0)
    try:
        yield f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/traces"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def overloaded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """503, for ever."""
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        await reader.readexactly(int(lengths[0].partition(b":")[2]))
        writer.write(answer(503))


async def drip(writer: asyncio.StreamWriter, start: bytes) -> None:
    writer.write(start)
    while True:
        await asyncio.sleep(0.02)
        writer.write(b"x")
        await writer.drain()


async def dripping_head(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A head of the answer that never ends."""
    await drip(writer, b"HTTP/1.1 200 OK\r\nX-Long: ")


async def dripping_body(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A body of the answer that never ends."""
    await drip(writer, b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")


async def silent(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    """No word: with TLS, a handshake that never ends."""
    await asyncio.Event().wait()


STUBBORN: dict[str, Callable[[], AbstractAsyncContextManager[str]]] = {
    "refused": refusing,
    "black hole": black_hole,
    "no connection": deaf,
    "503 for ever": lambda: serving(overloaded),
    "slow head": lambda: serving(dripping_head),
    "slow body": lambda: serving(dripping_body),
    "TLS stall": lambda: serving(silent, "https"),
}
