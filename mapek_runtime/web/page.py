"""The page: its files, the state of the run and its live events, and its buttons.

The files are read from the package and nowhere else. What the page asks the store is `page_traces`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from aiohttp import web
from aiohttp.web_app import Application

from mapek_runtime.store import TraceStore

from .legible import json_for_page
from .live import serve_events
from .page_traces import add_page_traces
from .state import ControlRefused, Controls, StateSource

__all__ = ["add_page"]

_STATIC = Path(__file__).parent / "static"
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
}
"""Not the system's own table, which differs from one machine to the next."""
_MOST_BODY = 16_384
_MOST_NUMBER = 1 << 53


class _Inject(msgspec.Struct, forbid_unknown_fields=True):
    kind: str
    target: str
    seconds: float | None = None


class _Clear(msgspec.Struct, forbid_unknown_fields=True):
    number: Annotated[int, msgspec.Meta(ge=0, le=_MOST_NUMBER)]


class _Halt(msgspec.Struct, forbid_unknown_fields=True):
    reason: str = ""


class _Resume(msgspec.Struct, forbid_unknown_fields=True):
    pass


B = TypeVar("B", _Inject, _Clear, _Halt, _Resume)


def add_page(
    app: Application,
    *,
    source: StateSource,
    controls: Controls,
    store: TraceStore | None,
    flush: Callable[[], Awaitable[object]],
) -> None:
    """Add the page and everything below `/page/`; `flush` stores the spans that have ended."""
    page = _Page(source, controls)
    app.router.add_get("/", page.index)
    app.router.add_get("/static/{path:.+}", page.static)
    app.router.add_get("/page/state", page.state)
    # Without HEAD: an answer that has no end has no headers worth asking for.
    app.router.add_get("/page/live", page.live, allow_head=False)
    app.router.add_post("/page/inject", page.inject)
    app.router.add_post("/page/clear", page.clear)
    app.router.add_post("/page/halt", page.halt)
    app.router.add_post("/page/resume", page.resume)
    add_page_traces(app, store, flush)
    # A stream has no end of its own, and closing the server would wait for it.
    app.on_shutdown.append(page.close)


class _Page:
    def __init__(self, source: StateSource, controls: Controls) -> None:
        self._source = source
        self._controls = controls

    async def close(self, _app: Application) -> None:
        self._source.live.close()

    async def index(self, _request: web.Request) -> web.StreamResponse:
        return await _file("index.html")

    async def static(self, request: web.Request) -> web.StreamResponse:
        return await _file(request.match_info["path"])

    async def state(self, _request: web.Request) -> web.StreamResponse:
        body = json_for_page(await self._source.state())
        return web.Response(body=body, content_type="application/json", headers={"Cache-Control": "no-store"})

    async def live(self, request: web.Request) -> web.StreamResponse:
        return await serve_events(request, self._source.live)

    async def inject(self, request: web.Request) -> web.StreamResponse:
        async def do() -> dict[str, int]:
            asked = await _body(request, _Inject)
            if asked.seconds is not None and not (math.isfinite(asked.seconds) and asked.seconds > 0):
                raise ControlRefused(
                    f"seconds is {asked.seconds!r}; it must be more than 0, or left out", status=400
                )
            return {"number": await self._controls.inject(asked.kind, asked.target, asked.seconds)}

        return await _done(do)

    async def clear(self, request: web.Request) -> web.StreamResponse:
        async def do() -> None:
            await self._controls.clear((await _body(request, _Clear)).number)

        return await _done(do)

    async def halt(self, request: web.Request) -> web.StreamResponse:
        async def do() -> None:
            await self._controls.halt((await _body(request, _Halt)).reason)

        return await _done(do)

    async def resume(self, request: web.Request) -> web.StreamResponse:
        async def do() -> None:
            await _body(request, _Resume)
            await self._controls.resume()

        return await _done(do)


async def _done(do: Callable[[], Awaitable[dict[str, int] | None]]) -> web.Response:
    try:
        return web.json_response(await do() or {})
    except ControlRefused as refused:
        return web.json_response({"error": str(refused)}, status=refused.status)


async def _body(request: web.Request, kind: type[B]) -> B:
    # A form of another site cannot send this header; a script of one must ask first, and is refused.
    if request.headers.get("X-Mapek") != "1":
        raise ControlRefused("the header X-Mapek: 1 is missing; the page itself sends it", status=403)
    body = bytearray()
    async for piece in request.content.iter_any():
        body += piece
        if len(body) > _MOST_BODY:
            raise ControlRefused(f"the body is longer than {_MOST_BODY} bytes", status=413)
    try:
        return msgspec.json.decode(bytes(body) or b"{}", type=kind)
    except msgspec.DecodeError as error:
        fields = ", ".join(kind.__struct_fields__) or "none"
        raise ControlRefused(
            f"the body is not what it must be: {error}; it is a JSON object, its fields: {fields}", status=400
        ) from None
    except UnicodeDecodeError:
        raise ControlRefused("the body is not UTF-8; it must be a JSON object", status=400) from None


async def _file(path: str) -> web.StreamResponse:
    parts = path.split("/")
    # What begins with a point is neither a file of the page nor a way out of its folder.
    if any(not part or part.startswith(".") or "\\" in part or "\0" in part for part in parts):
        return _no_file(path)
    file = _STATIC.joinpath(*parts)
    if not await asyncio.to_thread(_is_file, file):
        return _no_file(path)
    headers = {
        "Content-Type": _TYPES.get(file.suffix, "text/plain; charset=utf-8"),
        # Asked for again each time and mostly not sent again: a page of yesterday's version would not fit.
        "Cache-Control": "no-cache",
    }
    return web.FileResponse(file, headers=headers)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        # Such as a name that is longer than any can be.
        return False


def _no_file(path: str) -> web.Response:
    message: dict[str, Any] = {"error": f"the page has no file {path[:128]!r}"}
    return web.json_response(message, status=404)
