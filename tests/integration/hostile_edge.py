"""Everything that takes input, over a real store, and somebody who means harm.

Beside each attack the loop's heart beats: how late it was at the worst is what others would have felt.
"""

from __future__ import annotations

import asyncio
import io
import logging
import sqlite3
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import aiohttp
from yarl import URL

from mapek_runtime.store import TraceStore
from mapek_runtime.web import Part, WebServer
from mapek_runtime.web.jaeger_v1 import add_jaeger_v1
from mapek_runtime.web.jaeger_v3 import add_jaeger_v3
from mapek_runtime.web.openapi import add_openapi
from mapek_runtime.web.otlp import Receiver
from mapek_runtime.web.page import add_page
from mapek_runtime.web.tempo import add_tempo

from .page_edge import SENDS, Nowhere
from .stored_traces import Answer, fill

__all__ = ["LATEST", "Victim", "integrity", "victim"]

LATEST = 1.0
"""Seconds that the loop may be late before it counts as held. No measurement: on a machine that others use
as well a loop is late by some tens of milliseconds for nothing; what is looked for holds it for seconds."""
_BEAT = 0.002


class Victim:
    """A server that is attacked."""

    def __init__(self, server: WebServer, store: TraceStore, client: aiohttp.ClientSession) -> None:
        self.server = server
        self.store = store
        self.client = client
        self.latest = 0.0
        """The longest that the loop was held, in seconds."""

    async def get(
        self,
        path: str,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Ask for `path`: as it is written, or with a query that is encoded."""
        url = URL(self.server.address + path, encoded=query is None)
        async with self.client.get(url, params=query, headers=headers) as reply:
            return Answer(reply.status, reply.headers, await reply.read())

    async def post(self, path: str, body: bytes, **headers: str) -> Answer:
        """Send a body; `Content_Type` is `Content-Type`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()} | SENDS
        named.setdefault("Content-Type", "application/json")
        async with self.client.post(
            self.server.address + path, data=io.BytesIO(body), headers=named
        ) as reply:
            return Answer(reply.status, reply.headers, await reply.read())

    async def beat(self) -> None:
        """Notice how late the loop comes."""
        while True:
            due = time.perf_counter() + _BEAT
            await asyncio.sleep(_BEAT)
            self.latest = max(self.latest, time.perf_counter() - due)


@asynccontextmanager
async def victim(path: Path, *, filled: bool = True, max_age: float = 604_800.0) -> AsyncIterator[Victim]:
    """Serve all parts over a store in the folder `path`.

    At the end: no fault of ours was logged, the loop was never held, and the file is whole.
    """
    faults = _Faults()
    logging.getLogger().addHandler(faults)
    file = path / "traces.sqlite"
    try:
        async with TraceStore(file, max_age=max_age) as store:
            if filled:
                await fill(store)
            nowhere = Nowhere()
            parts: list[Part] = [
                partial(add_page, source=nowhere, controls=nowhere, store=store, flush=_nothing),
                *(partial(add, store=store) for add in (add_jaeger_v1, add_jaeger_v3, add_tempo)),
                Receiver(store).add_to,
                add_openapi,
            ]
            async with (
                WebServer(
                    "127.0.0.1:0", metrics=_metrics, health=lambda: {"status": "ok"}, parts=parts
                ) as server,
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(60)) as client,
                asyncio.TaskGroup() as tasks,
            ):
                attacked = Victim(server, store, client)
                heart = tasks.create_task(attacked.beat())
                yield attacked
                assert (await attacked.get("/page/services")).status == 200
                heart.cancel()
    finally:
        logging.getLogger().removeHandler(faults)
    assert faults.records == []
    assert attacked.latest < LATEST
    assert await asyncio.to_thread(integrity, file) == "ok"


def integrity(file: Path) -> str:
    """What SQLite says of the file."""
    connection = sqlite3.connect(file)
    try:
        (answer,) = connection.execute("PRAGMA integrity_check").fetchone()
    finally:
        connection.close()
    return str(answer)


class _Faults(logging.Handler):
    """Keeps what was logged as an error, or with an exception."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR or record.exc_info:
            self.records.append(f"{record.name}: {record.getMessage()}: {record.exc_info}")


async def _nothing() -> None:
    """There is nothing to flush."""


def _metrics(_accept: str) -> tuple[bytes, str]:
    return b"", "text/plain"
