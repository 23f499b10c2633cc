"""Jaeger's older query API, which Grafana asks, and Jaeger's UI for one trace.

`/api/traces/{trace_id}` is Tempo's as well: who accepts protobuf speaks with Tempo.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.web_app import Application
from google.protobuf.message import DecodeError

from mapek_runtime.errors import QueryError
from mapek_runtime.store import TraceStore
from mapek_runtime.store.framing import slices
from mapek_runtime.store.model import Dependency
from mapek_runtime.store.otlp_json import pieces
from mapek_runtime.store.receiver import Refused, json_items

from .answering import add_routes, in_thread, json_bytes, json_of
from .jaeger_json import JaegerTrace, jaeger_traces
from .jaeger_metrics import JaegerMetrics
from .jaeger_query import search_query
from .jaeger_v3 import kind_word
from .parameters import HOUR, MICROSECOND, MILLISECOND, Parameters, trace_id_of
from .tempo import bare_trace, wants_protobuf
from .whole_traces import MOST_SPANS, WholeTraces, read_traces

__all__ = ["add_jaeger_v1"]

_LIMIT = 100
_LOOKBACK = 24 * HOUR
_MOST_IDS = 100
_MOST_PRETTY = 1 << 20
"""Bytes up to which an answer is written for people: that is done in one go."""
_NOT_FOUND = "trace not found"


def add_jaeger_v1(app: Application, store: TraceStore, *, most_spans: int = MOST_SPANS) -> None:
    """Add the routes under `/api` that are Jaeger's, and `/api/traces/{trace_id}` for Tempo too.

    `most_spans`: of one answer.
    """
    api = _JaegerV1(store, most_spans)
    metrics = JaegerMetrics(store)
    # By itself aiohttp lets no braces be in a part of a path; names and wrong ids may have some.
    handlers = {
        "/api/services": api.services,
        "/api/services/{service:[^/]+}/operations": api.names,
        "/api/operations": api.operations,
        "/api/traces": api.traces,
        "/api/traces/{trace_id:[^/]+}": api.trace,
        "/api/dependencies": api.dependencies,
        "/api/metrics/latencies": metrics.latencies,
        "/api/metrics/calls": metrics.calls,
        "/api/metrics/errors": metrics.errors,
    }
    add_routes(app, _failure, handlers)
    add_routes(app, _failure, {"/api/transform": api.transform}, "POST")


class _JaegerV1:
    def __init__(self, store: TraceStore, most_spans: int) -> None:
        self._store = store
        self._most_spans = most_spans

    async def services(self, request: web.Request) -> web.Response:
        return await _listed(request, await self._store.services())

    async def names(self, request: web.Request) -> web.Response:
        found = await self._store.operations(request.match_info["service"])
        return await _listed(request, list(dict.fromkeys(each.name for each in found)))

    async def operations(self, request: web.Request) -> web.Response:
        asked = Parameters(request.query)
        service, kind = asked.text("service"), asked.text("spanKind", "span_kind").lower()
        if not service:
            raise QueryError("parameter 'service' is required")
        found = await self._store.operations(service)
        names = dict.fromkeys((each.name, kind_word(each.kind)) for each in found)
        return await _listed(
            request, [{"name": name, "spanKind": word} for name, word in names if kind in ("", word)]
        )

    async def traces(self, request: web.Request) -> web.Response:
        asked = Parameters(request.query)
        asked.flag("raw")
        start, end = asked.span(("start",), ("end",), MICROSECOND)
        shortest, longest = asked.durations(("minDuration",), ("maxDuration",))
        tags = {**asked.attributes("tags"), **asked.tags("tag")}
        limit = asked.limit("limit", default=_LIMIT)
        ids = [trace_id_of(each) for each in asked.every("traceID")]
        if len(ids) > _MOST_IDS:
            raise QueryError(f"parameter 'traceID' was given {len(ids)} times; at most {_MOST_IDS}")
        if not ids:
            service = asked.text("service")
            if not service:
                raise QueryError("parameter 'service' is required")
            query = search_query(
                service=service,
                operation=asked.text("operation"),
                tags=tags,
                shortest=shortest,
                longest=longest,
            )
            found = await self._store.search(query, limit=limit, spans_per_set=1, start=start, end=end)
            ids = [each.trace_id for each in found.traces]
        traces = await read_traces(self._store, ids, self._most_spans)
        errors = [{"code": 404, "msg": _NOT_FOUND, "traceID": each} for each in traces.missing]
        return await _traces(request, traces, errors)

    async def trace(self, request: web.Request) -> web.Response:
        trace_id = trace_id_of(request.match_info["trace_id"])
        if wants_protobuf(request):
            return await bare_trace(self._store, trace_id, self._most_spans)
        asked = Parameters(request.query)
        asked.span(("start",), ("end",), MICROSECOND)
        asked.flag("raw")
        traces = await read_traces(self._store, [trace_id], self._most_spans)
        if not traces.data:
            # Grafana takes the first trace of an answer of 200 without looking whether there is one.
            return _failure(404, _NOT_FOUND)
        return await _traces(request, traces)

    async def dependencies(self, request: web.Request) -> web.Response:
        asked = Parameters(request.query)
        end = asked.unix("endTs", MILLISECOND)
        end = time.time_ns() if end is None else end
        start = max(0, end - asked.units("lookback", MILLISECOND, _LOOKBACK))
        service = asked.text("service")
        found = await self._store.dependencies(start=start, end=end)
        return await _listed(
            request, [_link(each) for each in found if service in ("", each.parent, each.child)]
        )

    async def transform(self, request: web.Request) -> web.Response:
        """Spans that somebody has as a file, in the form that the UI draws; nothing is stored."""
        body = await request.read()

        def transformed() -> list[JaegerTrace]:
            json_items(body)
            return jaeger_traces(pieces(body, []))

        try:
            traces = await in_thread(transformed)
        except Refused as refused:
            return _failure(refused.status, refused.message)
        except (ValueError, DecodeError) as error:
            raise QueryError(f"the body is no OTLP JSON: {error}") from None
        return await _encoded(request, lambda: [trace.encode() for trace in traces])


def _failure(status: int, message: str) -> web.Response:
    return json_of({"data": None, "errors": [{"code": status, "msg": message}]}, status)


async def _listed(request: web.Request, data: Sequence[Any]) -> web.Response:
    envelope = {"data": data, "total": len(data), "limit": 0, "offset": 0, "errors": None}
    return json_bytes(await in_thread(lambda: _pretty(request, msgspec.json.encode(envelope))))


async def _traces(
    request: web.Request, traces: WholeTraces, errors: list[dict[str, Any]] | None = None
) -> web.Response:
    def encoded() -> list[bytes]:
        found = jaeger_traces(slices(traces.data))
        more = f"{traces.unread} more traces were found and left out: ask for fewer"
        return [
            trace.encode(
                *([traces.cut[trace.trace_id]] if trace.trace_id in traces.cut else []),
                *([more] if traces.unread and trace is found[-1] else []),
            )
            for trace in found
        ]

    return await _encoded(request, encoded, errors)


async def _encoded(
    request: web.Request, encode: Callable[[], Iterable[bytes]], errors: list[dict[str, Any]] | None = None
) -> web.Response:
    def body() -> bytes:
        traces = list(encode())
        return b'{"data":[%b],"total":%d,"limit":0,"offset":0,"errors":%b}' % (
            b",".join(traces), len(traces), msgspec.json.encode(errors or None)
        )  # fmt: skip

    return json_bytes(_pretty(request, await in_thread(body)))


def _pretty(request: web.Request, body: bytes) -> bytes:
    asked = Parameters(request.query).text("prettyPrint")
    return (
        msgspec.json.format(body, indent=4)
        if asked not in ("", "false") and len(body) < _MOST_PRETTY
        else body
    )


def _link(dependency: Dependency) -> dict[str, Any]:
    return {"parent": dependency.parent, "child": dependency.child, "callCount": dependency.calls}
