"""What is odd about a span costs neither the span nor its batch."""

from __future__ import annotations

import logging
import sys
import threading
from collections import UserDict
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans as encode_by_sdk
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, Status, StatusCode, TraceState

from mapek_runtime.errors import EncodeError
from mapek_runtime.export.encode import RequestBuilder, encode_spans, fields
from mapek_runtime.export.encode import attributes as attributes_module
from mapek_runtime.export.encode.attributes import AttributeEncoder
from mapek_runtime.trace import TracerProvider

CONTEXT = SpanContext(1, 2, is_remote=False)
SURROGATE = "a\ud800b"
REPLACED = "a\ufffdb"


def stock(**given: Any) -> ReadableSpan:
    """A span of the SDK."""
    usual = {"name": "x", "context": CONTEXT, "resource": Resource({}), "start_time": 1, "end_time": 2}
    return ReadableSpan(**{**usual, **given})


def received(*spans: Any) -> Any:
    """The first span of the request, as a receiver sees it."""
    return whole(*spans).scope_spans[0].spans[0]


def whole(*spans: Any) -> Any:
    (resource,) = ExportTraceServiceRequest.FromString(encode_spans(spans)).resource_spans
    return resource


def refused_by_the_sdk(span: ReadableSpan) -> bool:
    try:
        encode_by_sdk([span])
    except Exception:  # noqa: BLE001 - whatever it is
        return True
    return False


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def provider() -> TracerProvider:
    return TracerProvider(shutdown_on_exit=False)


# Texts


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        (SURROGATE, REPLACED),
        ("\ud83d\ude00", "\U0001f600"),
        (b"\xffa", "\ufffda"),
        (404, "404"),
        (["a"], "['a']"),
        (0, "0"),
    ],
    ids=["lone surrogate", "a pair in halves", "bytes", "a number", "a list", "zero"],
)
def test_a_name_that_is_no_text_is_sent_as_one(name: Any, sent: str, provider: TracerProvider) -> None:
    own = provider.get_tracer("own").start_span(name)
    own.end()

    assert refused_by_the_sdk(stock(name=name))
    assert received(stock(name=name)).name == sent
    assert received(own).name == sent


def test_texts_of_events_and_of_the_status_and_the_trace_state_are_replaced() -> None:
    class Odd(TraceState):
        def items(self) -> Any:
            return [("k", SURROGATE)]

    state = Odd([("k", "v")])
    span = received(
        stock(
            context=SpanContext(1, 2, is_remote=False, trace_state=state),
            events=[Event(SURROGATE, {"a": 1}, 5)],
            status=Status(StatusCode.ERROR, SURROGATE),
        )
    )

    assert span.events[0].name == span.status.message == REPLACED
    assert span.trace_state == f"k={REPLACED}"
    assert span.status.code == 2


def test_texts_of_the_scope_and_schemas_are_replaced() -> None:
    scope = InstrumentationScope(SURROGATE, SURROGATE, SURROGATE)
    found = whole(stock(instrumentation_scope=scope, resource=Resource({}, SURROGATE)))

    sent = found.scope_spans[0].scope
    assert [sent.name, sent.version, found.scope_spans[0].schema_url] == [REPLACED] * 3
    assert found.schema_url == REPLACED


def test_an_attribute_without_a_form_is_left_out_as_the_sdk_does_it() -> None:
    span = stock(attributes={"a": SURROGATE, SURROGATE: 1, "big": 2**63, "object": object(), "kept": 1})

    assert encode_spans([span]) == encode_by_sdk([span]).SerializeToString()
    assert [pair.key for pair in received(span).attributes] == ["kept"]


# Numbers


@pytest.mark.parametrize("moment", [-1, 2**64, float("nan"), "now"], ids=str)
def test_a_time_that_is_none_is_unknown(moment: Any) -> None:
    span = received(stock(start_time=moment, events=[Event("e", None, moment)]))

    assert refused_by_the_sdk(stock(start_time=moment))
    assert (span.start_time_unix_nano, span.end_time_unix_nano) == (0, 2)
    assert (span.events[0].name, span.events[0].time_unix_nano) == ("e", 0)


