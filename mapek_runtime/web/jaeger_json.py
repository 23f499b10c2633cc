"""Spans of OTLP as Jaeger's own JSON, the form in which its UI and Grafana read a trace.

What OTLP has in fields of its own becomes tags, named as the Collector's translator for Jaeger names
them. A slice of spans is parsed at a time and each span is written at once, so that the interpreter is
never held for long; it is still a matter of seconds for a huge trace: call it in a thread.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span, Status

from mapek_runtime.store.attributes import as_dict
from mapek_runtime.store.decode import UNKNOWN_SERVICE
from mapek_runtime.store.framing import Slice
from mapek_runtime.store.model import SPAN_KINDS

__all__ = ["JaegerTrace", "jaeger_traces"]

_MICROSECOND = 1_000
_SAFE = (1 << 53) - 1
"""The greatest whole number that JavaScript reads exactly; Jaeger gives larger ones as strings."""
_MOST_BYTES = 128 << 20
"""Of an answer: what stands once in OTLP, such as the scope, stands at each span here."""
_STATUSES = {Status.STATUS_CODE_OK: "OK", Status.STATUS_CODE_ERROR: "ERROR"}
_encode = msgspec.json.Encoder().encode


class JaegerTrace:
    """One trace: what was written of it so far."""

    def __init__(self, trace_id: str) -> None:
        self.trace_id = trace_id
        self._spans: dict[bytes, bytes] = {}
        self._processes: dict[bytes, str] = {}
        self.left_out = 0
        """Spans for which there was no room."""

    def __len__(self) -> int:
        return len(self._spans)

    def add(self, span: Span, process: bytes, scope_tags: list[dict[str, Any]]) -> int:
        """A span, once; `process` is what has it, written as JSON. Gives the bytes that it takes."""
        if span.span_id in self._spans:
            return 0
        number = self._processes.setdefault(process, f"p{len(self._processes) + 1}")
        written = self._spans[span.span_id] = _encode(_span(span, self.trace_id, number, scope_tags))
        return len(written)

    def encode(self, *warnings: str) -> bytes:
        """The trace, with what its reader should know of it."""
        if self.left_out:
            warnings += (
                f"{self.left_out} spans are left out: the answer would have more than {_MOST_BYTES} bytes",
            )
        processes = b",".join(b'"%b":%b' % (key.encode(), text) for text, key in self._processes.items())
        return b'{"traceID":"%b","spans":[%b],"processes":{%b},"warnings":%b}' % (
            self.trace_id.encode(),
            b",".join(self._spans.values()),
            processes,
            _encode(warnings or None),
        )


def jaeger_traces(pieces: Iterable[Slice]) -> list[JaegerTrace]:
    """The traces that a request in slices holds, in the order in which they begin there.

    Raises protobuf's DecodeError for bytes that are no spans.
    """
    traces: dict[bytes, JaegerTrace] = {}
    resource = scope = None
    process, scope_tags = b"", list[dict[str, Any]]()
    left = _MOST_BYTES
    for piece in pieces:
        if piece.resource is not resource:
            resource = piece.resource
            process = _encode(_process(resource))
        if piece.scope is not scope:
            scope = piece.scope
            scope_tags = list(_scope_tags(scope))
        for span in ScopeSpans.FromString(piece.spans).spans:
            trace = traces.get(span.trace_id)
            if trace is None:
                trace = traces[span.trace_id] = JaegerTrace(span.trace_id.hex())
            if left > 0:
                left -= trace.add(span, process, scope_tags)
            else:
                trace.left_out += 1
    return list(traces.values())


def _process(resource: bytes) -> dict[str, Any]:
    attributes = as_dict(Resource.FromString(resource).attributes)
    service = attributes.pop("service.name", None)
    return {"serviceName": str(service or UNKNOWN_SERVICE), "tags": _tags(attributes)}


def _scope_tags(scope: bytes) -> Iterator[dict[str, Any]]:
    message = InstrumentationScope.FromString(scope)
    if message.name:
        yield _tag("otel.scope.name", message.name)
    if message.version:
        yield _tag("otel.scope.version", message.version)


def _span(span: Span, trace_id: str, process: str, scope_tags: list[dict[str, Any]]) -> dict[str, Any]:
    duration = span.end_time_unix_nano - span.start_time_unix_nano
    written = {
        "traceID": trace_id,
        "spanID": span.span_id.hex(),
        "operationName": span.name,
        "references": list(_references(span, trace_id)),
        "startTime": span.start_time_unix_nano // _MICROSECOND,
        "duration": max(duration, 0) // _MICROSECOND,
        "tags": [*scope_tags, *_span_tags(span)],
        "logs": [_log(event) for event in span.events],
        "processID": process,
        "warnings": ["the span ends before it starts; its duration is given as 0"] if duration < 0 else None,
    }
    if span.flags & 0xFF:
        written["flags"] = span.flags & 0xFF
    return written


def _references(span: Span, trace_id: str) -> Iterator[dict[str, str]]:
    if span.parent_span_id.strip(b"\0"):
        yield {"refType": "CHILD_OF", "traceID": trace_id, "spanID": span.parent_span_id.hex()}
    for link in span.links:
        yield {"refType": "FOLLOWS_FROM", "traceID": link.trace_id.hex(), "spanID": link.span_id.hex()}


def _span_tags(span: Span) -> list[dict[str, Any]]:
    tags = _tags(as_dict(span.attributes))
    if 0 < span.kind < len(SPAN_KINDS):
        tags.append(_tag("span.kind", SPAN_KINDS[span.kind]))
    code = _STATUSES.get(span.status.code)
    if code:
        tags.append(_tag("otel.status_code", code))
    if code == "ERROR":
        tags.append(_tag("error", True))
    if span.status.message:
        tags.append(_tag("otel.status_description", span.status.message))
    if span.trace_state:
        tags.append(_tag("w3c.tracestate", span.trace_state))
    return tags


def _log(event: Span.Event) -> dict[str, Any]:
    fields = _tags(as_dict(event.attributes))
    if event.name:
        fields.insert(0, _tag("event", event.name))
    return {"timestamp": event.time_unix_nano // _MICROSECOND, "fields": fields}


def _tags(attributes: dict[str, Any]) -> list[dict[str, Any]]:
    return [_tag(key, value) for key, value in attributes.items()]


def _tag(key: str, value: Any) -> dict[str, Any]:  # a value of OTLP, which may be a list or a mapping
    match value:
        case bool():
            kind = "bool"
        case int():
            kind, value = "int64", value if -_SAFE <= value <= _SAFE else str(value)
        case float() if math.isfinite(value):
            kind = "float64"
        case bytes():
            kind = "binary"
        case str():
            kind = "string"
        case None:
            kind, value = "string", ""
        case float():
            # JSON has no word for these.
            kind, value = "string", str(value)
        case _:
            kind, value = "string", _encode(value).decode()
    return {"key": key, "type": kind, "value": value}
