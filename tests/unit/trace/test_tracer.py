"""Spans are OpenTelemetry's, whoever looks at them."""

from __future__ import annotations

import json

import pytest
from opentelemetry import baggage, context, propagate, trace
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Sampler
from opentelemetry.trace import Link, SpanContext, SpanKind, StatusCode, TraceFlags

from mapek_runtime import TracerProvider
from mapek_runtime.trace import Span
from mapek_runtime.trace.ids import LeanIdGenerator
from tests.unit.trace.traced import Traced


@pytest.fixture
def traced() -> Traced:
    return Traced()


def test_provider_tracer_and_span_are_accepted_where_the_sdks_are(traced: Traced) -> None:
    span = traced.tracer.start_span("x")

    assert isinstance(traced.provider, sdk.TracerProvider)
    assert isinstance(traced.tracer, sdk.Tracer)
    assert isinstance(span, sdk.Span)
    assert isinstance(span, sdk.ReadableSpan)
    assert isinstance(span, trace.Span)


def test_the_same_arguments_give_the_same_tracer(traced: Traced) -> None:
    assert traced.provider.get_tracer("a", "1") is traced.provider.get_tracer("a", "1")
    assert traced.provider.get_tracer("a", "1") is not traced.provider.get_tracer("a", "2")


def test_a_span_is_current_in_its_block_and_parent_of_what_is_inside(traced: Traced) -> None:
    before = trace.get_current_span()

    with traced.tracer.start_as_current_span("outer") as outer:
        assert trace.get_current_span() is outer
        with traced.tracer.start_as_current_span("inner") as inner:
            assert trace.get_current_span() is inner
        assert trace.get_current_span() is outer

    assert trace.get_current_span() is before
    inner_span, outer_span = traced.spans
    assert inner_span.parent == outer_span.context
    assert outer_span.parent is None
    assert inner_span.context is not None
    assert outer_span.context is not None
    assert inner_span.context.trace_id == outer_span.context.trace_id


def test_spans_of_the_stock_sdk_and_ours_nest_both_ways(traced: Traced) -> None:
    stock = sdk.TracerProvider(shutdown_on_exit=False).get_tracer("stock")

    with (
        traced.tracer.start_as_current_span("ours") as ours,
        stock.start_as_current_span("theirs") as theirs,
        traced.tracer.start_as_current_span("ours again") as again,
    ):
        pass

    assert isinstance(theirs, sdk.Span)
    assert isinstance(again, sdk.Span)
    assert theirs.parent == ours.get_span_context()
    assert again.parent == theirs.get_span_context()


def test_baggage_set_before_a_span_is_seen_inside_it(traced: Traced) -> None:
    token = context.attach(baggage.set_baggage("user", "ada"))
    try:
        with traced.tracer.start_as_current_span("outer"), traced.tracer.start_as_current_span("inner"):
            assert baggage.get_baggage("user") == "ada"
    finally:
        context.detach(token)


def test_w3c_propagation_goes_there_and_back(traced: Traced) -> None:
    carrier: dict[str, str] = {}
    with traced.tracer.start_as_current_span("sender") as sender:
        propagate.inject(carrier)

    with traced.tracer.start_as_current_span("receiver", context=propagate.extract(carrier)) as receiver:
        pass

    assert isinstance(receiver, sdk.Span)
    parent = receiver.parent
    assert parent is not None
    assert parent.span_id == sender.get_span_context().span_id
    assert parent.is_remote
    assert receiver.get_span_context().trace_id == sender.get_span_context().trace_id


def test_tracestate_is_handed_down(traced: Traced) -> None:
    carrier = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "tracestate": "vendor=1"}

    with (
        traced.tracer.start_as_current_span("server", context=propagate.extract(carrier)),
        traced.tracer.start_as_current_span("inner") as inner,
    ):
        sent: dict[str, str] = {}
        propagate.inject(sent)

    assert inner.get_span_context().trace_state.get("vendor") == "1"
    assert sent["tracestate"] == "vendor=1"


def test_everything_a_span_was_given_can_be_read(traced: Traced) -> None:
    other = SpanContext(1, 2, is_remote=False, trace_flags=TraceFlags(1))
    link = Link(other, {"why": "before"})

    with traced.tracer.start_as_current_span(
        "work", kind=SpanKind.CLIENT, attributes={"a": 1, "list": [1, 2]}, links=[link]
    ) as span:
        span.set_attribute("b", 2.5)
        span.set_attributes({"c": True, "d": "text"})
        span.add_event("happened", {"x": "y"}, timestamp=7)
        span.set_status(StatusCode.OK)
        span.update_name("better")

    done = traced.one()
    assert done.name == "better"
    assert done.kind is SpanKind.CLIENT
    assert dict(done.attributes or {}) == {"a": 1, "list": (1, 2), "b": 2.5, "c": True, "d": "text"}
    assert [(e.name, e.timestamp, dict(e.attributes or {})) for e in done.events] == [
        ("happened", 7, {"x": "y"})
    ]
    assert [(ln.context, dict(ln.attributes or {})) for ln in done.links] == [(other, {"why": "before"})]
    assert done.status.status_code is StatusCode.OK
    assert done.end_time is not None
    assert done.start_time is not None
    assert done.end_time >= done.start_time
    assert json.loads(done.to_json())["name"] == "better"


def test_a_mutable_value_is_recorded_as_it_was(traced: Traced) -> None:
    values = [1, 2]

    with traced.tracer.start_as_current_span("x", attributes={"values": values}):
        values.append(3)

    assert (traced.one().attributes or {})["values"] == (1, 2)


