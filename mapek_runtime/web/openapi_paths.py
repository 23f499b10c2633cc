"""The routes of the query APIs and of the service, as OpenAPI 3.1 describes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from .openapi_schemas import Schema, ref

__all__ = ["PATHS"]

Described = Mapping[str, Any]
"""A part of the description: nested, with values of many kinds."""

_JSON: Final = "application/json"
_TEXT: Final[Schema] = {"type": "string"}
_WHOLE: Final[Schema] = {"type": "integer", "minimum": 0, "maximum": (1 << 63) - 1}
_FLAG: Final[Schema] = {"type": "boolean"}
_LIMIT: Final[Schema] = {"type": "integer", "minimum": 1}
_DURATION: Final[Schema] = {"type": "string", "pattern": "^[0-9]{1,6}(ns|us|ms|s|m|h)$"}
_MOMENT: Final[Schema] = {"type": "string", "format": "date-time"}
_TRACE_ID: Final[Schema] = {"type": "string", "pattern": "^[0-9a-fA-F]{1,32}$"}
_KIND: Final[Schema] = {"enum": ["unspecified", "internal", "server", "client", "producer", "consumer"]}
_TAGS: Final[Schema] = {
    "type": "string",
    "contentMediaType": _JSON,
    "contentSchema": {"type": "object", "additionalProperties": _TEXT},
}


def _content(media: str, schema: Schema | None) -> Described:
    return {"content": {media: {"schema": schema} if schema else {}}}


def _json(name: str) -> Described:
    return {"description": "The answer", **_content(_JSON, ref(name))}


def _plain(description: str = "The answer") -> Described:
    return {"description": description, **_content("text/plain", _TEXT)}


_REFUSED: Final[Described] = {
    status: {"description": why, **_content(_JSON, ref("Refused"))}
    for status, why in (
        ("401", "A token is needed, or it is wrong"),
        ("403", "A page of another origin asked"),
        ("421", "The Host header is not one of this server's names"),
    )
}


def _failures(schema: str, *more: str) -> Described:
    """What goes wrong, in the API's own shape: JSON, or without a schema plain text."""
    shape = _content(_JSON, ref(schema)) if schema else _content("text/plain", _TEXT)
    reasons = {
        "400": "A parameter is wrong; the message says which, and what would be right",
        "404": "There is no such trace",
        "413": "The body is too large",
        "503": "The store cannot be read",
    }
    return {status: {"description": reasons[status], **shape} for status in ("400", *more, "503")}


def _query(name: str, schema: Schema, description: str = "", **more: Any) -> Described:
    described = {"name": name, "in": "query", "schema": schema, **more}
    return {**described, "description": description} if description else described


def _path(name: str, schema: Schema) -> Described:
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _get(
    tag: str, summary: str, ok: Described, failures: Described, parameters: Sequence[Described] = ()
) -> Described:
    return {
        "get": {
            "tags": [tag],
            "summary": summary,
            "parameters": list(parameters),
            "responses": {"200": ok, **failures, **_REFUSED},
        }
    }


def _v3(summary: str, schema: str, *parameters: Described, missing: bool = False) -> Described:
    failures = _failures("JaegerError", *(["404"] if missing else []))
    return _get("Jaeger v3", summary, _json(schema), failures, parameters)


def _v1(summary: str, schema: str, *parameters: Described) -> Described:
    return _get("Jaeger v1", summary, _json(schema), _failures("JaegerFailure"), parameters)


def _tempo(summary: str, ok: Described, *parameters: Described, missing: bool = False) -> Described:
    return _get("Tempo", summary, ok, _failures("", *(["404"] if missing else [])), parameters)


def _service(summary: str, ok: Described, *more: str) -> Described:
    responses = {"200": ok, **dict.fromkeys(more, ok), **_REFUSED}
    return {"get": {"tags": ["Service"], "summary": summary, "responses": responses}}


