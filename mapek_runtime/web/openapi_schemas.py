"""The shapes of the query APIs' answers, as JSON Schema (2020-12), for the description of the service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

__all__ = ["SCHEMAS", "Schema", "array", "ref"]

Schema = Mapping[str, Any]
"""JSON Schema is nested and has values of many kinds."""


def ref(name: str) -> Schema:
    """Refer to one of `SCHEMAS`."""
    return {"$ref": f"#/components/schemas/{name}"}


def array(items: Schema) -> Schema:
    """A list of such values."""
    return {"type": "array", "items": items}


def _object(properties: Mapping[str, Schema], *optional: str) -> Schema:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": [name for name in properties if name not in optional],
    }


def _map(values: Schema) -> Schema:
    return {"type": "object", "additionalProperties": values}


def _text(pattern: str = "", **more: Any) -> Schema:
    return {"type": "string", **({"pattern": pattern} if pattern else {}), **more}


_TEXT: Final = _text()
_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
_DECIMAL: Final = _text("^[0-9]+$", description="A 64-bit whole number as a string")
_TRACE_ID: Final = _text("^[0-9a-f]{32}$")
_SPAN_ID: Final = _text("^[0-9a-f]{16}$")
_KIND: Final[Schema] = {"enum": ["internal", "server", "client", "producer", "consumer"]}
_OPERATION: Final = _object({"name": _TEXT, "spanKind": _KIND})
_ANYTHING: Final[Schema] = {"type": "object"}


def _envelope(data: Schema) -> Schema:
    return _object(
        {
            "data": data,
            "total": _COUNT,
            "limit": _COUNT,
            "offset": _COUNT,
            "errors": {"oneOf": [{"type": "null"}, array(ref("JaegerProblem"))]},
        }
    )


SCHEMAS: Final[Mapping[str, Schema]] = {
    "Refused": _object({"error": _TEXT}),
    "Health": _object({"status": _TEXT}),
    # Jaeger v3
    "JaegerError": _object({"error": _object({"httpCode": _COUNT, "message": _TEXT})}),
    "JaegerServices": _object({"services": array(_TEXT)}),
    "JaegerOperations": _object({"operations": array(_OPERATION)}),
    "JaegerSummaries": _object({"summaries": array(ref("JaegerSummary"))}),
    "JaegerSummary": _object(
        {
            "traceId": _TRACE_ID,
            "rootServiceName": _TEXT,
            "rootOperationName": _TEXT,
            "minStartTimeUnixNano": _DECIMAL,
            "maxEndTimeUnixNano": _DECIMAL,
            "spanCount": _COUNT,
            "errorSpanCount": _COUNT,
            "orphanSpanCount": _COUNT,
            "services": array(_object({"name": _TEXT, "spanCount": _COUNT, "errorSpanCount": _COUNT})),
        }
    ),
    "JaegerResult": _object({"result": ref("TracesData")}),
    "TracesData": _object({"resourceSpans": array(ref("ResourceSpans"))}),
    "ResourceSpans": _object(
        {"resource": _ANYTHING, "scopeSpans": array(ref("ScopeSpans")), "schemaUrl": _TEXT},
        "resource",
        "schemaUrl",
    ),
    "ScopeSpans": _object(
        {"scope": _ANYTHING, "spans": array(ref("Span")), "schemaUrl": _TEXT}, "scope", "schemaUrl"
    ),
    "Span": _object(
        {
            "traceId": _TRACE_ID,
            "spanId": _SPAN_ID,
            "parentSpanId": _text("^([0-9a-f]{16})?$"),
            "name": _TEXT,
            "kind": _COUNT,
            "startTimeUnixNano": _DECIMAL,
            "endTimeUnixNano": _DECIMAL,
            "attributes": array(_object({"key": _TEXT, "value": _ANYTHING}, "value")),
            "events": array(_ANYTHING),
            "links": array(_ANYTHING),
            "status": _ANYTHING,
        },
        "parentSpanId", "name", "kind", "startTimeUnixNano", "endTimeUnixNano", "attributes", "events",
        "links", "status",
    ),
    # Jaeger v1
    "JaegerProblem": _object({"code": _COUNT, "msg": _TEXT, "traceID": _TRACE_ID}, "traceID"),
    "JaegerFailure": _object({"data": {"type": "null"}, "errors": array(ref("JaegerProblem"))}),
    "JaegerNames": _envelope(array(_TEXT)),
    "JaegerOperationList": _envelope(array(_OPERATION)),
    "JaegerTraces": _envelope(array(ref("JaegerTrace"))),
    "JaegerDependencies": _envelope(
        array(_object({"parent": _TEXT, "child": _TEXT, "callCount": _COUNT}))
    ),
    "JaegerTrace": _object(
        {
            "traceID": _text("^[0-9a-f]*$"),
            "spans": array(ref("JaegerSpan")),
            "processes": _map(_object({"serviceName": _TEXT, "tags": array(ref("JaegerTag"))})),
            "warnings": {"oneOf": [{"type": "null"}, array(_TEXT)]},
        }
    ),
    "JaegerSpan": _object(
        {
            "traceID": _text("^[0-9a-f]*$"),
            "spanID": _text("^[0-9a-f]*$"),
            "flags": _COUNT,
            "operationName": _TEXT,
            "references": array(
                _object(
                    {"refType": {"enum": ["CHILD_OF", "FOLLOWS_FROM"]}, "traceID": _TEXT, "spanID": _TEXT}
                )
            ),
            "startTime": {**_COUNT, "description": "Microseconds since 1970"},
            "duration": {**_COUNT, "description": "Microseconds"},
            "tags": array(ref("JaegerTag")),
            "logs": array(_object({"timestamp": _COUNT, "fields": array(ref("JaegerTag"))})),
            "processID": _TEXT,
            "warnings": {"oneOf": [{"type": "null"}, array(_TEXT)]},
        },
        "flags",
    ),
    "JaegerTag": _object(
        {
            "key": _TEXT,
            "type": {"enum": ["string", "bool", "int64", "float64", "binary"]},
            "value": {"type": ["string", "boolean", "number"]},
        }
    ),
    "JaegerMetrics": _object(
        {
            "name": _TEXT,
            "type": {"const": "GAUGE"},
            "help": _TEXT,
            "metrics": array(
                _object(
                    {
                        "labels": array(_object({"name": _TEXT, "value": _TEXT})),
                        "metricPoints": array(
                            _object(
                                {
                                    "gaugeValue": _object({"doubleValue": {"type": "number"}}),
                                    "timestamp": _text(format="date-time"),
                                }
                            )
                        ),
                    }
                )
            ),
        }
    ),
    # Tempo
    "TempoTrace": _object(
        {
            "trace": ref("TracesData"),
            "metrics": _ANYTHING,
            "status": {"enum": ["COMPLETE", "PARTIAL"]},
            "message": _TEXT,
        },
        "status",
        "message",
    ),
    "TempoSearch": _object({"traces": array(ref("TempoFoundTrace")), "metrics": _ANYTHING}),
    "TempoFoundTrace": _object(
        {
            "traceID": _TRACE_ID,
            "rootServiceName": _TEXT,
            "rootTraceName": _TEXT,
            "startTimeUnixNano": _DECIMAL,
            "durationMs": _COUNT,
            "spanSet": ref("TempoSpanSet"),
            "spanSets": array(ref("TempoSpanSet")),
            "serviceStats": _map(_object({"spanCount": _COUNT, "errorCount": _COUNT})),
        },
        "spanSet",
    ),
    "TempoSpanSet": _object(
        {
            "matched": _COUNT,
            "attributes": array(ref("TempoAttribute")),
            "spans": array(
                _object(
                    {
                        "spanID": _SPAN_ID,
                        "name": _TEXT,
                        "startTimeUnixNano": _DECIMAL,
                        "durationNanos": _DECIMAL,
                        "attributes": array(ref("TempoAttribute")),
                    }
                )
            ),
        },
        "attributes",
    ),
    "TempoAttribute": _object({"key": _TEXT, "value": _ANYTHING}),
    "TempoTagNames": _object({"tagNames": array(_TEXT), "metrics": _ANYTHING}),
    "TempoTagScopes": _object(
        {"scopes": array(_object({"name": _TEXT, "tags": array(_TEXT)})), "metrics": _ANYTHING}
    ),
    "TempoTagTexts": _object({"tagValues": array(_TEXT), "metrics": _ANYTHING}),
    "TempoTagValues": _object(
        {"tagValues": array(_object({"type": _TEXT, "value": _TEXT})), "metrics": _ANYTHING}
    ),
    "TempoBuild": _object({"version": _TEXT}),
}  # fmt: skip
