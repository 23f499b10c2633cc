"""The encoder against the SDK's own, byte for byte, on spans of every shape."""

from __future__ import annotations

import enum
import logging
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry import trace as trace_api
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans as encode_by_sdk
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanLimits
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.sdk.util import BoundedList
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from mapek_runtime.export.encode import RequestBuilder, encode_spans
from mapek_runtime.export.encode.wire import varint
from mapek_runtime.trace import TracerProvider
from mapek_runtime.trace.span import Span


class Level(enum.IntEnum):
    """An int that is not exactly an int."""

    LOW = 1
    HIGH = 70_000


class Colour(enum.StrEnum):
    """A str that is not exactly a str."""

    RED = "red"


class Celsius(float):
    """A float that is not exactly a float."""


# Lone surrogates included: no UTF-8 has them, and the SDK leaves such an attribute out.
texts = st.text(st.characters(), max_size=40) | st.sampled_from(["", "x" * 103, "x" * 104, "é" * 8200])
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
edges = st.sampled_from(
    [0, 1, -1, 127, 128, 255, 256, 16383, 16384, 2**31, 2**63 - 1, -(2**63), 2**63, -(2**63) - 1, 2**70]
)
scalars = (
    texts
    | st.booleans()
    | st.integers(-(2**65), 2**65)
    | edges
    | st.floats()
    | st.binary(max_size=40)
    | st.none()
    | st.sampled_from([Level.LOW, Level.HIGH, Colour.RED, Celsius(21.5)])
)
values: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=8,
)
keys = texts | st.sampled_from([Colour.RED, "red", b"bytes", b"\xff", 0, 1, None, (), ("a",)])
attribute_maps: st.SearchStrategy[Any] = st.dictionaries(texts, values, max_size=5)
odd_maps: st.SearchStrategy[Any] = st.dictionaries(keys, values, max_size=5)
span_ids = st.integers(1, 2**64 - 1)
trace_ids = st.integers(1, 2**128 - 1)
moments = st.integers(0, 2**64 - 1)
states = st.builds(
    TraceState,
    st.lists(st.tuples(st.sampled_from(["a", "b", "vendor"]), st.sampled_from(["1", "x=y"])), max_size=2),
)
contexts = st.builds(
    SpanContext, trace_ids, span_ids, st.booleans(), st.sampled_from([TraceFlags(0), TraceFlags(1)]), states
)
bounded = st.builds(
    lambda attributes, most: BoundedAttributes(most, attributes),
    attribute_maps,
    st.sampled_from([None, 1, 3]),
)
events = st.builds(Event, names, bounded | odd_maps | st.none(), moments)
links = st.builds(Link, contexts, bounded | odd_maps | st.none())
statuses = (
    st.just(Status(StatusCode.UNSET))
    | st.just(Status(StatusCode.OK))
    | st.builds(Status, st.just(StatusCode.ERROR), st.none() | names)
)
resources = st.sampled_from(
    [
        Resource({}),
        Resource({"service.name": "a", "n": 1}, "https://example.org/schema"),
        Resource({"service.name": "b"}),
        Resource({"service.name": "b"}),
    ]
)
scopes = st.none() | st.sampled_from(
    [
        InstrumentationScope("lib"),
        InstrumentationScope("lib", "1.0", "https://example.org/lib", {"k": "v", "n": 3}),
        InstrumentationScope("", ""),
        InstrumentationScope("lib"),
    ]
)


def bounded_list(items: Sequence[Any], most: int) -> BoundedList[Any]:
    return BoundedList.from_seq(most, items)


usual: dict[str, st.SearchStrategy[Any]] = {
    "name": names | names.map(str.encode) | st.none(),
    "context": contexts,
    "parent": st.none() | contexts,
    "resource": resources,
    "attributes": bounded | odd_maps | st.none(),
    "events": st.builds(bounded_list, st.lists(events, max_size=3), st.sampled_from([0, 1, 128]))
    | st.lists(events, max_size=2),
    "links": st.builds(bounded_list, st.lists(links, max_size=3), st.sampled_from([0, 1, 128]))
    | st.lists(links, max_size=2),
    "kind": st.sampled_from(SpanKind),
    "status": statuses | st.none(),
    "start_time": moments | st.none(),
    "end_time": moments | st.none(),
    "instrumentation_scope": scopes,
}
stock_spans = st.builds(ReadableSpan, **usual)

providers = [
    TracerProvider(ALWAYS_ON, Resource({"service.name": "mesh"}), shutdown_on_exit=False),
    TracerProvider(
        ALWAYS_ON,
        Resource({"service.name": "tight"}, "https://example.org/schema"),
        span_limits=SpanLimits(max_attributes=2, max_events=1, max_links=1),
        shutdown_on_exit=False,
    ),
]


@st.composite
def own_spans(draw: st.DrawFn) -> ReadableSpan:
    provider = draw(st.sampled_from(providers))
    tracer = provider.get_tracer(draw(st.sampled_from(["mesh", "raft"])), draw(st.sampled_from(["", "1.0"])))
    parent = draw(st.none() | contexts)
    root = Context()
    context = (
        root if parent is None else trace_api.set_span_in_context(trace_api.NonRecordingSpan(parent), root)
    )
    span = tracer.start_span(
        draw(names),
        context,
        draw(st.sampled_from(SpanKind)),
        draw(attribute_maps),
        draw(st.lists(links, max_size=2)),
        draw(st.integers(1, 2**64 - 1)),
    )
    for event in draw(st.lists(events, max_size=2)):
        span.add_event(event.name, event.attributes, event.timestamp)
    for key, value in draw(attribute_maps).items():
        span.set_attribute(key, value)
    span.set_status(draw(statuses))
    span.end(draw(st.integers(1, 2**64 - 1)))
    assert isinstance(span, ReadableSpan)
    return span


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


