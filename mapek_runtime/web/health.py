"""Whether the service is alive, ready and well: `/livez`, `/readyz` and `/health`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web
from aiohttp.web_app import Application

__all__ = ["add_health"]

_WELL = ("ok", "stopping")
"""A process that is ending in order is well: whoever watches it must not kill it for that."""


def add_health(
    app: Application,
    *,
    health: Callable[[], Mapping[str, Any]],
    obstacles: Callable[[], Awaitable[Mapping[str, str]]],
) -> None:
    """Add the three routes; `health` and `obstacles` are called for each request.

    `/livez` says only that the loop answers. `/readyz` is a 503 while `obstacles` names anything that is
    not there yet, or not any more, with the reason. `/health` is what `health` gives, and a 503 where its
    `status` is neither ok nor stopping.
    """

    async def livez(_request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def readyz(_request: web.Request) -> web.Response:
        found = await obstacles()
        if found:
            return web.json_response({"status": "not ready", "obstacles": found}, status=503)
        return web.json_response({"status": "ok"})

    async def well(_request: web.Request) -> web.Response:
        found = health()
        return web.json_response(found, status=200 if found["status"] in _WELL else 503)

    app.router.add_get("/livez", livez)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/health", well)