_SEARCH_V3: Final = (
    _query("query.serviceName", _TEXT),
    _query("query.operationName", _TEXT),
    _query("query.startTimeMin", _MOMENT, "With both times left out the newest traces are looked for"),
    _query("query.startTimeMax", _MOMENT),
    _query("query.searchDepth", _LIMIT, "Traces at most; more than 1500 counts as 1500"),
    _query("query.durationMin", _DURATION),
    _query("query.durationMax", _DURATION),
    _query("query.attributes", _TAGS, 'Such as {"success":"false"}'),
    _query("query.rawTraces", _FLAG),
)
_METRICS: Final = (
    _query("service", {"type": "array", "items": _TEXT, "minItems": 1}, required=True, explode=True),
    _query("spanKind", {"type": "array", "items": _KIND}, "server, unless others are given", explode=True),
    _query("groupByOperation", _FLAG),
    _query("endTs", _WHOLE, "Milliseconds since 1970"),
    _query("lookback", _LIMIT, "Milliseconds"),
    _query("step", _LIMIT, "Milliseconds; rounded up to whole minutes"),
    _query("ratePer", _LIMIT, "Milliseconds; taken, and not used: a rate is that of its step"),
)
_SECONDS: Final = (
    _query("start", _WHOLE, "Seconds since 1970"),
    _query("end", _WHOLE, "Seconds since 1970"),
)
_TAG_SCOPE: Final = _query(
    "scope", {"enum": ["none", "resource", "span", "event", "link", "instrumentation", "intrinsic"]}
)
_OTLP: Final[Schema] = {
    "type": "object",
    "properties": {"resourceSpans": {"type": "array", "items": {"type": "object"}}},
    "externalDocs": {"url": "https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding"},
}
_PROTOBUF: Final[Described] = {"application/protobuf": {}}