relaxed = settings(suppress_health_check=list(HealthCheck), deadline=None, max_examples=30)


@relaxed
@given(st.lists(stock_spans, max_size=5))
def test_spans_of_the_sdk_are_encoded_as_the_sdk_encodes_them(spans: list[ReadableSpan]) -> None:
    assert encode_spans(spans) == encode_by_sdk(spans).SerializeToString()


@relaxed
@given(st.lists(own_spans(), max_size=5))
def test_spans_of_ours_are_encoded_as_the_sdk_encodes_them(spans: list[ReadableSpan]) -> None:
    assert encode_spans(spans) == encode_by_sdk(spans).SerializeToString()


# Whatever a program may put where it does not belong.
junk: st.SearchStrategy[Any] = st.one_of(
    st.text(st.characters(), max_size=5),
    st.sampled_from(
        [b"\xff", "\ud800", -1, 0, 1, 2**32, 2**64, 2**200, 1.5, float("nan"), True, None, [], {}, ()]
    ),
    st.builds(object),
)
junk_contexts: st.SearchStrategy[Any] = junk | st.builds(
    SpanContext, st.integers(-1, 2**129), st.integers(-1, 2**65), st.booleans(), trace_state=states | junk
)
junk_events: st.SearchStrategy[Any] = junk | st.builds(
    Event, junk, bounded | junk, st.integers(-1, 2**65) | st.floats()
)
junk_links: st.SearchStrategy[Any] = junk | st.builds(Link, junk_contexts, bounded | junk)
odd: dict[str, st.SearchStrategy[Any]] = {
    "name": junk,
    "parent": junk_contexts,
    "attributes": junk,
    "events": junk | st.lists(junk_events | events, max_size=3),
    "links": junk | st.lists(junk_links | links, max_size=3),
    "kind": junk,
    "status": junk | st.builds(Status, st.just(StatusCode.ERROR), texts),
    "start_time": junk | st.integers(-1, 2**65),
    "end_time": junk | st.integers(-1, 2**65),
    "instrumentation_scope": st.builds(InstrumentationScope, texts, texts, texts),
}


@st.composite
def odd_spans(draw: st.DrawFn) -> ReadableSpan:
    fields = {name: draw(strategy) for name, strategy in usual.items()}
    for name in draw(st.lists(st.sampled_from(sorted(odd)), min_size=1, max_size=3)):
        fields[name] = draw(odd[name])
    return ReadableSpan(**fields)


@relaxed
@given(odd_spans())
def test_no_span_is_lost_for_what_it_holds(span: ReadableSpan) -> None:
    encoded = encode_spans([span])

    try:
        expected = encode_by_sdk([span]).SerializeToString()
    except Exception:  # noqa: BLE001 - whatever it is: the SDK refuses the span, and all others with it
        (resource,) = ExportTraceServiceRequest.FromString(encoded).resource_spans
        (received,) = resource.scope_spans[0].spans
        assert span.context is not None
        assert int.from_bytes(received.trace_id, "big") == span.context.trace_id
        assert int.from_bytes(received.span_id, "big") == span.context.span_id
    else:
        assert encoded == expected


@relaxed
@given(st.lists(own_spans() | stock_spans, max_size=12), st.integers(1, 600), st.integers(1, 4))
def test_a_request_has_no_more_bytes_than_it_may_unless_one_span_has(
    spans: list[ReadableSpan], most_bytes: int, size: int
) -> None:
    requests = []
    for start in range(0, len(spans), size):
        rest: Sequence[ReadableSpan] = spans[start : start + size]
        while rest:
            builder = RequestBuilder()
            following = builder.add(rest, most_bytes)
            taken = rest[: len(rest) - len(following)]
            requests.append((builder.build(), taken, builder.size_bytes))
            rest = following

    assert [span for _, taken, _ in requests for span in taken] == spans
    for request, taken, size_bytes in requests:
        assert request == encode_by_sdk(taken).SerializeToString()
        assert size_bytes <= most_bytes + 8 * len(taken) or len(taken) == 1


@given(st.integers(-(2**63), 2**64 - 1) | edges.filter(lambda number: -(2**63) <= number < 2**64))
def test_a_varint_has_seven_bits_a_byte_and_no_more_bytes_than_it_needs(number: int) -> None:
    data = varint(number)

    assert sum((byte & 0x7F) << (7 * place) for place, byte in enumerate(data)) == number % 2**64
    assert [byte >> 7 for byte in data] == [1] * (len(data) - 1) + [0]
    assert len(data) == 1 or data[-1]


@relaxed
@given(st.lists(own_spans() | stock_spans, max_size=8), st.integers(1, 4))
def test_slices_of_a_request_make_the_same_request(spans: list[ReadableSpan], size: int) -> None:
    builder = RequestBuilder()
    for start in range(0, len(spans), size):
        builder.add(spans[start : start + size])

    assert builder.build() == encode_by_sdk(spans).SerializeToString()


def test_the_fast_way_is_taken_for_spans_of_ours() -> None:
    span = providers[0].get_tracer("mesh").start_span("a")

    assert type(span) is Span


def test_more_keys_and_names_than_are_remembered_change_nothing() -> None:
    tracer = providers[0].get_tracer("mesh")
    spans: list[Any] = []
    for number in range(4500):
        span = tracer.start_span(f"name-{number}", attributes={f"key-{number}": number, "key": f"{number}"})
        span.end()
        spans.append(span)

    assert encode_spans(spans) == encode_by_sdk(spans).SerializeToString()
