"""The route `/metrics`: one scrape at a time, written in a thread."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable

from aiohttp import web
from aiohttp.web_app import Application
from prometheus_client.exposition import gzip_accepted

__all__ = ["add_metrics"]


def add_metrics(app: Application, metrics: Callable[[str], tuple[bytes, str]]) -> None:
    """Add the route; `metrics` is called in a thread with the `Accept` header, for body and content type."""
    one_at_a_time = asyncio.Lock()

    async def scrape(request: web.Request) -> web.Response:
        headers = request.headers
        async with one_at_a_time:
            body, content_type = await asyncio.to_thread(metrics, headers.get("Accept", ""))
            answer = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"}
            if gzip_accepted(headers.get("Accept-Encoding", "")):
                body = await asyncio.to_thread(gzip.compress, body, 1)
                answer["Content-Encoding"] = "gzip"
        return web.Response(body=body, headers=answer)

    app.router.add_get("/metrics", scrape)
