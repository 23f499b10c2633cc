"""The page's questions to the store: search, durations, a trace, latencies, and what can be asked for.

Answers are bounded in bytes as well as in number: what others sent may be of any size.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.web_app import Application

from mapek_runtime.errors import QueryError, StoreError
from mapek_runtime.store import TraceStore
from mapek_runtime.store.model import Brush, StoredTrace
from mapek_runtime.store.query import parse, to_traceql
from mapek_runtime.store.query.syntax import AllSpans, Compare, Filter

from .answering import in_thread, query_of
from .download import Downloads
from .flush import Flushes
from .page_shapes import brief_span, found_trace, incomplete_since, latency_series, stored_trace

__all__ = ["add_page_traces"]

_MOST_TRACES = 200
_MOST_DURATIONS = 20_000
_MOST_SPANS = 10_000
_MOST_VALUES = 1000
_LATE = 30 * 10**9
"""Nanoseconds after which a parent that is missing will not come any more."""
_MOST_BYTES = 64 << 20
"""Of a list in an answer: one that would be longer is cut, so that the page asks for the rest."""
_LARGEST = (1 << 63) - 1

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def add_page_traces(
    app: Application, store: TraceStore | None, flush: Callable[[], Awaitable[object]]
) -> None:
    """Add the routes; without a store each of them says that there is none."""
    traces = _Traces(store, flush)
    for path, handler in (
        ("/page/search", traces.search),
        ("/page/durations", traces.durations),
        ("/page/difference", traces.difference),
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
            # The page points at the column; whoever else asks finds it beside the message.
            message = str(error).removeprefix(f"column {error.column}: ")
            return _json({"error": message, "column": error.column}, 400)
        except _Wrong as error:
            return _json({"error": str(error), "column": None}, 400)
        except StoreError as error:
            return _json({"error": str(error)}, 503)

    return answer


class _Traces:
    def __init__(self, store: TraceStore | None, flush: Callable[[], Awaitable[object]]) -> None:
        self._given = store
        self._flushes = Flushes(flush)
        self._downloads = Downloads()

    async def close(self, _app: Application) -> None:
        await self._flushes.aclose()

    @property
    def _store(self) -> TraceStore:
        if self._given is None:
            raise StoreError("this run keeps no traces (store.enabled is false); start it with the store on")
        return self._given

    async def search(self, request: web.Request) -> web.StreamResponse:
        asked = request.query
        query = await query_of(asked.get("q", ""), parse)
        found = await self._store.search(
            query,
            limit=_number(request, "limit", 20, least=1, most=_MOST_TRACES),
            start=_moment(request, "start"),
            end=_moment(request, "end"),
            before=_moment(request, "before"),
        )

        def encoded() -> bytes:
            traces, number = _listed(found_trace(trace) for trace in found.traces)
            return msgspec.json.encode(
                {
                    "query": to_traceql(query),
                    "traces": traces,
                    "complete": found.complete and number == len(found.traces),
                    "inspected": found.inspected,
                    # A string where it is a moment: what it is, is the store's to know.
                    "before": None if found.before is None else str(found.before),
                }
            )

        return _bytes(await in_thread(encoded))

    async def durations(self, request: web.Request) -> web.StreamResponse:
        limit = _number(request, "limit", 5000, least=1, most=_MOST_DURATIONS)
        chosen = await self._store.durations(
            await query_of(request.query.get("q", ""), parse),
            start=_moment(request, "start"),
            end=_moment(request, "end"),
            limit=limit,
        )

        def encoded() -> bytes:
            spans, number = _listed(brief_span(span) for span in chosen.spans)
            complete = chosen.complete and number == len(chosen.spans)
            return msgspec.json.encode({"spans": spans, "complete": complete})

        return _bytes(await in_thread(encoded))

    async def difference(self, request: web.Request) -> web.StreamResponse:
        query = await query_of(request.query.get("q", ""), parse)
        brush = Brush(
            start=_moment(request, "from"),
            end=_moment(request, "to"),
            shortest=_nanoseconds(request, "shortest"),
            longest=_nanoseconds(request, "longest"),
        )
        found = await self._store.difference(
            query, brush, start=_moment(request, "start"), end=_moment(request, "end")
        )

        def encoded() -> bytes:
            return msgspec.json.encode({"query": to_traceql(query), **msgspec.to_builtins(found)})

        return _bytes(await in_thread(encoded))

    async def trace(self, request: web.Request) -> web.StreamResponse:
        offset = _number(request, "offset", 0, least=0, most=_LARGEST)
        limit = _number(request, "limit", _MOST_SPANS, least=1, most=_MOST_SPANS)
        trace_id = request.match_info["id"]
        stored = await self._stored(trace_id, offset, limit)
        if stored is None:
            return _unknown(trace_id)
        shape = await in_thread(lambda: stored_trace(stored))
        since = incomplete_since(shape)
        if since is not None and time.time_ns() - since < _LATE:
            await self._flushes.flushed()
            again = await self._store.trace(trace_id, offset=offset, limit=limit)
            if again is not None and again.total > stored.total:
                shape = await in_thread(lambda: stored_trace(again))

        def encoded() -> bytes:
            return msgspec.json.encode({**shape, "spans": _listed(shape["spans"])[0]})

        return _bytes(await in_thread(encoded))

    async def otlp(self, request: web.Request) -> web.StreamResponse:
        trace_id = request.match_info["id"]
        stored = await self._stored(trace_id, 0, Downloads.SPANS)
        if stored is None:
            return _unknown(trace_id)
        return await self._downloads.serve(request, self._store, stored)

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
        return _bytes(await in_thread(lambda: msgspec.json.encode({"series": latency_series(rows)})))

    async def services(self, _request: web.Request) -> web.StreamResponse:
        operations: dict[str, list[dict[str, str]]] = {name: [] for name in await self._store.services()}
        for operation in await self._store.operations():
            operations.setdefault(operation.service, []).append(
                {"name": operation.name, "kind": operation.kind}
            )
        services = [{"name": name, "operations": each} for name, each in sorted(operations.items())]
        return _bytes(await in_thread(lambda: msgspec.json.encode({"services": services})))

    async def tags(self, request: web.Request) -> web.StreamResponse:
        found = await self._store.tags(start=_moment(request, "start"), end=_moment(request, "end"))
        return _json({"scopes": found})

    async def values(self, request: web.Request) -> web.StreamResponse:
        tag = request.query.get("tag", "")
        # The name of a field is read as in a query, so that there is one way to write it.
        spansets = (await query_of(f"{{ {tag} != nil }}", parse)).spansets if tag else AllSpans()
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


def _listed(items: Iterable[dict[str, Any]]) -> tuple[msgspec.Raw, int]:
    """The items as a list of JSON, until there are too many bytes, and how many they are."""
    written: list[bytes] = []
    left = _MOST_BYTES
    for item in items:
        # One by one: to encode all of them in one go would hold every thread for as long as it takes.
        one = msgspec.json.encode(item)
        left -= len(one)
        if left < 0 and written:
            break
        written.append(one)
    return msgspec.Raw(b"[" + b",".join(written) + b"]"), len(written)


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
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= _LARGEST):
        raise _Wrong(f"{name}={text[:64]!r}; it must be nanoseconds since 1970, as a whole number")
    return int(text)


def _nanoseconds(request: web.Request, name: str) -> int | None:
    return _number(request, name, 0, least=0, most=_LARGEST) if request.query.get(name) else None


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