PATHS: Final[Mapping[str, Described]] = {
    "/api/v3/services": _v3("The services", "JaegerServices"),
    "/api/v3/operations": _v3(
        "The operations of a service", "JaegerOperations", _query("service", _TEXT), _query("spanKind", _KIND)
    ),
    "/api/v3/trace-summaries": _v3("Search, with a summary of each trace", "JaegerSummaries", *_SEARCH_V3),
    "/api/v3/traces": _v3("Search, with the spans", "JaegerResult", *_SEARCH_V3, missing=True),
    "/api/v3/traces/{trace_id}": _v3(
        "One trace", "JaegerResult", _path("trace_id", _TRACE_ID), _query("startTime", _MOMENT),
        _query("endTime", _MOMENT), _query("rawTraces", _FLAG), missing=True,
    ),
    "/api/services": _v1("The services", "JaegerNames"),
    "/api/services/{service}/operations": _v1(
        "The names of a service's operations", "JaegerNames", _path("service", {**_TEXT, "minLength": 1})
    ),
    "/api/operations": _v1(
        "The operations of a service", "JaegerOperationList", _query("service", _TEXT, required=True),
        _query("spanKind", _KIND),
    ),
    "/api/traces": _v1(
        "Search", "JaegerTraces",
        _query("service", _TEXT, "Required, unless there is a traceID"),
        _query("operation", _TEXT),
        _query("tags", _TAGS, 'Such as {"success":"false"}'),
        _query("tag", {"type": "array", "items": {"type": "string", "pattern": "^[^:]+:"}}, explode=True),
        _query("start", _WHOLE, "Microseconds since 1970"),
        _query("end", _WHOLE, "Microseconds since 1970"),
        _query("limit", _LIMIT, "Traces at most; more than 1500 counts as 1500"),
        _query("minDuration", _DURATION),
        _query("maxDuration", _DURATION),
        _query("traceID", {"type": "array", "items": _TRACE_ID, "maxItems": 100}, explode=True),
        _query("prettyPrint", _FLAG),
    ),
    "/api/traces/{trace_id}": {
        "get": {
            "tags": ["Jaeger v1", "Tempo"],
            "summary": "One trace: as Jaeger's JSON, or for who accepts protobuf as TracesData of OTLP",
            "parameters": [
                _path("trace_id", _TRACE_ID),
                _query("start", _WHOLE),
                _query("end", _WHOLE),
                _query("raw", _FLAG),
            ],
            "responses": {
                "200": {
                    "description": "The trace",
                    "content": {_JSON: {"schema": ref("JaegerTraces")}, **_PROTOBUF},
                },
                **_failures("JaegerFailure"),
                "404": {
                    "description": "There is no such trace",
                    "content": {
                        _JSON: {"schema": ref("JaegerFailure")},
                        "text/plain": {"schema": _TEXT},
                    },
                },
                **_REFUSED,
            },
        }
    },
    "/api/dependencies": _v1(
        "Which service calls which", "JaegerDependencies", _query("endTs", _WHOLE, "Milliseconds since 1970"),
        _query("lookback", _LIMIT, "Milliseconds"), _query("service", _TEXT),
    ),
    "/api/transform": {
        "post": {
            "tags": ["Jaeger v1"],
            "summary": "Spans of a file, in OTLP's JSON, as Jaeger's UI draws them; nothing is stored",
            "requestBody": {"required": True, **_content(_JSON, _OTLP)},
            "responses": {
                "200": _json("JaegerTraces"), **_failures("JaegerFailure", "413"), **_REFUSED,
            },
        }
    },
    "/api/metrics/latencies": _v1(
        "Percentiles of durations, in milliseconds", "JaegerMetrics", *_METRICS,
        _query("quantile", {"type": "number", "minimum": 0, "maximum": 1}, required=True),
    ),
    "/api/metrics/calls": _v1("Calls a second", "JaegerMetrics", *_METRICS),
    "/api/metrics/errors": _v1("Share of the calls that failed", "JaegerMetrics", *_METRICS),
    "/api/v2/traces/{trace_id}": _tempo(
        "One trace, with whether it is whole",
        {
            "description": "The trace",
            "content": {_JSON: {"schema": ref("TempoTrace")}, **_PROTOBUF},
        },
        _path("trace_id", _TRACE_ID), *_SECONDS, missing=True,
    ),
    "/api/search": _tempo(
        "Search with TraceQL, or with tags", _json("TempoSearch"),
        _query("q", _TEXT, 'TraceQL, such as { name =~ "mape_k.*" && duration > 50ms }'),
        _query("tags", _TEXT, "The older form: key=value pairs in logfmt; not together with q"),
        _query("minDuration", _DURATION, "Of the trace; with tags"),
        _query("maxDuration", _DURATION, "Of the trace; with tags"),
        _query("limit", _LIMIT, "Traces at most; more than 1500 counts as 1500"),
        _query("spss", _LIMIT, "Spans of each set"),
        *_SECONDS,
    ),
    "/api/search/tags": _tempo("The keys of attributes", _json("TempoTagNames"), _TAG_SCOPE, *_SECONDS),
    "/api/v2/search/tags": _tempo(
        "The keys of attributes by scope", _json("TempoTagScopes"), _TAG_SCOPE, _query("limit", _LIMIT),
        *_SECONDS,
    ),
    "/api/search/tag/{tag}/values": _tempo(
        "The values of an attribute", _json("TempoTagTexts"), _path("tag", {**_TEXT, "minLength": 1}),
        *_SECONDS,
    ),
    "/api/v2/search/tag/{tag}/values": _tempo(
        "The values of a field, with their types", _json("TempoTagValues"),
        _path("tag", {**_TEXT, "minLength": 1}),
        _query("q", _TEXT, "TraceQL; of one that is not complete what is complete is used"),
        _query("limit", _LIMIT), *_SECONDS,
    ),
    "/api/echo": _tempo("Whether somebody is there", _plain()),
    "/api/status/buildinfo": _tempo("Which of Tempo's versions this is like", _json("TempoBuild")),
    "/ready": _tempo("Whether somebody is there", _plain()),
    "/livez": _service("Whether the process is alive", _json("Health"), "503"),
    "/readyz": _service("Whether it can do its work", _json("Health"), "503"),
    "/health": _service("What is well and what is not", _json("Health"), "503"),
    "/metrics": _service("Metrics, as Prometheus or OpenMetrics", _plain()),
    "/openapi.json": _service("This description", {"description": "OpenAPI 3.1", **_content(_JSON, None)}),
    "/v1/traces": {
        "post": {
            "tags": ["OTLP"],
            "summary": "Takes spans: an ExportTraceServiceRequest, in protobuf or JSON, gzip or not",
            "requestBody": {
                "required": True,
                "content": {_JSON: {"schema": _OTLP}, "application/x-protobuf": {}},
            },
            "responses": {
                status: {"description": why, "content": {_JSON: {}, "application/x-protobuf": {}}}
                for status, why in (
                    ("200", "Taken; partialSuccess says what was not"),
                    ("400", "This cannot be read"),
                    ("401", "A token is needed, or it is wrong"),
                    ("403", "A page of another origin asked"),
                    ("413", "Too large, as it came or unpacked"),
                    ("415", "The content type or encoding is not known"),
                    ("421", "The Host header is not one of this server's names"),
                    ("429", "Too much at once; come again"),
                    ("503", "The store cannot be written; come again"),
                )
            },
        }
    },
}  # fmt: skip