def test_the_callers_dictionary_is_not_kept(traced: Traced) -> None:
    mine = {"a": 1}

    with traced.tracer.start_as_current_span("x", attributes=mine) as span:
        span.set_attribute("b", 2)

    assert mine == {"a": 1}


@pytest.mark.parametrize(
    "bad", [{"": 1}, {3: 1}, {"x": object()}], ids=["empty key", "key no text", "odd value"]
)
def test_bad_attributes_are_treated_as_the_sdk_does(bad: dict[object, object], traced: Traced) -> None:
    stock = sdk.TracerProvider(shutdown_on_exit=False).get_tracer("stock")
    theirs = stock.start_span("x", attributes=bad)  # type: ignore[arg-type]
    assert isinstance(theirs, sdk.Span)

    ours = traced.tracer.start_span("x", attributes=bad)  # type: ignore[arg-type]
    assert isinstance(ours, sdk.Span)

    assert dict(ours.attributes or {}).keys() == dict(theirs.attributes or {}).keys()
    assert ours.dropped_attributes == theirs.dropped_attributes


def test_an_exception_is_recorded_once_and_raised_unchanged(traced: Traced) -> None:
    error = ValueError("no")

    with pytest.raises(ValueError, match="no") as raised, traced.tracer.start_as_current_span("x"):
        raise error

    assert raised.value is error
    done = traced.one()
    assert done.status.status_code is StatusCode.ERROR
    assert done.status.description == "ValueError: no"
    (event,) = done.events
    assert (event.attributes or {})["exception.type"] == "ValueError"


def test_nothing_changes_an_ended_span(traced: Traced, caplog: pytest.LogCaptureFixture) -> None:
    span = traced.tracer.start_span("x")
    span.end(5)

    span.set_attribute("a", 1)
    span.add_event("late")
    span.update_name("other")
    span.set_status(StatusCode.ERROR)
    span.end(9)

    done = traced.one()
    assert (done.name, done.end_time, dict(done.attributes or {}), done.events) == ("x", 5, {}, ())
    assert done.status.status_code is StatusCode.UNSET
    assert len(caplog.records) == 5


def test_the_sdks_processors_see_start_and_end() -> None:
    seen: list[str] = []

    class Watch(sdk.SpanProcessor):
        def on_start(self, span: sdk.Span, parent_context: context.Context | None = None) -> None:
            seen.append(
                f"start {span.name} {trace.get_current_span(parent_context).get_span_context().is_valid}"
            )

        def on_end(self, span: sdk.ReadableSpan) -> None:
            seen.append(f"end {span.name}")

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(Watch())
    tracer = provider.get_tracer("x")

    with tracer.start_as_current_span("a"), tracer.start_as_current_span("b"):
        pass

    assert seen == ["start a False", "start b True", "end b", "end a"]


def test_the_resource_reaches_every_span() -> None:
    traced = Traced(resource=Resource.create({"service.name": "x0tta6bl4"}))

    traced.tracer.start_span("x").end()

    done = traced.one()
    assert done.resource.attributes["service.name"] == "x0tta6bl4"
    assert done.instrumentation_scope is not None
    assert (done.instrumentation_scope.name, done.instrumentation_scope.version) == ("tests", "1")


def test_a_disabled_sdk_makes_no_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    traced = Traced()

    with traced.tracer.start_as_current_span("x") as span:
        assert not span.is_recording()

    assert traced.spans == ()


def test_ids_do_not_follow_the_programs_seed() -> None:
    import random

    tracer = Traced().tracer
    random.seed(42)
    first = tracer.start_span("x").get_span_context()
    random.seed(42)
    second = tracer.start_span("x").get_span_context()

    assert first.trace_id != second.trace_id


def test_a_span_is_made_only_by_a_tracer() -> None:
    with pytest.raises(TypeError, match=r"start_span"):
        Span("x")


async def test_a_processor_that_fails_does_not_keep_the_others_open(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(sdk.SpanProcessor):
        def shutdown(self) -> None:
            raise OSError("the disk is full")

        def force_flush(self, timeout_millis: int = 30_000) -> bool:
            raise OSError("the disk is full")

    class Counting(sdk.SpanProcessor):
        flushed = closed = 0

        def shutdown(self) -> None:
            self.closed += 1

        def force_flush(self, timeout_millis: int = 30_000) -> bool:
            self.flushed += 1
            return True

    provider = TracerProvider(resource=Resource({}), shutdown_on_exit=False)
    counting = Counting()
    provider.add_span_processor(Failing())
    provider.add_span_processor(counting)

    assert not await provider.aforce_flush()
    assert not await provider.ashutdown()
    assert (counting.flushed, counting.closed) == (1, 1)
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]


@pytest.mark.parametrize("sampler", [None, ALWAYS_OFF], ids=["recorded", "dropped"])
@pytest.mark.parametrize("kind", [RandomIdGenerator, LeanIdGenerator])
def test_ids_come_from_the_generator_that_was_given(
    kind: type[RandomIdGenerator], sampler: Sampler | None
) -> None:
    class Counting(kind):  # type: ignore[misc, valid-type]
        ids = 0

        def generate_span_id(self) -> int:
            self.ids += 1
            return self.ids

        def generate_trace_id(self) -> int:
            return 0xABC

    tracer = Traced(id_generator=Counting(), sampler=sampler).tracer
    with tracer.start_as_current_span("outer") as outer, tracer.start_as_current_span("inner") as inner:
        pass

    assert outer.get_span_context().trace_id == inner.get_span_context().trace_id == 0xABC
    assert (outer.get_span_context().span_id, inner.get_span_context().span_id) == (1, 2)
