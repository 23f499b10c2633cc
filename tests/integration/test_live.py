"""Live events over real connections: quick for who reads, bounded for who does not."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.web_app import Application

from mapek_runtime.web.live import LiveEvents, serve_events


class Served:
    """Live events and where they can be heard."""

    def __init__(self, live: LiveEvents, runner: web.AppRunner) -> None:
        self.live = live
        self.port = int(runner.addresses[0][1])
        self.url = f"http://127.0.0.1:{self.port}/live"


@asynccontextmanager
async def served(live: LiveEvents, **more: Any) -> AsyncIterator[Served]:
    async def handler(request: web.Request) -> web.StreamResponse:
        return await serve_events(request, live, **more)

    async def close(_app: Application) -> None:
        live.close()

    app = Application()
    app.router.add_get("/live", handler, allow_head=False)
    app.on_shutdown.append(close)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=5.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield Served(live, runner)
    finally:
        await runner.cleanup()


class Reader:
    """Reads the events of one answer."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response
        self.comments = 0

    async def next(self) -> tuple[str, str, Any]:
        """(event, id, data) of the next event."""
        fields: dict[str, str] = {}
        while True:
            line = (await self.response.content.readline()).decode()
            if not line:
                raise EOFError
            if line.startswith(":"):
                self.comments += 1
            elif line != "\n":
                key, _, value = line.rstrip("\n").partition(": ")
                fields[key] = value
            elif "event" in fields:
                return fields["event"], fields.get("id", ""), json.loads(fields["data"])
            else:
                fields = {}

    async def numbers(self, count: int) -> list[int]:
        return [(await self.next())[2]["n"] for _ in range(count)]


async def listened(live: LiveEvents, count: int) -> None:
    async with asyncio.timeout(10):
        while live.listeners != count:  # noqa: ASYNC110 - it says nothing when that happens
            await asyncio.sleep(0.005)


async def test_events_arrive_in_order_and_no_cache_keeps_them() -> None:
    live = LiveEvents("r")
    async with served(live) as at, aiohttp.ClientSession() as session, session.get(at.url) as response:
        await listened(live, 1)
        for n in range(100):
            live.publish("event", {"n": n})

        assert await Reader(response).numbers(100) == list(range(100))
        assert response.content_type == "text/event-stream"
        assert response.headers["Cache-Control"] == "no-store"


async def test_who_comes_back_gets_what_was_missed_before_what_is_new() -> None:
    live = LiveEvents("r", kept=500)
    async with served(live) as at, aiohttp.ClientSession() as session:
        for n in range(1, 601):
            live.publish("event", {"n": n})
        async with session.get(at.url, headers={"Last-Event-ID": "r-250"}) as response:
            reader = Reader(response)
            await listened(live, 1)
            live.publish("event", {"n": 601})
            assert await reader.numbers(351) == list(range(251, 602))
        async with session.get(at.url, params={"last_event_id": "r-11"}) as response:
            reader = Reader(response)
            assert await reader.next() == ("lost", "", {"count": 90})
            assert await reader.numbers(500) == list(range(102, 602))


async def test_silence_is_filled_with_comments() -> None:
    live = LiveEvents("r")
    async with (
        served(live, keep_alive=0.02) as at,
        aiohttp.ClientSession() as session,
        session.get(at.url) as response,
    ):
        reader = Reader(response)
        waiting = asyncio.create_task(reader.next())
        async with asyncio.timeout(10):
            while reader.comments < 3:  # noqa: ASYNC110 - the same
                await asyncio.sleep(0.01)
        live.publish("event", {"n": 1})

        assert (await waiting)[2] == {"n": 1}


async def test_one_page_too_many_is_told_so_and_a_page_that_left_makes_room() -> None:
    live = LiveEvents("r", most_listeners=3)
    async with served(live, keep_alive=0.05) as at, aiohttp.ClientSession() as session:
        async with AsyncExitStack() as pages:
            for _ in range(3):
                await pages.enter_async_context(session.get(at.url))
            await listened(live, 3)
            async with session.get(at.url) as refused:
                assert refused.status == 503
                assert refused.headers["Retry-After"] == "5"
                assert "too many pages" in (await refused.json())["error"]
        # Found out by the next write, of an event or of a comment.
        await listened(live, 0)


async def test_a_page_that_does_not_read_loses_and_is_told_and_the_others_do_not_wait() -> None:
    live = LiveEvents("r", queue=64)
    padding = "x" * 16_384
    async with served(live) as at, aiohttp.ClientSession() as session, session.get(at.url) as quick:
        # A window as small as the system has, so that it is soon full.
        deaf = socket.socket()
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(deaf, ("127.0.0.1", at.port))
        await loop.sock_sendall(deaf, b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n")
        try:
            await listened(live, 2)
            reader = Reader(quick)
            for n in range(960):
                live.publish("event", {"n": n, "padding": padding})
                if n % 32 == 31:
                    assert await reader.numbers(32) == list(range(n - 31, n + 1))
            text = b""
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            async with asyncio.timeout(20):
                while b"event: lost" not in text or not text.endswith(b"\n\n\r\n"):
                    text += await loop.sock_recv(deaf, 65536)
        finally:
            deaf.close()

    count = int(text.split(b'event: lost\ndata: {"count":')[1].split(b"}")[0])
    assert 0 < count < 960


async def test_closing_the_server_ends_every_stream_at_once() -> None:
    live = LiveEvents("r")
    async with aiohttp.ClientSession() as session:
        async with served(live) as at:
            response = await session.get(at.url)
            await listened(live, 1)
            live.publish("event", {"n": 1})
            began = time.monotonic()
        seconds = time.monotonic() - began
        reader = Reader(response)

        assert await reader.numbers(1) == [1]
        with pytest.raises(EOFError):
            await reader.next()
    # The server gives what is under way five seconds.
    assert seconds < 4.0


async def test_twenty_pages_get_a_hundred_events_a_second_without_a_loss() -> None:
    live = LiveEvents("r")
    async with served(live) as at, aiohttp.ClientSession() as session, AsyncExitStack() as pages:
        readers = [Reader(await pages.enter_async_context(session.get(at.url))) for _ in range(20)]
        await listened(live, 20)
        reading = [asyncio.create_task(reader.numbers(100)) for reader in readers]
        for n in range(100):
            live.publish("event", {"n": n})
            await asyncio.sleep(0.01)

        for task in reading:
            assert await task == list(range(100))