def test_a_time_with_a_fraction_is_cut() -> None:
    assert received(stock(end_time=7.9)).end_time_unix_nano == 7


def test_a_dropped_count_out_of_range_is_the_nearest_that_fits() -> None:
    class Counted(ReadableSpan):
        dropped_attributes = 2**40
        dropped_events = -5
        dropped_links = 3

    span = received(Counted("x", CONTEXT, resource=Resource({})))

    assert (span.dropped_attributes_count, span.dropped_events_count, span.dropped_links_count) == (
        2**32 - 1,
        0,
        3,
    )


# Parts that have no form


def test_events_and_links_without_a_form_are_counted_as_dropped() -> None:
    no_link = Link(SpanContext(-1, 1, is_remote=False))
    span = received(stock(events=["no event", Event("e", None, 5)], links=[no_link, Link(CONTEXT)]))

    assert ([event.name for event in span.events], span.dropped_events_count) == (["e"], 1)
    assert (len(span.links), span.dropped_links_count) == (1, 1)


def test_a_span_goes_on_without_its_kind_and_parent_and_attributes() -> None:
    span = received(
        stock(kind=None, parent=SpanContext(1, -1, is_remote=True), attributes=[1], events=None, status=7)
    )

    assert (span.kind, span.parent_span_id, len(span.attributes)) == (0, b"", 0)
    assert (span.name, span.end_time_unix_nano) == ("x", 2)


def test_a_span_whose_properties_fail_is_sent_with_the_others() -> None:
    class Broken(ReadableSpan):
        @property
        def name(self) -> Any:
            raise RuntimeError("no name")

        kind = status = attributes = links = parent = name

    span = received(Broken("x", CONTEXT, resource=Resource({}), end_time=2))

    assert (span.name, span.end_time_unix_nano) == ("", 2)


@pytest.mark.parametrize(
    "context", [None, SpanContext(2**128, 1, is_remote=False), SpanContext(1, -1, is_remote=False)]
)
def test_only_a_span_without_an_identity_is_left_out_and_told(context: Any) -> None:
    told: list[EncodeError] = []
    builder = RequestBuilder(lambda _span, error: told.append(error))
    good = stock(name="good")

    builder.add([good, stock(name="bad", context=context), good])

    assert builder.build() == encode_by_sdk([good, good]).SerializeToString()
    assert ["'bad'" in str(error) for error in told] == [True]
    with pytest.raises(EncodeError, match="bad"):
        encode_spans([stock(name="bad", context=context)])


def test_a_builder_goes_on_after_an_error_that_was_raised() -> None:
    builder = RequestBuilder()
    with pytest.raises(EncodeError):
        builder.add([stock(), stock(context=None)])

    builder.add([stock(name="y")])

    assert builder.build() == encode_by_sdk([stock(), stock(name="y")]).SerializeToString()
    assert builder.size_bytes < len(builder.build())


# Nesting


def nested(value: Any, levels: int, kind: type) -> Any:
    for _ in range(levels):
        value = [value] if kind is list else {"k": value}
    return value


def placed(where: str, value: Any) -> ReadableSpan:
    held = {"deep": value, "flat": 1}
    match where:
        case "span":
            return stock(attributes=held)
        case "event":
            return stock(events=[Event("e", held, 5)])
        case _:
            return stock(links=[Link(CONTEXT, held)])


