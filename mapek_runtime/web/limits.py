"""What a request may cost: the size of its body, and the time until it is answered."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web
from aiohttp.typedefs import Middleware

from mapek_runtime.errors import StoreError
from mapek_runtime.export.notice import Notices

from .refusing import refused
from .scopes import STREAMS, TRACES, pattern_of

__all__ = ["Limits", "limiting"]

logger = logging.getLogger(__name__)

_COUNTING = frozenset({TRACES})
"""What counts the bytes that it is sent, and says in its own protocol when they are too many."""
_LARGE = frozenset({"/api/transform"})
"""What else is sent spans."""
_SMALL_BODY = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a client may take; times in seconds, sizes in bytes."""

    connections: int = 256
    """Connections at once."""
    body: int = 16_777_216
    """Of a body of spans, as it comes; every other one may have 64 KiB."""
    line: int = 8190
    """Of the address, and of each header."""
    header: float = 10.0
    """From the first byte of a request, or from the connection, to the end of its headers."""
    request: float = 30.0
    """From the end of its headers to its answer, the reading of its body included."""
    idle: float = 75.0
    """From one request to the next on the same connection."""
    stalled: float = 30.0
    """For which a client may take nothing of what is sent to it."""


def limiting(limits: Limits) -> Middleware:
    """The middleware that keeps a request within `limits`, and gives a fault of ours an answer."""
    notices = Notices(logger)

    @web.middleware
    async def limit(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        pattern = pattern_of(request)
        if pattern not in _COUNTING:
            too_large = _of_size(request, limits.body if pattern in _LARGE else _SMALL_BODY, limits)
            if too_large is not None:
                return too_large
        try:
            async with asyncio.timeout(None if pattern in STREAMS else limits.request) as limit:
                return await handler(request)
        except web.HTTPException:
            raise
        except StoreError as error:
            return _answer(request, 503, str(error))
        except Exception as error:
            if limit.expired():
                return _out_of_time(request, limits)
            if isinstance(error, ConnectionError):
                # The client is gone.
                raise
            # Neither the address nor a header is told: a query or a token may be in them.
            notices.warn(
                f"{request.method} {pattern}",
                "%s %s: %s",
                request.method,
                pattern,
                type(error).__name__,
                level=logging.ERROR,
                error=error,
            )
            return _answer(request, 500, "this failed; the service's log says why")

    return limit


def _of_size(request: web.Request, most: int, limits: Limits) -> web.Response | None:
    if not request.body_exists:
        return None
    length = request.content_length
    if length is None:
        # Of unknown length: who takes a large one counts what comes, for the others it must be said.
        return None if most == limits.body else _answer(request, 411, "say how long the body is")
    if length > most:
        return _answer(request, 413, f"the body has {length} bytes; it may have {most}")
    return None


def _out_of_time(request: web.Request, limits: Limits) -> web.Response:
    if request.body_exists and not request.content.is_eof():
        return _answer(request, 408, f"the body did not come within {limits.request:g} s")
    return _answer(
        request, 503, f"there was no answer within {limits.request:g} s; ask for less", {"Retry-After": "1"}
    )


def _answer(
    request: web.Request, status: int, message: str, headers: dict[str, str] | None = None
) -> web.Response:
    if request.writer.output_size > 0:
        # Half an answer is out already; only the end of the connection says that it is no whole one.
        raise ConnectionAbortedError(message)
    response = refused(request, status, message, headers)
    if request.body_exists and not request.content.is_eof():
        response.force_close()
    return response
