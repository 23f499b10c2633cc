"""Laws of the receiver: framing and JSON give back what was put in, and no body breaks them."""

from __future__ import annotations

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, TracesData

from mapek_runtime.store.framing import join, slices
from mapek_runtime.store.otlp_json import from_json, to_json
from mapek_runtime.store.receiver import JSON, PROTOBUF, Received, Refused, receive

# Whole requests are large, and many are made of the same things.
few = settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow], deadline=None)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
counts = st.integers(0, (1 << 32) - 1)
moments = st.integers(0, (1 << 64) - 1)
trace_ids = st.binary(min_size=16, max_size=16) | st.binary(max_size=20)
span_ids = st.binary(min_size=8, max_size=8) | st.binary(max_size=10)

plain = st.one_of(
    st.builds(AnyValue),
    st.builds(AnyValue, string_value=texts),
    st.builds(AnyValue, bool_value=st.booleans()),
    st.builds(AnyValue, int_value=st.integers(-(1 << 63), (1 << 63) - 1)),
    st.builds(AnyValue, double_value=st.floats(allow_nan=False)),
    st.builds(AnyValue, bytes_value=st.binary(max_size=20)),
)


def holding(inner: st.SearchStrategy[AnyValue]) -> st.SearchStrategy[AnyValue]:
    arrays = st.lists(inner, max_size=3).map(lambda values: AnyValue(array_value=ArrayValue(values=values)))
    pairs = st.lists(st.builds(KeyValue, key=texts, value=inner), max_size=3)
    return arrays | pairs.map(lambda values: AnyValue(kvlist_value=KeyValueList(values=values)))


values = st.recursive(plain, holding, max_leaves=6)
attributes = st.lists(
    st.builds(KeyValue, key=texts, value=values) | st.builds(KeyValue, key=texts), max_size=3
)
events = st.builds(Span.Event, time_unix_nano=moments, name=texts, attributes=attributes)
links = st.builds(Span.Link, trace_id=trace_ids, span_id=span_ids, flags=counts, attributes=attributes)
spans = st.builds(
    Span,
    trace_id=trace_ids,
    span_id=span_ids,
    parent_span_id=span_ids,
    trace_state=texts,
    flags=counts,
    name=texts,
    kind=st.integers(0, 9),
    start_time_unix_nano=moments,
    end_time_unix_nano=moments,
    attributes=attributes,
    dropped_attributes_count=counts,
    events=st.lists(events, max_size=2),
    links=st.lists(links, max_size=2),
    status=st.none()
    | st.builds(lambda text, code: {"message": text, "code": code}, texts, st.integers(0, 3)),
)
scopes = st.none() | st.builds(lambda name, some: {"name": name, "attributes": some}, texts, attributes)
resources = st.none() | attributes.map(lambda some: {"attributes": some})
scope_spans = st.builds(ScopeSpans, scope=scopes, schema_url=texts, spans=st.lists(spans, max_size=4))
resource_spans = st.builds(
    ResourceSpans, resource=resources, schema_url=texts, scope_spans=st.lists(scope_spans, max_size=3)
)
requests = st.builds(ExportTraceServiceRequest, resource_spans=st.lists(resource_spans, max_size=3))


def bare(request: ExportTraceServiceRequest) -> list[tuple[bytes, str, bytes, str, Span]]:
    return [
        (
            under.resource.SerializeToString(),
            under.schema_url,
            within.scope.SerializeToString(),
            within.schema_url,
            span,
        )
        for under in request.resource_spans
        for within in under.scope_spans
        for span in within.spans
    ]


def sound(span: Span) -> bool:
    return len(span.trace_id) == 16 and len(span.span_id) == 8 and any(span.trace_id) and any(span.span_id)


@few
@given(requests)
def test_json_gives_back_the_message(request: ExportTraceServiceRequest) -> None:
    text = msgspec.json.encode(to_json(request.SerializeToString()))

    assert from_json(text) == (request, [])


@few
@given(requests, st.integers(1, 5))
def test_slices_hold_every_span_with_what_it_stands_under(
    request: ExportTraceServiceRequest, most: int
) -> None:
    pieces = list(slices(request.SerializeToString(), most))

    assert all(0 < piece.number <= most for piece in pieces)
    assert bare(ExportTraceServiceRequest.FromString(join(pieces))) == bare(request)
    assert [
        (piece.resource, piece.resource_schema, piece.scope, piece.scope_schema, span)
        for piece in pieces
        for span in ScopeSpans.FromString(piece.spans).spans
    ] == bare(request)


@few
@given(requests, st.sampled_from([PROTOBUF, JSON]))
def test_exactly_the_spans_with_valid_ids_are_received(request: ExportTraceServiceRequest, kind: str) -> None:
    body = request.SerializeToString()
    good = [each for each in bare(request) if sound(each[-1])]

    received = receive(msgspec.json.encode(to_json(body)) if kind == JSON else body, kind)

    assert bare(ExportTraceServiceRequest.FromString(received.payload)) == good
    assert (received.accepted, received.rejected) == (len(good), len(bare(request)) - len(good))
    assert sum(received.reasons.values()) == received.rejected
    assert bool(received.message) == bool(received.rejected)


def outcome(body: bytes, kind: str, encoding: str = "") -> Received | int:
    try:
        return receive(body, kind, encoding)
    except Refused as refused:
        return refused.status


@given(st.binary(max_size=200), st.sampled_from([PROTOBUF, JSON]), st.sampled_from(["", "gzip"]))
def test_any_bytes_are_received_or_refused(body: bytes, kind: str, encoding: str) -> None:
    result = outcome(body, kind, encoding)

    if isinstance(result, int):
        assert result in {400, 413}
    else:
        TracesData.FromString(result.payload)


@few
@given(requests, st.data())
def test_a_damaged_request_is_received_or_refused(
    request: ExportTraceServiceRequest, data: st.DataObject
) -> None:
    body = bytearray(request.SerializeToString())
    for _ in range(data.draw(st.integers(0, 3)) if body else 0):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))

    result = outcome(bytes(body), PROTOBUF)

    if isinstance(result, int):
        assert result == 400
    else:
        # A resource without spans is not looked at: the store does not read it either.
        kept = [ScopeSpans.FromString(piece.spans) for piece in slices(result.payload)]
        assert result.accepted == sum(len(each.spans) for each in kept)
