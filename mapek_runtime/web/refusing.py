"""Refusals of the server itself, before or instead of the one who answers on a route.

Who sends spans is answered in the words of its protocol: OTLP over HTTP wants a google.rpc.Status in the
encoding of the request (opentelemetry-proto, docs/specification.md#failures-1). Everybody else gets JSON.
"""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web

from mapek_runtime.export.encode.wire import text, varint

from .scopes import TRACES, pattern_of

__all__ = ["refused"]

_PROTOBUF = "application/x-protobuf"
_CODES = {400: 3, 401: 16, 403: 7, 408: 4, 411: 3, 413: 8, 500: 13, 503: 14}
"""Of google.rpc.Code, by the status of HTTP."""
_UNKNOWN = 2


def refused(
    request: web.Request, status: int, message: str, headers: Mapping[str, str] | None = None
) -> web.Response:
    """The answer to a request that is refused."""
    if pattern_of(request) != TRACES:
        return web.json_response({"error": message}, status=status, headers=headers)
    code = _CODES.get(status, _UNKNOWN)
    if request.content_type != _PROTOBUF:
        return web.json_response({"code": code, "message": message}, status=status, headers=headers)
    body = b"\x08" + varint(code) + text(b"\x12", message)
    return web.Response(status=status, body=body, headers={**(headers or {}), "Content-Type": _PROTOBUF})
