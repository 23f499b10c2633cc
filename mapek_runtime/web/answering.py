"""Answers of the query APIs: JSON, and what went wrong in the shape of the API that was asked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import msgspec
from aiohttp import web
from aiohttp.web_app import Application

from mapek_runtime.errors import QueryError, StoreError
from mapek_runtime.export.beside import beside_the_loop
from mapek_runtime.store.query.syntax import Query

__all__ = [
    "Failure",
    "Handler",
    "add_routes",
    "in_thread",
    "json_bytes",
    "json_of",
    "large_json_of",
    "query_of",
]

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Failure = Callable[[int, str], web.Response]
"""An API's own shape of an error, from its status and message."""
Result = TypeVar("Result")
_SHORT = 200
"""Characters of a query that are read within a millisecond."""


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
    """A small answer."""
    return json_bytes(msgspec.json.encode(value), status)


async def large_json_of(make: Callable[[], Any]) -> web.Response:
    """An answer that may be large: it is made and encoded in a thread."""
    return json_bytes(await in_thread(lambda: msgspec.json.encode(make())))


async def in_thread(work: Callable[[], Result]) -> Result:
    """Call what takes more than a moment."""

    def beside() -> Result:
        with beside_the_loop():
            return work()

    return await asyncio.to_thread(beside)


async def query_of(text: str, parse: Callable[[str], Query]) -> Query:
    """What a query asks; a long one, which takes tens of milliseconds, is read in a thread."""
    return parse(text) if len(text) <= _SHORT else await in_thread(lambda: parse(text))


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
