"""One trace of very many spans: a tree in which each span has ten children."""

from __future__ import annotations

from collections.abc import Iterator

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from mapek_runtime.store import TraceStore

__all__ = ["SPANS_AT_ONCE", "TRACE", "huge_trace", "requests", "span_id_of"]

TRACE = "f" * 31 + "1"
SPANS_AT_ONCE = 5_000
_START = 1_760_000_000_000_000_000
_CHILDREN = 10


def span_id_of(number: int) -> str:
    """The id of a span, the root being number 0."""
    return f"{number + 1:016x}"


def requests(spans: int, trace_id: str = TRACE) -> Iterator[tuple[bytes, int]]:
    """Export requests that make up the trace, parents first, each with its number of spans."""
    trace = bytes.fromhex(trace_id)
    for first in range(0, spans, SPANS_AT_ONCE):
        request = ExportTraceServiceRequest()
        under = request.resource_spans.add()
        under.resource.attributes.add(key="service.name").value.string_value = "huge"
        within = under.scope_spans.add()
        for number in range(first, min(spans, first + SPANS_AT_ONCE)):
            span = within.spans.add(trace_id=trace, span_id=bytes.fromhex(span_id_of(number)))
            if number:
                span.parent_span_id = bytes.fromhex(span_id_of((number - 1) // _CHILDREN))
            span.name = f"step {number % 20}"
            span.start_time_unix_nano = _START + number * 1_000
            span.end_time_unix_nano = span.start_time_unix_nano + 1_000_000
            span.attributes.add(key="node_id").value.string_value = f"node-{number % 50}"
            span.attributes.add(key="number").value.int_value = number
        yield request.SerializeToString(), len(within.spans)


async def huge_trace(store: TraceStore, spans: int) -> None:
    """Write the trace."""
    for payload, count in requests(spans):
        await store.send(payload, count)
