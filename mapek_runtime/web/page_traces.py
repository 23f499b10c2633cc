"""The page's questions to the store: search, durations, a trace, latencies, and what can be asked for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.web_app import Application

from mapek_runtime.errors import QueryError, StoreError
from mapek_runtime.store import TraceStore
from mapek_runtime.store.model import StoredTrace
from mapek_runtime.store.otlp_json import to_json
from mapek_runtime.store.query import parse, to_traceql
from mapek_runtime.store.query.syntax import AllSpans, Compare, Filter

from .flush import Flushes
from .page_shapes import brief_span, found_trace, incomplete_since, latency_series, stored_trace

__all__ = ["add_page_traces"]

_MOST_TRACES = 200
_MOST_DURATIONS = 20_000
_MOST_SPANS = 10_000
_MOST_VALUES = 1000
_LATE = 30 * 10**9
"""Nanoseconds after which a parent that is missing will not come any more."""
_NUMBER_AT_MOST = 1 << 63

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def add_page_traces(
    app: Application, store: TraceStore | None, flush: Callable[[], Awaitable[object]]
) -> None:
    """Add the routes; without a store each of them says that there is none."""
    traces = _Traces(store, flush)
    for path, handler in (
        ("/page/search", traces.search),
        ("/page/durations", traces.durations),
        ("/page/trace/{id}", traces.trace),
        ("/page/trace/{id}/otlp", traces.otlp),
        ("/page/latencies", traces.latencies),
        ("/page/services", traces.services),
        ("/page/tags", traces.tags),
        ("/page/values", traces.values),
    ):
        app.router.add_get(path, _answering(handler))
    app.on_shutdown.append(traces.close)


class _Wrong(Exception):
    """A parameter that cannot be; the message says what would be right."""


def _answering(handler: Handler) -> Handler:
    """The same, with what goes wrong told in the page's own shape."""

    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except QueryError as error:
            return _json({"error": str(error), "column": error.column}, 400)
        except _Wrong as error:
            return _json({"error": str(error), "column": None}, 400)
        except StoreError as error:
            return _json({"error": str(error)}, 503)

    return answer


