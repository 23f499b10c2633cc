"""The HTTP server of the service: its address, its parts, its lifetime.

What is served is added by parts, each a function that registers routes. What every request and answer
goes through is here: who may ask (`safety`), what it may cost (`limits`, `connections`), and what a
browser may do with the answer (`headers`).
"""

from __future__ import annotations

import asyncio
import contextvars
import errno
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

from aiohttp import web

# Not `web.Application`: that name is what the instrumentation of aiohttp replaces, and a scrape every
# few seconds is not to be a trace of the system that is watched.
from aiohttp.web_app import Application
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY as SUPPRESS
from opentelemetry.context import attach, set_value

from mapek_runtime.config import is_everywhere, split_listen
from mapek_runtime.errors import ConfigError

from .connections import Connections, GuardedSite
from .headers import add_headers
from .health import add_health
from .limits import Limits, limiting
from .safety import Access, checking, require_protection
from .scraping import add_metrics

__all__ = ["Part", "WebServer"]

Part = Callable[[Application], object]
"""Adds routes to the application of a server."""

_CLOSING = 0.5
"""Seconds that a request in progress has when the server is closed."""


async def _none() -> Mapping[str, str]:
    return {}


class WebServer:
    """Serves on `listen` (`HOST:PORT`; port 0: any that is free) inside the block.

    Always `/livez`, `/readyz`, `/health` (see `add_health`) and `/metrics` (see `add_metrics`), and what
    `parts` add. `access` says who is answered, else only loopback's names and those of the address are, and
    `tls` which certificate is shown. An address that others can reach needs a token or client
    certificates. With `may_move` another port is taken where that one is in use. Raises `ConfigError`, in
    which the address is called `named`, for what is not safe and when the address cannot be had.
    """

    def __init__(
        self,
        listen: str,
        *,
        metrics: Callable[[str], tuple[bytes, str]],
        health: Callable[[], Mapping[str, Any]],
        obstacles: Callable[[], Awaitable[Mapping[str, str]]] = _none,
        parts: Sequence[Part] = (),
        access: Access | None = None,
        limits: Limits | None = None,
        tls: ssl.SSLContext | None = None,
        may_move: bool = False,
        named: str = "web.listen",
    ) -> None:
        self._listen = listen
        self._host, self._port = split_listen(listen)
        self._metrics = metrics
        self._health = health
        self._obstacles = obstacles
        self._parts = parts
        self._access = access or Access.at(listen)
        self._tls = tls
        self._may_move = may_move
        self._named = named
        self._runner: web.AppRunner | None = None
        require_protection(
            listen,
            token=self._access.token,
            client_certificates=tls is not None and tls.verify_mode is ssl.CERT_REQUIRED,
            named=named,
        )
        self.connections = Connections(limits or Limits())

    @property
    def address(self) -> str:
        """Where it listens, such as `http://127.0.0.1:8080`; known inside the block."""
        return self._url(self._bound()[0])

    @property
    def page(self) -> str:
        """The address to open in a browser of this machine; known inside the block."""
        host = self._bound()[0]
        if is_everywhere(host):
            host = "::1" if ":" in host else "127.0.0.1"
        elif self._tls is not None:
            # A certificate is for a name.
            host = self._host
        return f"{self._url(host)}/"

    async def __aenter__(self) -> WebServer:
        limits = self.connections.limits
        app = Application(
            # The checks come first, so that what is refused costs nothing.
            middlewares=[checking(self._access), limiting(limits)],
            client_max_size=limits.body,
        )
        app.on_response_prepare.append(add_headers)
        add_metrics(app, self._metrics)
        add_health(app, health=self._health, obstacles=self._obstacles)
        for part in self._parts:
            part(app)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=_CLOSING)
        # Connections inherit the context in which the server was opened: an empty one, in which nothing
        # is traced.
        context = contextvars.Context()
        context.run(attach, set_value(SUPPRESS, True))
        await asyncio.get_running_loop().create_task(
            self._open(self._runner), name="mapek-web", context=context
        )
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _open(self, runner: web.AppRunner) -> None:
        await runner.setup()
        try:
            try:
                await self._site(runner, self._port).start()
            except OSError as error:
                if not (self._may_move and error.errno == errno.EADDRINUSE):
                    raise
                await self._site(runner, 0).start()
        except (OSError, OverflowError) as error:
            await runner.cleanup()
            raise ConfigError(
                f"{self._named} is {self._listen!r}, which cannot be listened on: "
                f"{getattr(error, 'strerror', None) or error}; "
                "give the HOST:PORT of an address of this machine that is free, or port 0 for any"
            ) from None

    def _site(self, runner: web.AppRunner, port: int) -> GuardedSite:
        return GuardedSite(runner, self._host, port, connections=self.connections, tls=self._tls)

    def _bound(self) -> tuple[str, int]:
        assert self._runner is not None
        host, port = self._runner.addresses[0][:2]
        return host, port

    def _url(self, host: str) -> str:
        scheme = "http" if self._tls is None else "https"
        port = self._bound()[1]
        return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
