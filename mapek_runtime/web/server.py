"""The HTTP server of the service: its address, its routes, its lifetime."""

from __future__ import annotations

import asyncio
import contextvars
import gzip
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from aiohttp import web

# Not `web.Application`: that name is what the instrumentation of aiohttp replaces, and a scrape every
# few seconds is not to be a trace of the system that is watched.
from aiohttp.web_app import Application
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY as SUPPRESS
from opentelemetry.context import attach, set_value
from prometheus_client.exposition import gzip_accepted

from mapek_runtime.errors import ConfigError

__all__ = ["WebServer"]

_CLOSING = 0.5
"""Seconds that a request in progress has when the server is closed."""
_WELL = ("ok", "stopping")
"""A process that is ending in order is well: whoever watches it must not kill it for that."""


class WebServer:
    """Serves `/metrics` and `/health` on `listen` (`HOST:PORT`; port 0: any that is free) inside the block.

    `metrics` is called in a thread with the `Accept` header and gives body and content type; `health`
    is called on the loop, and where its `status` is neither ok nor stopping the answer is a 503. Raises
    `ConfigError` when the address cannot be had.
    """

    def __init__(
        self,
        listen: str,
        *,
        metrics: Callable[[str], tuple[bytes, str]],
        health: Callable[[], Mapping[str, Any]],
    ) -> None:
        host, _, port = listen.rpartition(":")
        self._listen = listen
        self._host = host.removeprefix("[").removesuffix("]")
        self._port = int(port)
        self._metrics = metrics
        self._health = health
        self._rendering = asyncio.Lock()
        self._runner: web.AppRunner | None = None

    @property
    def address(self) -> str:
        """Where it can be reached, such as `http://127.0.0.1:8080`; known inside the block."""
        assert self._runner is not None
        host, port = self._runner.addresses[0][:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def __aenter__(self) -> WebServer:
        app = Application()
        app.router.add_get("/metrics", self._serve_metrics)
        app.router.add_get("/health", self._serve_health)
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
            await web.TCPSite(runner, self._host, self._port).start()
        except (OSError, OverflowError) as error:
            await runner.cleanup()
            raise ConfigError(
                f"web.listen is {self._listen!r}, which cannot be listened on: "
                f"{getattr(error, 'strerror', None) or error}; "
                "give the HOST:PORT of an address of this machine that is free, or port 0 for any"
            ) from None

    async def _serve_metrics(self, request: web.Request) -> web.Response:
        headers = request.headers
        async with self._rendering:
            body, content_type = await asyncio.to_thread(self._metrics, headers.get("Accept", ""))
            answer = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"}
            if gzip_accepted(headers.get("Accept-Encoding", "")):
                body = await asyncio.to_thread(gzip.compress, body, 1)
                answer["Content-Encoding"] = "gzip"
        return web.Response(body=body, headers=answer)

    async def _serve_health(self, _request: web.Request) -> web.Response:
        health = self._health()
        return web.json_response(health, status=200 if health["status"] in _WELL else 503)