@pytest.mark.parametrize("kind", [list, dict])
@pytest.mark.parametrize("where", ["span", "event", "link"])
def test_values_are_as_deep_as_a_receiver_reads_and_no_deeper(
    where: str, kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    def keys(span: Any) -> list[str]:
        held = {"span": [span], "event": span.events, "link": span.links}[where]
        return [pair.key for pair in held[0].attributes]

    deepest = 0
    for levels in range(20, 60):
        if keys(received(placed(where, nested(1, levels, kind)))) == ["deep", "flat"]:
            deepest = levels
    monkeypatch.setattr(attributes_module, "DEEPEST", 1000)

    assert deepest > 29
    with pytest.raises(DecodeError):
        received(placed(where, nested(1, deepest + 1, kind)))


def test_a_value_that_holds_itself_is_left_out() -> None:
    endless: list[Any] = []
    endless.append(endless)

    assert [pair.key for pair in received(stock(attributes={"a": endless, "b": 1})).attributes] == ["b"]


# Other threads


class Meddler(list[int]):
    """Stands for another thread that comes in between: to read it changes what holds it."""

    def __init__(self, held: dict[str, Any]) -> None:
        super().__init__([1])
        self._held = held

    def __iter__(self) -> Iterator[int]:
        self._held[f"late-{len(self._held)}"] = 1
        return super().__iter__()


def test_attributes_changed_while_they_are_read_are_read_again(provider: TracerProvider) -> None:
    own: Any = provider.get_tracer("own").start_span("x", attributes={"a": 1})
    own.end()
    event_attributes: dict[str, Any] = {"a": 1}
    for held in (own._attributes, event_attributes):
        held["meddler"] = Meddler(held)
        held["last"] = 2

    assert {"a", "meddler", "last"} <= {pair.key for pair in received(own).attributes}
    span = received(stock(events=[Event("e", event_attributes, 5)]))
    assert {"a", "meddler", "last"} <= {pair.key for pair in span.events[0].attributes}


@pytest.mark.parametrize("error", [RuntimeError, KeyError])
def test_a_mapping_that_changes_under_the_copy_is_copied_again(error: type[Exception]) -> None:
    class Changing(UserDict[str, int]):
        readings = 0

        def __iter__(self) -> Iterator[str]:
            self.readings += 1
            if self.readings < 4:
                raise error("changed")
            return super().__iter__()

    span = received(stock(events=[Event("e", Changing({"a": 1}), 5)]))

    assert [pair.key for pair in span.events[0].attributes] == ["a"]


def test_a_thread_that_writes_all_the_time_costs_no_span() -> None:
    held: dict[str, Any] = {f"key-{number}": (number,) for number in range(50)}
    over = threading.Event()

    def write() -> None:
        number = 0
        while not over.is_set():
            number += 1
            held[f"late-{number % 7}"] = number
            held.pop(f"late-{(number + 3) % 7}", None)

    thread = threading.Thread(target=write)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread.start()
    try:
        sizes = [len(received(stock(events=[Event("e", held, 5)])).events[0].attributes) for _ in range(50)]
    finally:
        over.set()
        thread.join()
        sys.setswitchinterval(interval)

    assert min(sizes) >= 50


# What is remembered


def test_an_encoder_remembers_no_more_than_it_may() -> None:
    encoder = AttributeEncoder(b"\x4a", 4)
    for number in range(6000):
        encoder.join({f"key-{number}": f"{number}", f"{'k' * 2000}{number}": 1, "one": f"value {number}"})

    assert 0 < len(encoder._keys) < 4000
    assert encoder._remembered <= attributes_module.MAX_BYTES
    assert all(len(key) <= attributes_module.MAX_KEY for key in encoder._keys)


def test_names_remembered_are_few_and_short(provider: TracerProvider) -> None:
    tracer = provider.get_tracer("own")
    for number in range(fields.MAX_NAMES + 10):
        span: Any = tracer.start_span(f"name-{number}")
        span.end()
        encode_spans([span])
    long: Any = tracer.start_span("x" * 300)
    long.end()
    encode_spans([long])

    assert 0 < len(fields.NAMES) <= fields.MAX_NAMES
    assert long.name not in fields.NAMES


# Sizes


def test_a_span_that_does_not_fit_is_given_back_with_those_that_follow() -> None:
    spans = [stock(name=f"{number}" * 100) for number in range(6)]
    builder = RequestBuilder()

    rest = builder.add(spans, most_bytes=500)

    assert 0 < len(rest) < 6
    assert list(rest) == spans[6 - len(rest) :]
    assert builder.build() == encode_by_sdk(spans[: 6 - len(rest)]).SerializeToString()
    assert list(builder.add(rest, most_bytes=500)) == list(rest)


def test_a_span_larger_than_a_request_goes_alone() -> None:
    large, small = stock(attributes={"text": "x" * 1000}), stock()
    builder = RequestBuilder()

    assert list(builder.add([large, small], most_bytes=500)) == [small]
    assert builder.build() == encode_by_sdk([large]).SerializeToString()
