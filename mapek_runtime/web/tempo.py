"""Tempo's query API, as Grafana's data source for it calls it: a trace, and the search with TraceQL.

Without streaming, which is gRPC, and without metrics from spans: `buildinfo` gives a version that had
neither, so that Grafana does not ask. An error is plain text, which Grafana shows.
"""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web
from aiohttp.web_app import Application

from mapek_runtime.errors import QueryError
from mapek_runtime.export.encode.wire import delimited, text
from mapek_runtime.store import TraceStore
from mapek_runtime.store.query.traceql import parse_traceql

from .answering import add_routes, in_thread, json_bytes, json_of, large_json_of, query_of
from .parameters import SECOND, Parameters, trace_id_of
from .tempo_legacy import tags_query
from .tempo_search import search_answer
from .tempo_tags import add_tempo_tags
from .whole_traces import MOST_SPANS, WholeTraces, read_traces, resource_spans_json

__all__ = ["add_tempo", "bare_trace", "wants_protobuf"]

_PROTOBUF = "application/protobuf"
_LIMIT = 20
_SPANS = 3
_MOST_IN_A_SET = 100
_VERSION = "2.1.0"
"""The last of Tempo's versions for which Grafana switches streaming off, whatever its settings say."""


def add_tempo(app: Application, store: TraceStore, *, most_spans: int = MOST_SPANS) -> None:
    """Add Tempo's routes, but for the one trace of v1, which `add_jaeger_v1` shares with Jaeger's.

    `most_spans`: of one trace.
    """
    api = _Tempo(store, most_spans)
    handlers = {
        "/api/v2/traces/{trace_id:[^/]+}": api.trace,
        "/api/search": api.search,
        "/api/echo": _echo,
        "/api/status/buildinfo": _build,
        "/ready": _ready,
    }
    add_routes(app, _failure, handlers)
    add_tempo_tags(app, store, _failure)


def wants_protobuf(request: web.Request) -> bool:
    """Whether an answer in protobuf is accepted; without saying so nobody gets one."""
    return _PROTOBUF in request.headers.get("Accept", "")


async def bare_trace(store: TraceStore, trace_id: str, most_spans: int) -> web.Response:
    """A trace as TracesData, and nothing around it: what Grafana asks for where v2 has none."""
    traces = await read_traces(store, [trace_id], most_spans)
    if not traces.data:
        return _failure(404, "trace not found")
    response = web.Response(body=traces.data, content_type=_PROTOBUF)
    if traces.warning:
        # The message has no place for it.
        response.headers["Warning"] = f'199 - "{traces.warning}"'
    return response


class _Tempo:
    def __init__(self, store: TraceStore, most_spans: int) -> None:
        self._store = store
        self._most_spans = most_spans

    async def trace(self, request: web.Request) -> web.Response:
        Parameters(request.query).span(("start",), ("end",), SECOND)
        trace_id = trace_id_of(request.match_info["trace_id"])
        traces = await read_traces(self._store, [trace_id], self._most_spans)
        if not traces.data:
            return _failure(404, "trace not found")
        if wants_protobuf(request):
            return web.Response(body=_by_id(traces), content_type=_PROTOBUF)
        spans = await in_thread(lambda: resource_spans_json(traces.data))
        rest: dict[str, Any] = {"metrics": {}}
        if traces.warning:
            rest |= {"status": "PARTIAL", "message": traces.warning}
        return json_bytes(b'{"trace":{"resourceSpans":' + spans + b"}," + msgspec.json.encode(rest)[1:])

    async def search(self, request: web.Request) -> web.Response:
        asked = Parameters(request.query)
        start, end = asked.span(("start",), ("end",), SECOND)
        shortest, longest = asked.durations(("minDuration",), ("maxDuration",))
        traceql, tags = asked.text("q"), asked.text("tags")
        if traceql and tags:
            raise QueryError("invalid request: can't specify tags and q in the same query")
        # The two durations belong to the older search, as in Tempo; with `q` they are not looked at.
        query = await query_of(traceql, parse_traceql) if traceql else tags_query(tags, shortest, longest)
        found = await self._store.search(
            query,
            limit=asked.limit("limit", default=_LIMIT),
            spans_per_set=asked.limit("spss", default=_SPANS, most=_MOST_IN_A_SET),
            start=start or None,
            end=end or None,
        )
        return await large_json_of(lambda: search_answer(found, query))


def _failure(status: int, message: str) -> web.Response:
    return web.Response(text=message, status=status)


async def _echo(_request: web.Request) -> web.Response:
    return web.Response(text="echo")


async def _ready(_request: web.Request) -> web.Response:
    return web.Response(text="ready\n")


async def _build(_request: web.Request) -> web.Response:
    names = ("revision", "branch", "buildUser", "buildDate", "goVersion")
    return json_of({"version": _VERSION, **dict.fromkeys(names, "")})


def _by_id(traces: WholeTraces) -> bytes:
    """A TraceByIDResponse: trace = 1, metrics = 2, status = 3 (1: partial), message = 4."""
    whole = delimited(b"\x0a", traces.data) + delimited(b"\x12", b"")
    return whole + b"\x18\x01" + text(b"\x22", traces.warning) if traces.warning else whole
