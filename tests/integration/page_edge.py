"""A page over a store and a run of which nothing is known, and somebody who asks it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.web_app import Application

from mapek_runtime.store import TraceStore
from mapek_runtime.web.live import LiveEvents
from mapek_runtime.web.page import add_page
from mapek_runtime.web.state import ControlRefused, Offered, State

__all__ = ["SENDS", "Page", "page"]

SENDS = {"X-Mapek": "1"}


class Nowhere:
    """A run of which nothing is known, and buttons that note what they were asked."""

    def __init__(self) -> None:
        self.live = LiveEvents("r")
        self.asked: list[tuple[object, ...]] = []

    async def state(self) -> State:
        raise NotImplementedError

    def offered(self) -> Offered:
        return Offered(faults=True, halt=True)

    async def inject(self, kind: str, target: str, seconds: float | None) -> int:
        self.asked.append(("inject", kind, target, seconds))
        return 7

    async def clear(self, number: int) -> None:
        raise ControlRefused(f"no fault has the number {number}", status=404)

    async def halt(self, reason: str) -> None:
        self.asked.append(("halt", reason))

    async def resume(self) -> None:
        raise ControlRefused("the loops are not halted")


class Page:
    """A page over a store, and somebody who asks it."""

    def __init__(self, url: str, session: aiohttp.ClientSession, nowhere: Nowhere) -> None:
        self.url = url
        self.session = session
        self.nowhere = nowhere
        self.flushes = 0
        self.waiting: list[bytes] = []
        """What the next flush stores."""

    async def get(self, path: str, **query: str) -> tuple[int, Any]:
        async with self.session.get(self.url + path, params=query) as response:
            assert response.content_type == "application/json"
            return response.status, await response.json()

    async def post(
        self, path: str, body: bytes, headers: Mapping[str, str] = SENDS
    ) -> tuple[int, Mapping[str, Any]]:
        async with self.session.post(self.url + path, data=body, headers=headers) as response:
            return response.status, await response.json()


@asynccontextmanager
async def page(store: TraceStore | None) -> AsyncIterator[Page]:
    nowhere = Nowhere()
    app = Application()

    async def flush() -> None:
        shown.flushes += 1
        assert store is not None
        while shown.waiting:
            await store.send(shown.waiting.pop(0), 1)

    add_page(app, source=nowhere, controls=nowhere, store=store, flush=flush)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    async with aiohttp.ClientSession() as session:
        shown = Page("", session, nowhere)
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            shown.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            yield shown
        finally:
            await runner.cleanup()
