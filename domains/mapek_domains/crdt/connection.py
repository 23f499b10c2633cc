"""One WebSocket on which Yjs' protocol is spoken, whichever end has opened it.

A frame begins with the kind of message: 0 is synchronisation (y-protocols, `sync.js`); awareness, who looks
at what, means nothing here: whoever tells or asks hears that nobody does, because y-websocket gives a server
up that says nothing for 30 s. Both ends send their state first and answer the other's with what it lacks.
Updates wait in a queue of bounded size; a reader that is too slow loses the queue, and gets in one update
what it has not got by its state.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque

from aiohttp import ClientWebSocketResponse, WSCloseCode, WSMsgType, web
from opentelemetry.context.context import Context

from .messages import YSyncMessageType, read_sync, step1, step2, update_message
from .replica import Replica
from .update import Refused

__all__ = ["Socket", "Stream"]

logger = logging.getLogger(__name__)

_SYNC = 0
_AWARENESS, _WHO_IS_THERE = 1, 3
_NOBODY = b"\x01\x01\x00"
"""Awareness of no clients; it is not answered, or two servers would go on for ever."""
_MOST_WAITING = 1 << 20
_PATIENCE = 32
"""Frames of one connection that may be refused."""

Stream = ClientWebSocketResponse | web.WebSocketResponse


class Socket:
    """A connection between a replica and `peer`; run it, and it ends when the connection does."""

    def __init__(self, replica: Replica, stream: Stream, *, peer: str) -> None:
        self.peer = peer
        self.counts: Counter[str] = Counter()
        self.is_lagging = False
        """Whether the queue was lost, and the other end is to get what it lacks at once."""
        self._replica = replica
        self._document = replica.document
        self._stream = stream
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._something = asyncio.Event()
        self._has = b"\x00"
        self._task: asyncio.Task[None] | None = None

    def relay(self, update: bytes, via: object) -> int:
        """Send an update, unless it came from here; returns to how many: 1 or 0."""
        if via is self:
            return 0
        self._push(update_message(update))
        return 1

    def cut(self) -> None:
        """End the connection now."""
        if self._task is not None:
            self._task.cancel()

    async def run(self) -> None:
        """Speak until the other end closes, or `cut`. Run it in a context without a span."""
        self._task = asyncio.current_task()
        self._push(step1(self._document.state()))
        self._replica.relays.append(self)
        try:
            async with asyncio.TaskGroup() as group:
                pump = group.create_task(self._pump(), name=f"crdt to {self.peer}")
                await self._listen()
                pump.cancel()
        finally:
            self._replica.relays.remove(self)

    # Inside

    def _push(self, message: bytes) -> None:
        if self.is_lagging:
            return
        if self._waiting_bytes + len(message) > _MOST_WAITING:
            self.counts["overflows"] += 1
            self.is_lagging = True
            self._waiting.clear()
            self._waiting_bytes = 0
        else:
            self._waiting.append(message)
            self._waiting_bytes += len(message)
        self._something.set()

    async def _pump(self) -> None:
        while True:
            await self._something.wait()
            while self.is_lagging or self._waiting:
                if self.is_lagging:
                    self.is_lagging = False
                    message = update_message(self._document.missing(self._has))
                else:
                    message = self._waiting.popleft()
                    self._waiting_bytes -= len(message)
                try:
                    await self._stream.send_bytes(message)
                except (ConnectionError, RuntimeError):
                    # It is closed, which whoever listens hears as well.
                    return
                self.counts["sent"] += 1
            self._something.clear()
            # Whatever is here now was sent, or it would wait.
            self._has = self._document.state()

    async def _listen(self) -> None:
        refused = 0
        while True:
            message = await self._stream.receive()
            if message.type is not WSMsgType.BINARY:
                if message.type is WSMsgType.TEXT:
                    await self._stream.close(code=WSCloseCode.UNSUPPORTED_DATA, message=b"bytes, please")
                return
            assert isinstance(message.data, bytes)
            self.counts["received"] += 1
            try:
                self._received(message.data)
            except Exception as error:
                reason = error.reason if isinstance(error, Refused) else "failed"
                self.counts[f"refused.{reason}"] += 1
                refused += 1
                if reason == "failed":
                    logger.exception("a message from %s could not be handled", self.peer)
                if refused > _PATIENCE:
                    logger.warning(
                        "the connection with %s is closed: too much of it cannot be taken", self.peer
                    )
                    await self._stream.close(code=WSCloseCode.POLICY_VIOLATION, message=b"refused")
                    return

    def _received(self, data: bytes) -> None:
        if not data:
            raise Refused("malformed")
        if data[0] in {_AWARENESS, _WHO_IS_THERE}:
            if data != _NOBODY:
                self._push(_NOBODY)
            return
        if data[0] != _SYNC:
            raise Refused("unsupported")
        said = read_sync(data)
        if said.kind is YSyncMessageType.SYNC_STEP1:
            self._push(step2(self._document.missing(said.body)))
            return
        try:
            changes = self._replica.take(said.body, self, parent=Context())
        except Refused as refused:
            if refused.reason == "early":
                self._push(step1(self._document.state()))
            raise
        if said.kind is YSyncMessageType.SYNC_STEP2:
            self._replica.has_agreed = True
        self._replica.tell(self.peer, changes, was_parted=said.kind is YSyncMessageType.SYNC_STEP2)
