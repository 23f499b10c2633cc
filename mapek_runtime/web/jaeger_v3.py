"""Jaeger's query API v3, which its UI asks for everything but one trace.

Jaeger demands the times of a search; its UI leaves them out once a page, so here they may be left out,
and the newest traces are looked for.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web
from aiohttp.web_app import Application

from mapek_runtime.errors import QueryError
from mapek_runtime.store import TraceStore
from mapek_runtime.store.model import FoundTrace, SearchResult

from .answering import add_routes, in_thread, json_bytes, json_of, large_json_of
from .jaeger_query import search_query
from .parameters import Parameters, trace_id_of
from .whole_traces import MOST_SPANS, WholeTraces, read_traces, resource_spans_json

__all__ = ["add_jaeger_v3", "kind_word"]

_SEARCH_DEPTH = 100


def add_jaeger_v3(app: Application, store: TraceStore, *, most_spans: int = MOST_SPANS) -> None:
    """Add the routes under `/api/v3`; `most_spans`: of one answer."""
    api = _JaegerV3(store, most_spans)
    add_routes(
        app,
        _failure,
        {
            "/api/v3/services": api.services,
            "/api/v3/operations": api.operations,
            "/api/v3/trace-summaries": api.summaries,
            "/api/v3/traces": api.traces,
            "/api/v3/traces/{trace_id:[^/]+}": api.trace,
        },
    )


def kind_word(kind: str) -> str:
    """The kind of an operation as Jaeger says it: one that nobody gave is internal."""
    return "internal" if kind == "unspecified" else kind


class _JaegerV3:
    def __init__(self, store: TraceStore, most_spans: int) -> None:
        self._store = store
        self._most_spans = most_spans

    async def services(self, _request: web.Request) -> web.Response:
        return json_of({"services": await self._store.services()})

    async def operations(self, request: web.Request) -> web.Response:
        asked = Parameters(request.query)
        kind = asked.text("spanKind", "span_kind").lower()
        found = await self._store.operations(asked.text("service") or None)
        names = dict.fromkeys((each.name, kind_word(each.kind)) for each in found)
        return await large_json_of(
            lambda: {
                "operations": [{"name": name, "spanKind": word} for name, word in names if kind in ("", word)]
            }
        )

    async def summaries(self, request: web.Request) -> web.Response:
        found = await self._search(request)
        return await large_json_of(lambda: {"summaries": [_summary(trace) for trace in found.traces]})

    async def traces(self, request: web.Request) -> web.Response:
        found = await self._search(request)
        return await self._whole([each.trace_id for each in found.traces])

    async def trace(self, request: web.Request) -> web.Response:
        asked = Parameters(request.query)
        # Where to look first; a trace that is found by its id needs no such hint.
        asked.span(("startTime", "start_time"), ("endTime", "end_time"))
        asked.flag("rawTraces", "raw_traces")
        return await self._whole([trace_id_of(request.match_info["trace_id"])])

    async def _whole(self, trace_ids: list[str]) -> web.Response:
        return await _wrapped(await read_traces(self._store, trace_ids, self._most_spans))

    async def _search(self, request: web.Request) -> SearchResult:
        asked = Parameters(request.query)
        start, end = asked.span(
            ("query.startTimeMin", "query.start_time_min"), ("query.startTimeMax", "query.start_time_max")
        )
        shortest, longest = asked.durations(
            ("query.durationMin", "query.duration_min"), ("query.durationMax", "query.duration_max")
        )
        asked.flag("query.rawTraces", "query.raw_traces")
        if asked.text("query.filter"):
            raise QueryError("malformed parameter query.filter: it is not known here; write query.attributes")
        query = search_query(
            service=asked.text("query.serviceName", "query.service_name"),
            operation=asked.text("query.operationName", "query.operation_name"),
            tags=asked.attributes("query.attributes"),
            shortest=shortest,
            longest=longest,
        )
        limit = asked.limit(
            "query.searchDepth", "query.search_depth", "query.num_traces", default=_SEARCH_DEPTH
        )
        return await self._store.search(query, limit=limit, spans_per_set=1, start=start, end=end)


def _failure(status: int, message: str) -> web.Response:
    return json_of({"error": {"httpCode": status, "message": message}}, status)


async def _wrapped(traces: WholeTraces) -> web.Response:
    if not traces.data:
        return _failure(404, "No traces found")
    body = await in_thread(lambda: resource_spans_json(traces.data))
    response = json_bytes(b'{"result":{"resourceSpans":' + body + b"}}")
    if traces.warning:
        # OTLP has no place for it.
        response.headers["Warning"] = f'199 - "{traces.warning}"'
    return response


def _summary(trace: FoundTrace) -> dict[str, Any]:
    return {
        "traceId": trace.trace_id,
        "rootServiceName": trace.root_service,
        "rootOperationName": trace.root_name,
        "minStartTimeUnixNano": str(trace.start),
        "maxEndTimeUnixNano": str(trace.end),
        "spanCount": trace.spans,
        "errorSpanCount": trace.errors,
        "orphanSpanCount": trace.orphans,
        "services": [
            {"name": name, "spanCount": count.spans, "errorSpanCount": count.errors}
            for name, count in trace.services.items()
        ],
    }
