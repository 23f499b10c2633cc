"""Connections: how many there are, and how long one may be held without use.

aiohttp bounds the time between two requests. What it does not bound is how slowly the headers of one
come, how slowly an answer is taken, and how many clients do either; that is here.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from mapek_runtime.export.notice import Notices

from .headers import protect
from .limits import Limits

__all__ = ["Connections", "GuardedConnection", "GuardedSite"]

logger = logging.getLogger(__name__)

_LINGERING = 5.0
"""Seconds for which the rest of a body that was refused is read, so that the client reads why."""
_PROGRESS = 4096
"""Bytes that a client must have taken when it is looked whether it takes any."""
_WORDS = b'{"error": "there are too many connections; try again"}'
_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\nRetry-After: 1\r\nConnection: close\r\n\r\n%b" % (len(_WORDS), _WORDS)
)


class Connections:
    """Those that are open: at most `limits.connections`."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.refused = 0
        self._open: dict[GuardedConnection, None] = {}
        self._notices = Notices(logger)

    def __len__(self) -> int:
        return len(self._open)

    def open(self) -> tuple[GuardedConnection, ...]:
        """Those that are open now, the oldest first."""
        return tuple(self._open)

    def admit(self, connection: GuardedConnection) -> bool:
        """Whether there is room for one more; where all are taken, the oldest unused one makes it."""
        if len(self._open) >= self.limits.connections:
            unused = next((each for each in self._open if each.is_unused()), None)
            if unused is None:
                self.refused += 1
                self._notices.warn(
                    "connections",
                    "all %d connections of web.max_connections are in use; a further one was refused",
                    self.limits.connections,
                )
                return False
            del self._open[unused]
            unused.force_close()
        self._open[connection] = None
        return True

    def leave(self, connection: GuardedConnection) -> None:
        """It is closed."""
        self._open.pop(connection, None)


class GuardedConnection(web.RequestHandler):
    """One connection, which is closed when its client takes or gives nothing for too long."""

    __slots__ = ("_admitted", "_connections", "_header_limit", "_left", "_stall_limit")

    def __init__(
        self,
        server: web.Server,
        connections: Connections,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        limits = connections.limits
        super().__init__(
            server,
            loop=loop,
            access_log=None,  # type: ignore[arg-type]
            keepalive_timeout=limits.idle,
            lingering_time=_LINGERING,
            max_line_size=limits.line,
            max_field_size=limits.line,
            # Whoever takes compressed bodies bounds what becomes of them.
            auto_decompress=False,
        )
        self._connections = connections
        self._admitted = False
        self._header_limit: asyncio.TimerHandle | None = None
        self._stall_limit: asyncio.TimerHandle | None = None
        self._left = 0

    def is_unused(self) -> bool:
        """Whether no request is being answered, or waits to be."""
        return self._current_request is None and not self._messages

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take it, or say that there are too many."""
        if not self._connections.admit(self):
            self._force_close = True
            assert isinstance(transport, asyncio.Transport)
            transport.write(_BUSY)
            transport.close()
            return
        self._admitted = True
        super().connection_made(transport)
        self._await_headers()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Let go of it."""
        self._headers_came()
        if self._stall_limit is not None:
            self._stall_limit.cancel()
        self._connections.leave(self)
        if self._admitted:
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came; where it ends within headers, the rest of them must come in time."""
        super().data_received(data)
        if not self.is_unused():
            self._headers_came()
        elif self._header_limit is None:
            self._await_headers()

    def pause_writing(self) -> None:
        """The client is slower than we are; it must not stand still."""
        super().pause_writing()
        self._watch_stall()

    def resume_writing(self) -> None:
        """It has caught up."""
        if self._stall_limit is not None:
            self._stall_limit.cancel()
            self._stall_limit = None
        super().resume_writing()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what could not be read as a request; its bytes are neither told nor logged."""
        if request.writer.output_size > 0:
            raise ConnectionError("an answer was begun already")
        logger.debug("a request was answered %d: %s", status, type(exc).__name__)
        if isinstance(exc, LineTooLong):
            status, said = 431, f"the address or a header has more than {self.max_line_size} bytes"
        elif status == 400:
            said = "this is not a request of HTTP/1.1 that can be read"
        else:
            said = "this failed"
        response = web.json_response({"error": said}, status=status)
        protect(response.headers)
        response.force_close()
        return response

    def _await_headers(self) -> None:
        self._header_limit = self._loop.call_later(self._connections.limits.header, self._too_slow)

    def _headers_came(self) -> None:
        if self._header_limit is not None:
            self._header_limit.cancel()
            self._header_limit = None

    def _too_slow(self) -> None:
        self._header_limit = None
        logger.debug("a connection is closed: its headers did not come in time")
        self.force_close()

    def _watch_stall(self) -> None:
        if self.transport is None:
            return
        self._left = self.transport.get_write_buffer_size()
        self._stall_limit = self._loop.call_later(self._connections.limits.stalled, self._look_at_stall)

    def _look_at_stall(self) -> None:
        self._stall_limit = None
        if self.transport is None:
            return
        if self._left - self.transport.get_write_buffer_size() >= _PROGRESS:
            self._watch_stall()
            return
        logger.debug("a connection is closed: its client takes nothing")
        self.transport.abort()


class GuardedSite(web.BaseSite):
    """An address on which guarded connections are taken."""

    __slots__ = ("_connections", "_host", "_port")

    def __init__(
        self,
        runner: web.AppRunner,
        host: str,
        port: int,
        *,
        connections: Connections,
        tls: ssl.SSLContext | None,
    ) -> None:
        super().__init__(runner, ssl_context=tls)
        self._host = host
        self._port = port
        self._connections = connections

    @property
    def name(self) -> str:
        """The address as it was asked for."""
        return f"{self._host}:{self._port}"

    async def start(self) -> None:
        """Listen; raises OSError when the address cannot be had."""
        await super().start()
        loop = asyncio.get_running_loop()
        server = self._runner.server
        assert server is not None
        # asyncio knows no limit for a handshake where there is no TLS, and says so.
        limit: dict[str, Any] = (
            {} if self._ssl_context is None else {"ssl_handshake_timeout": self._connections.limits.header}
        )
        self._server = await loop.create_server(
            lambda: GuardedConnection(server, self._connections, loop),
            self._host,
            self._port,
            ssl=self._ssl_context,
            backlog=self._backlog,
            **limit,
        )
