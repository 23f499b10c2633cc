"""What the store answers, in the shapes that the page reads: nanoseconds as decimal strings, bytes as base64.

Pure, and for large traces slow: to be called in a thread.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from mapek_runtime.store.attributes import as_dict
from mapek_runtime.store.model import FoundSpan, FoundTrace, Latency, StoredTrace

__all__ = ["brief_span", "found_trace", "incomplete_since", "latency_series", "stored_trace"]

_KINDS = ("unspecified", "internal", "server", "client", "producer", "consumer")
_STATUSES = ("unset", "ok", "error")
_EXACT = 1 << 53
"""Up to here every integer is a double."""


def stored_trace(trace: StoredTrace) -> dict[str, Any]:
    """A page of a trace, with every span whole."""
    spans: list[dict[str, Any]] = []
    for group in TracesData.FromString(trace.data).resource_spans:
        resource = _plain(as_dict(group.resource.attributes))
        service = str(resource.get("service.name") or "unknown_service")
        for scoped in group.scope_spans:
            for span in scoped.spans:
                start = span.start_time_unix_nano
                spans.append(
                    {
                        "span_id": span.span_id.hex(),
                        "parent_id": span.parent_span_id.hex(),
                        "service": service,
                        "scope": scoped.scope.name,
                        "name": span.name,
                        "kind": _word(_KINDS, span.kind),
                        "status": _word(_STATUSES, span.status.code),
                        "status_message": span.status.message,
                        "start": str(start),
                        "duration": str(max(span.end_time_unix_nano - start, 0)),
                        "attributes": _plain(as_dict(span.attributes)),
                        "resource": resource,
                        "events": [
                            {
                                "name": event.name,
                                "time": str(event.time_unix_nano),
                                "attributes": _plain(as_dict(event.attributes)),
                            }
                            for event in span.events
                        ],
                        "links": [
                            {
                                "trace_id": link.trace_id.hex(),
                                "span_id": link.span_id.hex(),
                                "attributes": _plain(as_dict(link.attributes)),
                            }
                            for link in span.links
                        ],
                    }
                )
    spans.sort(key=lambda each: int(each["start"]))
    return {"trace_id": trace.trace_id, "total": trace.total, "offset": trace.offset, "spans": spans}


def incomplete_since(trace: Mapping[str, Any]) -> int | None:
    """When the newest span of a trace in which a parent is missing has ended; None when all are there.

    Spans end before their parents, and may be stored before them.
    """
    if len(trace["spans"]) != trace["total"]:
        return None
    here = {span["span_id"] for span in trace["spans"]}
    if all(not span["parent_id"] or span["parent_id"] in here for span in trace["spans"]):
        return None
    return max(int(span["start"]) + int(span["duration"]) for span in trace["spans"])


def found_trace(trace: FoundTrace) -> dict[str, Any]:
    """A trace that a query found."""
    return {
        "trace_id": trace.trace_id,
        "root_service": trace.root_service,
        "root_name": trace.root_name,
        "start": str(trace.start),
        "end": str(trace.end),
        "duration": str(trace.end - trace.start),
        "spans": trace.spans,
        "errors": trace.errors,
        "orphans": trace.orphans,
        "services": {
            name: {"spans": count.spans, "errors": count.errors} for name, count in trace.services.items()
        },
        "sets": [
            {
                "matched": each.matched,
                "by": [[name, _value(value)] for name, value in each.by],
                "spans": [_found_span(span) for span in each.spans],
            }
            for each in trace.sets
        ],
    }


def brief_span(span: FoundSpan) -> dict[str, Any]:
    """A span that a query found, as far as a histogram needs it."""
    return {
        "trace_id": span.trace_id,
        "span_id": span.span_id,
        "name": span.name,
        "service": span.service,
        "start": str(span.start),
        "duration": str(span.duration),
        "status": span.status,
    }


def latency_series(rows: Iterable[Latency]) -> list[dict[str, Any]]:
    """One series for each operation, its points in the order of time."""
    series: dict[tuple[str, str, str], list[Latency]] = {}
    for row in rows:
        operation = row.operation
        series.setdefault((operation.service, operation.name, operation.kind), []).append(row)
    return [
        {
            "service": service,
            "name": name,
            "kind": kind,
            "points": [
                {
                    "start": str(row.start),
                    "spans": row.spans,
                    "errors": row.errors,
                    "p50": _nanoseconds(row.p50),
                    "p95": _nanoseconds(row.p95),
                    "p99": _nanoseconds(row.p99),
                }
                for row in sorted(points, key=lambda row: row.start)
            ],
        }
        for (service, name, kind), points in series.items()
    ]


def _found_span(span: FoundSpan) -> dict[str, Any]:
    return {
        **brief_span(span),
        "parent_id": span.parent_id,
        "kind": span.kind,
        "attributes": _plain(span.attributes),
        "selected": _plain(span.selected),
    }


def _nanoseconds(value: float) -> str:
    return str(round(value)) if math.isfinite(value) else "0"


def _word(words: tuple[str, ...], number: int) -> str:
    # An enum of OTLP is open: a later version may have more.
    return words[number] if 0 <= number < len(words) else str(number)


def _plain(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _value(value) for key, value in attributes.items()}


_SURROGATE = re.compile("[\ud800-\udfff]")


def _value(value: Any) -> Any:
    """The same as JSON and JavaScript can hold it without loss."""
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, int):
        return value if -_EXACT <= value <= _EXACT else str(value)
    if isinstance(value, float):
        # JSON has no word for these, and null would be another value.
        return value if math.isfinite(value) else str(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Mapping):
        return {str(key): _value(each) for key, each in value.items()}
    return [_value(each) for each in value]
