"""Answers of the query APIs: JSON, and what went wrong in the shape of the API that was asked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.web_app import Application

from mapek_runtime.errors import QueryError, StoreError

__all__ = ["Failure", "Handler", "add_routes", "json_bytes", "json_of"]

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Failure = Callable[[int, str], web.Response]
"""An API's own shape of an error, from its status and message."""


def add_routes(
    app: Application, failure: Failure, handlers: Mapping[str, Handler], method: str = "GET"
) -> None:
    """Add a handler for each path; with GET for HEAD as well."""
    for path, handler in handlers.items():
        answer = _answering(handler, failure)
        if method == "GET":
            app.router.add_get(path, answer)
        else:
            app.router.add_route(method, path, answer)


def json_of(value: Any, status: int = 200) -> web.Response:
    """A small answer; a large one is encoded in a thread."""
    return json_bytes(msgspec.json.encode(value), status)


def json_bytes(body: bytes, status: int = 200) -> web.Response:
    """An answer that is JSON already."""
    return web.Response(body=body, status=status, content_type="application/json")


def _answering(handler: Handler, failure: Failure) -> Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except QueryError as error:
            return failure(400, str(error))
        except StoreError as error:
            return failure(503, str(error))
        except web.HTTPRequestEntityTooLarge as error:
            return failure(413, error.text or "the body is too large")

    return answer
