"""The connections of OTLP/HTTP: bounded, kept alive, and known, so that a fork can leave them behind.

aiohttp says neither which sockets a session holds nor whether a request went over a connection that had
been used before. Both are asked here, of the public `connect` of its connectors.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import sys
from contextvars import ContextVar
from typing import Any
from weakref import WeakSet

import aiohttp

from .inherited import leave_to_parent

__all__ = ["leave_connections", "make_connector", "reused"]

MAX_CONNECTIONS = 64
KEEP_ALIVE = 30.0
"""Seconds: several export delays, and less than what most collectors and proxies wait themselves."""

reused: ContextVar[bool] = ContextVar("reused", default=False)
"""Whether the last request of this task went over a connection that had been used before."""


def make_connector(path: str | None) -> aiohttp.BaseConnector:
    """A connector for the running loop: of the Unix socket at `path`, else over TCP."""
    return _TcpConnector() if path is None else _UnixConnector(path)


def leave_connections(session: aiohttp.ClientSession) -> None:
    """This is the child of a fork: the session's connections belong to the parent."""
    connector = session.connector
    if isinstance(connector, _Tracked):
        leave_to_parent(connector.descriptors(), session, connector, *connector.transports())


class _Tracked(aiohttp.BaseConnector):
    # Protocols, because the transports of uvloop's TLS cannot be referred to weakly.
    protocols: WeakSet[asyncio.BaseProtocol]
    sockets: WeakSet[socket.socket]

    def transports(self) -> list[asyncio.BaseTransport]:
        """Those of all connections that are open."""
        found = [getattr(protocol, "transport", None) for protocol in self.protocols]
        return [transport for transport in found if transport is not None]

    def descriptors(self) -> list[int]:
        """The numbers of all sockets, of those too that are not connected yet."""
        connected = [transport.get_extra_info("socket") for transport in self.transports()]
        return [kept.fileno() for kept in (*connected, *self.sockets) if kept is not None]

    async def connect(self, req: Any, traces: Any, timeout: Any) -> aiohttp.connector.Connection:
        connection = await super().connect(req, traces, timeout)
        protocol = connection.protocol
        if protocol is not None:
            reused.set(protocol in self.protocols)
            self.protocols.add(protocol)
        return connection


class _Direct:
    """The loop, but for one thing: it connects to a numeric address without asking a resolver.

    uvloop sends every address to libuv's resolver, which starts four native threads for it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        """Connect `sock`, whose address aiohttp has resolved already."""
        code = sock.connect_ex(address)
        if code in {errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EINTR}:
            connected = asyncio.Event()
            self._loop.add_writer(sock, connected.set)
            try:
                await connected.wait()
            finally:
                self._loop.remove_writer(sock)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))


class _TcpConnector(_Tracked, aiohttp.TCPConnector):
    def __init__(self) -> None:
        self.protocols, self.sockets = WeakSet(), WeakSet()
        loop: Any = asyncio.get_running_loop()
        # From Python 3.12 on aiohttp begins tasks at once, for which it must be the loop itself.
        if type(loop).__module__.startswith("uvloop") and sys.version_info < (3, 12):
            loop = _Direct(loop)
        super().__init__(
            limit=MAX_CONNECTIONS,
            keepalive_timeout=KEEP_ALIVE,
            socket_factory=self._make_socket,
            loop=loop,
        )

    def _make_socket(self, address: Any) -> socket.socket:
        family, kind, protocol, _, _ = address
        made = socket.socket(family, kind, protocol)
        self.sockets.add(made)
        return made


class _UnixConnector(_Tracked, aiohttp.UnixConnector):
    def __init__(self, path: str) -> None:
        self.protocols, self.sockets = WeakSet(), WeakSet()
        super().__init__(path, limit=MAX_CONNECTIONS, keepalive_timeout=KEEP_ALIVE)
