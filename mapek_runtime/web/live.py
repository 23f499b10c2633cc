"""Live events: what happens, sent to every page that listens, as server-sent events.

https://html.spec.whatwg.org/multipage/server-sent-events.html. Whoever publishes never waits, and while
nobody listens nothing is encoded. A page that cannot keep up loses the oldest and is told how many; one
that comes back is given what it has missed, as far as it is kept.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

from aiohttp import web

from .legible import json_for_page

__all__ = ["Listener", "LiveEvents", "TooManyListeners", "serve_events"]

QUEUE = 256
"""Events that wait for one page."""
KEPT = 1000
"""Events that are kept for pages that come back."""
MOST_LISTENERS = 32
KEEP_ALIVE = 15.0
"""Seconds of silence after which a comment is sent, so that nothing on the way gives the connection up."""
_GATHER = 0.03
"""Seconds for which events are gathered before they are written: nobody sees it, and a burst is one write."""
_STUCK = 30.0
"""Seconds in which a page takes nothing before its connection is given up."""
_REFILL = 100
_RETRY = b"retry: 2000\n\n"
_COMMENT = b": still here\n\n"
_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    # What nginx is told so that it does not gather a stream.
    "X-Accel-Buffering": "no",
}


class TooManyListeners(Exception):
    """Every place is taken."""


class _Message:
    """One event; written as bytes when the first listener is sent it, and once for all of them."""

    __slots__ = ("_bytes", "data", "id", "name")

    def __init__(self, name: str, event_id: str, data: Any) -> None:
        self.name = name
        self.id = event_id
        self.data = data
        self._bytes: bytes | None = None

    def encoded(self) -> bytes:
        if self._bytes is None:
            head = f"event: {self.name}\nid: {self.id}\ndata: ".encode()
            self._bytes = head + json_for_page(self.data) + b"\n\n"
            # Of the two forms one is enough.
            self.data = None
        return self._bytes


class Listener:
    """What waits for one page."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._events: deque[_Message] = deque()
        self._newest: dict[str, _Message] = {}
        self._wake = asyncio.Event()
        self.lost = 0
        """Events that were not sent, and of which the page was not yet told."""
        self.closed = False

    def put(self, message: _Message) -> None:
        """One more event; when too many wait, the oldest is lost."""
        if len(self._events) >= self._most:
            self._events.popleft()
            self.lost += 1
        self._events.append(message)
        self._wake.set()

    def replace(self, message: _Message) -> None:
        """A state, which takes the place of the one of that name that still waits."""
        self._newest[message.name] = message
        self._wake.set()

    def close(self) -> None:
        """End `wait` for good."""
        self.closed = True
        self._wake.set()

    async def wait(self) -> None:
        """Until there is something to take, or it is closed."""
        await self._wake.wait()

    def take(self) -> bytes:
        """Everything that waits, the loss first."""
        if not self.closed:
            self._wake.clear()
        pieces: list[bytes] = []
        if self.lost:
            pieces.append(_told(self.lost))
            self.lost = 0
        pieces += [message.encoded() for message in self._events]
        pieces += [message.encoded() for message in self._newest.values()]
        self._events.clear()
        self._newest.clear()
        return b"".join(pieces)


class LiveEvents:
    """Everything published, for everybody who listens. Only for the loop's own thread.

    `run` names this process: an id that another one gave is recognized. Ids number what is kept; a state
    carries the id of the last event before it.
    """

    def __init__(
        self, run: str, *, queue: int = QUEUE, kept: int = KEPT, most_listeners: int = MOST_LISTENERS
    ) -> None:
        self._run = run
        self._queue = queue
        self._most = most_listeners
        self._kept: deque[_Message] = deque(maxlen=kept)
        self._count = 0
        self._listeners: set[Listener] = set()
        self._somebody = asyncio.Event()
        self._closed = False

    @property
    def last_id(self) -> str:
        """The id of the newest event."""
        return f"{self._run}-{self._count}"

    @property
    def listeners(self) -> int:
        """How many pages listen."""
        return len(self._listeners)

    async def somebody(self) -> None:
        """Until somebody listens."""
        await self._somebody.wait()

    def publish(self, name: str, data: Any) -> None:
        """Something has happened. `data` must not change any more: it may be encoded much later."""
        self._count += 1
        message = _Message(name, self.last_id, data)
        self._kept.append(message)
        for listener in self._listeners:
            listener.put(message)

    def show(self, name: str, data: Any) -> None:
        """How something is now; only the newest counts, and nobody who listens later is told."""
        if self._listeners:
            message = _Message(name, self.last_id, data)
            for listener in self._listeners:
                listener.replace(message)

    @contextmanager
    def listening(self) -> Iterator[Listener]:
        """A place among the listeners; raises `TooManyListeners`."""
        if len(self._listeners) >= self._most:
            raise TooManyListeners
        listener = Listener(self._queue)
        if self._closed:
            listener.close()
        self._listeners.add(listener)
        self._somebody.set()
        try:
            yield listener
        finally:
            self._listeners.discard(listener)
            if not self._listeners:
                self._somebody.clear()

    def missed(self, last_id: str) -> tuple[int, list[_Message]]:
        """What came after `last_id`: how many are not kept any more, and those that are."""
        run, _, number = last_id.rpartition("-")
        known = run == self._run and number.isascii() and number.isdigit() and len(number) < 20
        # An id of an earlier process: of this one the page has seen nothing.
        after = min(int(number), self._count) if known else 0
        wanted = self._count - after
        have = min(wanted, len(self._kept))
        return wanted - have, list(islice(self._kept, len(self._kept) - have, None))

    def close(self) -> None:
        """End every stream, and every one that begins after this."""
        self._closed = True
        for listener in self._listeners:
            listener.close()


async def serve_events(
    request: web.Request, live: LiveEvents, *, keep_alive: float = KEEP_ALIVE
) -> web.StreamResponse:
    """Answer with the events from now on, or from the `Last-Event-ID` on, until the page goes away."""
    last_id = request.headers.get("Last-Event-ID") or request.query.get("last_event_id", "")
    try:
        with live.listening() as listener:
            # Before the first await, so that nothing falls between what is kept and what comes.
            lost, missed = live.missed(last_id) if last_id else (0, [])
            response = web.StreamResponse(headers=_HEADERS)
            await response.prepare(request)
            await _write(response, _RETRY + _told(lost) if lost else _RETRY)
            for first in range(0, len(missed), _REFILL):
                pieces = [message.encoded() for message in missed[first : first + _REFILL]]
                await _write(response, b"".join(pieces))
            while True:
                try:
                    async with asyncio.timeout(keep_alive):
                        await listener.wait()
                except TimeoutError:
                    await _write(response, _COMMENT)
                    continue
                if not listener.closed:
                    await asyncio.sleep(_GATHER)
                await _write(response, listener.take())
                if listener.closed:
                    return response
    except TooManyListeners:
        return web.json_response(
            {"error": "too many pages listen already; close one, or try again in a moment"},
            status=503,
            headers={"Retry-After": "5"},
        )
    except (ConnectionError, TimeoutError):
        # The page went away, or takes nothing: that is how most streams end.
        if request.transport is not None:
            request.transport.abort()
        return response


def _told(lost: int) -> bytes:
    # Without an id: what was lost is not to count as received.
    return b'event: lost\ndata: {"count":%d}\n\n' % lost


async def _write(response: web.StreamResponse, data: bytes) -> None:
    async with asyncio.timeout(_STUCK):
        await response.write(data)
