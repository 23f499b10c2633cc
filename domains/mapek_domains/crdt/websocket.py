"""The server to which any Yjs program can connect, and the connections to other such servers."""

from __future__ import annotations

import asyncio
import contextvars
import hmac
import logging
import random
from collections.abc import Callable
from urllib.parse import urlsplit, urlunsplit

import aiohttp
from aiohttp import web
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY as SUPPRESS
from opentelemetry.context import attach, set_value

from mapek_runtime.errors import ConfigError

from .connection import Socket
from .replica import Replica
from .settings import CrdtSettings, is_loopback, split_address

__all__ = ["ROOM", "SocketServer", "dial", "quiet_context", "with_room"]

logger = logging.getLogger(__name__)

ROOM = "knowledge"
"""The path under which the first node of a process is served."""
_HEARTBEAT = 20.0
_ENVELOPE = 64
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0
_PATIENCE = 10.0


def quiet_context() -> contextvars.Context:
    """A context without a span, in which instrumentation opens none: a connection may last for days."""
    context = contextvars.Context()
    context.run(attach, set_value(SUPPRESS, True))
    return context


def with_room(url: str) -> str:
    """The address of a server with a path: that of the shared room where it has none."""
    parts = urlsplit(url)
    return url if parts.path not in {"", "/"} else urlunsplit(parts._replace(path=f"/{ROOM}"))


class SocketServer:
    """Serves the replicas of this process; `replica_of` finds the one of a room, or None."""

    def __init__(self, settings: CrdtSettings, replica_of: Callable[[str], Replica | None]) -> None:
        self._settings = settings
        self._replica_of = replica_of
        self._runner: web.AppRunner | None = None
        self._sockets: set[Socket] = set()

    @property
    def address(self) -> str:
        """Where it listens, such as `ws://127.0.0.1:8390`; known inside the block."""
        assert self._runner is not None
        host, port = self._runner.addresses[0][:2]
        return f"ws://[{host}]:{port}" if ":" in host else f"ws://{host}:{port}"

    async def __aenter__(self) -> SocketServer:
        app = web.Application()
        app.router.add_get("/{room:.*}", self._serve)
        runner = self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        # Connections inherit the context in which the server was opened.
        await asyncio.get_running_loop().create_task(
            self._open(runner), name="crdt sockets", context=quiet_context()
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        for socket in tuple(self._sockets):
            socket.cut()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _open(self, runner: web.AppRunner) -> None:
        await runner.setup()
        host, port = split_address(self._settings.listen)
        try:
            await web.TCPSite(runner, host, port).start()
        except (OSError, OverflowError) as error:
            await runner.cleanup()
            raise ConfigError(
                f"[crdt] listen is {self._settings.listen!r}, which cannot be listened on: {error}; give the "
                "HOST:PORT of an address of this machine that is free, or port 0 for any"
            ) from None

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        refusal = self._refusal(request)
        if refusal is not None:
            return refusal
        room = request.match_info["room"]
        replica = self._replica_of(room)
        if replica is None:
            return web.Response(status=404, text=f"no room {room!r} here; try {ROOM!r}\n")
        if len(self._sockets) >= self._settings.connections:
            return web.Response(status=503, text="too many connections\n")
        stream = web.WebSocketResponse(
            heartbeat=_HEARTBEAT, max_msg_size=self._settings.update_bytes + _ENVELOPE, compress=False
        )
        if not stream.can_prepare(request).ok:
            return web.Response(
                status=426, text="this speaks WebSocket only\n", headers={"Upgrade": "websocket"}
            )
        await stream.prepare(request)
        socket = Socket(replica, stream, peer=request.remote or "a client")
        self._sockets.add(socket)
        try:
            await socket.run()
        finally:
            self._sockets.discard(socket)
        return stream

    def _refusal(self, request: web.Request) -> web.Response | None:
        """Why a request is not answered.

        With a token that is all there is to it: a page that has it was given it. Without one the server is on
        loopback, and what keeps a stranger's page in a browser of this machine out is the name it asks for
        (DNS rebinding) and where it is from.
        """
        token = self._settings.token
        if token:
            kind, _, bearer = request.headers.get("Authorization", "").partition(" ")
            given = bearer if kind.lower() == "bearer" else request.query.get("token", "")
            if hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), token.encode()):
                return None
            return web.Response(
                status=401, text="a token is needed\n", headers={"WWW-Authenticate": "Bearer"}
            )
        host = request.headers.get("Host", "")
        if not is_loopback(_name(host)):
            return web.Response(status=421, text="the Host header names no address of this machine\n")
        for origin in request.headers.getall("Origin", []):
            if urlsplit(origin).netloc.lower() != host.lower():
                return web.Response(status=403, text="a page of another origin asked for this\n")
        return None


async def dial(url: str, settings: CrdtSettings, replica: Replica, rng: random.Random) -> None:
    """Stay connected to the server at `url`, until cancelled. Run it in a `quiet_context`."""
    pause = _FIRST_PAUSE
    headers = {"Authorization": f"Bearer {settings.token}"} if settings.token else {}
    shown = urlunsplit(
        urlsplit(url)._replace(query="", fragment="", netloc=urlsplit(url).netloc.rpartition("@")[2])
    )
    has_told = False
    clock = asyncio.get_running_loop().time
    async with aiohttp.ClientSession(headers=headers) as session:
        while True:
            try:
                async with (
                    asyncio.timeout(_PATIENCE) as limit,
                    session.ws_connect(
                        with_room(url),
                        heartbeat=_HEARTBEAT,
                        max_msg_size=settings.update_bytes + _ENVELOPE,
                    ) as stream,
                ):
                    limit.reschedule(None)
                    has_told = False
                    began = clock()
                    await Socket(replica, stream, peer=shown).run()
                if clock() - began > _LONGEST_PAUSE:
                    pause = _FIRST_PAUSE
            except Exception as error:  # noqa: BLE001 - whatever ended a connection, the next is another one
                if not has_told:
                    has_told = True
                    logger.warning(
                        "shared knowledge: %s cannot be reached: %s; it is tried again", shown, _why(error)
                    )
            await asyncio.sleep(pause * rng.uniform(0.75, 1.25))
            pause = min(_LONGEST_PAUSE, 2 * pause)


def _why(error: Exception) -> str:
    """An error in words, without the address, which may hold a secret."""
    if isinstance(error, aiohttp.WSServerHandshakeError):
        return f"it answers {error.status}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return type(error).__name__


def _name(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]
