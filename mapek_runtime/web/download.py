"""A whole trace as a file of OTLP JSON, however large it is: a page of spans after the other.

It is sent while it is read, so that it takes no more memory than two pages do.
"""

from __future__ import annotations

from typing import Final

import msgspec
from aiohttp import web

from mapek_runtime.errors import StoreError
from mapek_runtime.store import TraceStore
from mapek_runtime.store.model import StoredTrace

from .answering import in_thread
from .whole_traces import resource_spans_json

__all__ = ["Downloads"]


class Downloads:
    """Serves downloads, a few at a time."""

    SPANS: Final = 5_000
    """Of one page."""
    MOST: Final = 4
    """At once: each holds a page in memory, for as long as its client takes it."""

    def __init__(self) -> None:
        self._running = 0

    async def serve(self, request: web.Request, store: TraceStore, first: StoredTrace) -> web.StreamResponse:
        """Send the trace of which `first` is the first page; all of it, or the connection breaks."""
        if self._running >= self.MOST:
            message = f"{self.MOST} traces are being downloaded already; try again when one is done"
            body = msgspec.json.encode({"error": message})
            return web.Response(
                body=body, status=503, content_type="application/json", headers={"Retry-After": "5"}
            )
        response = web.StreamResponse()
        response.content_type = "application/json"
        response.headers["Content-Disposition"] = f'attachment; filename="trace-{first.trace_id}.json"'
        self._running += 1
        try:
            await response.prepare(request)
            if request.method != "HEAD":
                await _send(response, store, first)
            await response.write_eof()
        except StoreError as error:
            # Half a file is out: only a connection that breaks says that it is no whole one.
            raise ConnectionAbortedError(str(error)) from None
        finally:
            self._running -= 1
        return response


async def _send(response: web.StreamResponse, store: TraceStore, first: StoredTrace) -> None:
    page: StoredTrace | None = first
    between = b'{"resourceSpans":['
    while page is not None and page.spans:
        await response.write(between + await _inner(page))
        between = b","
        offset = page.offset + page.spans
        if offset >= page.total:
            break
        page = await store.trace(first.trace_id, offset=offset, limit=Downloads.SPANS)
    await response.write(b"]}")


async def _inner(page: StoredTrace) -> bytes:
    """What stands between the brackets."""
    spans = await in_thread(lambda: resource_spans_json(page.data))
    return spans[1:-1]