class _Traces:
    def __init__(self, store: TraceStore | None, flush: Callable[[], Awaitable[object]]) -> None:
        self._given = store
        self._flushes = Flushes(flush)

    async def close(self, _app: Application) -> None:
        await self._flushes.aclose()

    @property
    def _store(self) -> TraceStore:
        if self._given is None:
            raise StoreError("this run keeps no traces (store.enabled is false); start it with the store on")
        return self._given

    async def search(self, request: web.Request) -> web.StreamResponse:
        asked = request.query
        query = parse(asked.get("q", ""))
        found = await self._store.search(
            query,
            limit=_number(request, "limit", 20, least=1, most=_MOST_TRACES),
            start=_moment(request, "start"),
            end=_moment(request, "end"),
            before=_moment(request, "before"),
        )

        def encoded() -> bytes:
            return msgspec.json.encode(
                {
                    "query": to_traceql(query),
                    "traces": [found_trace(trace) for trace in found.traces],
                    "complete": found.complete,
                    "inspected": found.inspected,
                    # A string where it is a moment: what it is, is the store's to know.
                    "before": None if found.before is None else str(found.before),
                }
            )

        return _bytes(await asyncio.to_thread(encoded))

    async def durations(self, request: web.Request) -> web.StreamResponse:
        limit = _number(request, "limit", 5000, least=1, most=_MOST_DURATIONS)
        spans = await self._store.durations(
            parse(request.query.get("q", "")),
            start=_moment(request, "start"),
            end=_moment(request, "end"),
            limit=limit,
        )

        def encoded() -> bytes:
            return msgspec.json.encode(
                {"spans": [brief_span(span) for span in spans], "complete": len(spans) < limit}
            )

        return _bytes(await asyncio.to_thread(encoded))

    async def trace(self, request: web.Request) -> web.StreamResponse:
        offset = _number(request, "offset", 0, least=0, most=_NUMBER_AT_MOST)
        limit = _number(request, "limit", _MOST_SPANS, least=1, most=_MOST_SPANS)
        trace_id = request.match_info["id"]
        stored = await self._stored(trace_id, offset, limit)
        if stored is None:
            return _unknown(trace_id)
        shape = await asyncio.to_thread(stored_trace, stored)
        since = incomplete_since(shape)
        if since is not None and time.time_ns() - since < _LATE:
            await self._flushes.flushed()
            again = await self._store.trace(trace_id, offset=offset, limit=limit)
            if again is not None and again.total > stored.total:
                shape = await asyncio.to_thread(stored_trace, again)
        return _bytes(await asyncio.to_thread(msgspec.json.encode, shape))

    async def otlp(self, request: web.Request) -> web.StreamResponse:
        trace_id = request.match_info["id"]
        stored = await self._stored(trace_id, 0, _MOST_SPANS)
        if stored is None:
            return _unknown(trace_id)
        whole = [stored.data]
        offset = _MOST_SPANS
        # TracesData may be given in pieces, one after the other.
        while offset < min(stored.total, 10 * _MOST_SPANS):
            more = await self._store.trace(trace_id, offset=offset, limit=_MOST_SPANS)
            if more is None:
                break
            whole.append(more.data)
            offset += _MOST_SPANS
        body = await asyncio.to_thread(lambda: msgspec.json.encode(to_json(b"".join(whole))))
        response = _bytes(body)
        response.headers["Content-Disposition"] = f'attachment; filename="trace-{stored.trace_id}.json"'
        return response

    async def latencies(self, request: web.Request) -> web.StreamResponse:
        step = _number(request, "step", 0, least=0, most=31_536_000)
        if step % 60:
            raise _Wrong(f"step={step}; it must be a multiple of 60: seconds")
        rows = await self._store.latencies(
            service=request.query.get("service") or None,
            name=request.query.get("name") or None,
            start=_moment(request, "start"),
            end=_moment(request, "end"),
            step=float(step) or None,
        )
        return _bytes(await asyncio.to_thread(lambda: msgspec.json.encode({"series": latency_series(rows)})))

    async def services(self, _request: web.Request) -> web.StreamResponse:
        operations: dict[str, list[dict[str, str]]] = {name: [] for name in await self._store.services()}
        for operation in await self._store.operations():
            operations.setdefault(operation.service, []).append(
                {"name": operation.name, "kind": operation.kind}
            )
        return _json(
            {"services": [{"name": name, "operations": each} for name, each in sorted(operations.items())]}
        )

    async def tags(self, request: web.Request) -> web.StreamResponse:
        found = await self._store.tags(start=_moment(request, "start"), end=_moment(request, "end"))
        return _json({"scopes": found})

    async def values(self, request: web.Request) -> web.StreamResponse:
        tag = request.query.get("tag", "")
        # The name of a field is read as in a query, so that there is one way to write it.
        spansets = parse(f"{{ {tag} != nil }}").spansets if tag else AllSpans()
        if not (isinstance(spansets, Filter) and isinstance(spansets.condition, Compare)):
            raise _Wrong(f"tag={tag!r}; it must be one field, such as span.node_id or resource.service.name")
        found = await self._store.tag_values(
            spansets.condition.field,
            start=_moment(request, "start"),
            end=_moment(request, "end"),
            limit=_number(request, "limit", _MOST_VALUES, least=1, most=_MOST_VALUES),
        )
        return _json({"values": [{"type": value.kind, "value": value.text} for value in found]})

    async def _stored(self, trace_id: str, offset: int, limit: int) -> StoredTrace | None:
        stored = await self._store.trace(trace_id, offset=offset, limit=limit)
        if stored is None:
            # Its spans may still wait to be stored.
            await self._flushes.flushed()
            stored = await self._store.trace(trace_id, offset=offset, limit=limit)
        return stored


def _number(request: web.Request, name: str, default: int, *, least: int, most: int) -> int:
    text = request.query.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) >= least):
        raise _Wrong(f"{name}={text[:64]!r}; it must be a whole number of at least {least}")
    return min(int(text), most)


def _moment(request: web.Request, name: str) -> int | None:
    text = request.query.get(name, "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) < _NUMBER_AT_MOST):
        raise _Wrong(f"{name}={text[:64]!r}; it must be nanoseconds since 1970, as a whole number")
    return int(text)


def _unknown(trace_id: str) -> web.Response:
    return _json(
        {"error": f"there is no trace {trace_id[:64]!r}; it was let go, was not sampled, or never was"}, 404
    )


def _json(value: Any, status: int = 200) -> web.Response:
    return _bytes(msgspec.json.encode(value), status)


def _bytes(body: bytes, status: int = 200) -> web.Response:
    return web.Response(
        body=body, status=status, content_type="application/json", headers={"Cache-Control": "no-store"}
    )
