"""What a search found, as Tempo writes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mapek_runtime.store.model import FoundSpan, FoundTrace, SearchResult, SpanSet
from mapek_runtime.store.query import syntax
from mapek_runtime.store.query.syntax import Field, Query, Scope

__all__ = ["search_answer"]

_NO_ROOT = "<root span not yet received>"
"""Tempo's words for it, which Grafana shows."""


def search_answer(found: SearchResult, query: Query) -> dict[str, Any]:
    """The answer, ready to be written as JSON."""
    fields = list(dict.fromkeys(_fields(query)))
    return {
        "traces": [_trace(trace, fields) for trace in found.traces],
        "metrics": {
            "inspectedTraces": len(found.traces),
            "inspectedBytes": "0",
            "inspectedSpans": str(found.inspected),
            # A search that ran out of time is a job that was not finished.
            "completedJobs": 1 if found.complete else 0,
            "totalJobs": 1,
        },
    }


def _trace(trace: FoundTrace, fields: list[Field]) -> dict[str, Any]:
    sets = [_span_set(each, fields) for each in trace.sets]
    written = {
        "traceID": trace.trace_id,
        "rootServiceName": trace.root_service or _NO_ROOT,
        "rootTraceName": trace.root_name,
        "startTimeUnixNano": str(trace.start),
        "durationMs": (trace.end - trace.start) // 1_000_000,
        "spanSets": sets,
        "serviceStats": {
            name: {"spanCount": count.spans, "errorCount": count.errors}
            for name, count in trace.services.items()
        },
    }
    # The older name of the first set, which older versions of Grafana read.
    return {**written, "spanSet": sets[0]} if sets else written


def _span_set(found: SpanSet, fields: list[Field]) -> dict[str, Any]:
    written: dict[str, Any] = {
        "matched": found.matched,
        "spans": [
            {
                "spanID": span.span_id,
                "name": span.name,
                "startTimeUnixNano": str(span.start),
                "durationNanos": str(span.duration),
                "attributes": [_key_value(key, value) for key, value in _shown(span, fields).items()],
            }
            for span in found.spans
        ],
    }
    if found.by:
        written["attributes"] = [_key_value(f"by({key})", value) for key, value in found.by]
    return written


def _shown(span: FoundSpan, fields: list[Field]) -> dict[str, Any]:
    """What the query spoke of, which Grafana shows in columns, and what it selected."""
    shown: dict[str, Any] = {}
    for field in fields:
        if field.scope in (Scope.SPAN, Scope.EITHER) and field.name in span.attributes:
            shown[field.name] = span.attributes[field.name]
        elif field.name == "service.name" and field.scope in (Scope.RESOURCE, Scope.EITHER):
            shown[field.name] = span.service
        elif field.name == "span:status":
            shown["status"] = span.status
        elif field.name == "span:kind":
            shown["kind"] = span.kind
    return shown | dict(span.selected)


def _fields(query: Query) -> Iterator[Field]:
    yield from _fields_of_spansets(query.spansets)
    yield from (stage.field for stage in query.stages if isinstance(stage, syntax.By))


def _fields_of_spansets(spansets: syntax.Spansets) -> Iterator[Field]:
    match spansets:
        case syntax.AllSpans():
            return
        case syntax.Filter():
            yield from _fields_of_condition(spansets.condition)
        case _:
            yield from _fields_of_spansets(spansets.left)
            yield from _fields_of_spansets(spansets.right)


def _fields_of_condition(condition: syntax.Condition) -> Iterator[Field]:
    match condition:
        case syntax.Compare():
            if condition.literal.kind is not syntax.Kind.NIL:
                yield condition.field
        case syntax.Not():
            yield from _fields_of_condition(condition.condition)
        case syntax.All() | syntax.Any():
            for each in condition.conditions:
                yield from _fields_of_condition(each)


def _key_value(key: str, value: Any) -> dict[str, Any]:
    return {"key": key, "value": _any_value(value)}


def _any_value(value: Any) -> dict[str, Any]:
    match value:
        case bool():
            return {"boolValue": value}
        case int():
            return {"intValue": str(value)}
        case float():
            return {"doubleValue": value}
        case str():
            return {"stringValue": value}
        case bytes():
            return {"bytesValue": value}
        case list() | tuple():
            return {"arrayValue": {"values": [_any_value(each) for each in value]}}
        case Mapping():
            return {"kvlistValue": {"values": [_key_value(key, each) for key, each in value.items()]}}
    return {}
