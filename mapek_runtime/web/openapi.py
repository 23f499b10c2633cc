"""The description of the service at `/openapi.json`: what this process serves, and nothing else."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.web_app import Application

from .answering import json_bytes
from .openapi_paths import PATHS
from .openapi_schemas import SCHEMAS

__all__ = ["add_openapi", "describe"]

_ABOUT = """\
The traces of an autonomic loop, for tools that speak Jaeger's or Tempo's query API. Ids are hexadecimal;
times and durations are in the units of each API. Where the service has a token, send it as
`Authorization: Bearer`; the routes that say whether it is well need none."""
_OPEN = frozenset({"/livez", "/readyz", "/health"})


def add_openapi(app: Application) -> None:
    """Add the route. Only routes that are there when it is asked for are described."""

    async def serve(_request: web.Request) -> web.Response:
        return json_bytes(msgspec.json.encode(describe(app)))

    app.router.add_get("/openapi.json", serve)


def describe(app: Application) -> dict[str, Any]:
    """The description of what `app` serves, as OpenAPI 3.1."""
    served = {
        (route.resource.canonical, route.method.lower())
        for route in app.router.routes()
        if route.resource is not None
    }
    paths = {
        path: {
            method: {**operation, "security": []} if path in _OPEN else operation
            for method, operation in operations.items()
            if (path, method) in served
        }
        for path, operations in PATHS.items()
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "mapek-runtime", "version": _version(), "description": _ABOUT},
        "servers": [{"url": "/"}],
        "security": [{}, {"token": []}],
        "paths": {path: operations for path, operations in paths.items() if operations},
        "components": {
            "schemas": dict(SCHEMAS),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _version() -> str:
    try:
        return version("mapek-runtime")
    except PackageNotFoundError:
        return "0"
