"""What a message carries of a trace is what OpenTelemetry's propagators write and read, whatever it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry import baggage, propagate, trace
from opentelemetry import context as context_api
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context.context import Context
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.propagators.textmap import (
    CarrierT,
    Getter,
    Setter,
    TextMapPropagator,
    default_getter,
    default_setter,
)
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON
from opentelemetry.trace import NonRecordingSpan, NoOpTracerProvider, SpanContext, TraceFlags, TraceState
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from mapek_domains.mesh import carried, spans
from mapek_runtime import TracerProvider
from mapek_runtime.trace import use_provider

HEX = "0123456789abcdef"
USUAL = f"00-{'ab' * 16}-{'cd' * 8}-01"
STATES = ("", "", "vendor=value", "a=1,b=2", "no state", "=")


def hex_of(length: int) -> st.SearchStrategy[str]:
    return st.text(HEX, min_size=length, max_size=length)


well_formed = st.builds(
    "{}-{}-{}-{}{}".format,
    st.sampled_from(["00", "00", "00", "01", "fe", "ff"]),
    hex_of(32) | st.just("0" * 32),
    hex_of(16) | st.just("0" * 16),
    hex_of(2),
    st.sampled_from(["", "", "", "-", "-more", " ", "\n"]),
)


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """A header of which a piece was changed for another, so that its length often stays what it was."""
    header = draw(well_formed)
    piece = draw(st.sampled_from(["_", "g", "A", "٣", "-", " ", "\t", "\n", "\0", "+1", ""]))
    start = draw(st.integers(0, len(header)))
    return header[:start] + piece + header[start + len(piece) :]


parents = well_formed | damaged() | st.text(max_size=60)


class Reversed(TextMapPropagator):
    """Somebody's own way."""

    def extract(
        self, carrier: CarrierT, context: Context | None = None, getter: Getter[CarrierT] = default_getter
    ) -> Context:
        [text] = getter.get(carrier, "traceparent") or [""]
        return context_api.set_value("reversed", text[::-1], context)

    def inject(
        self, carrier: CarrierT, context: Context | None = None, setter: Setter[CarrierT] = default_setter
    ) -> None:
        setter.set(carrier, "traceparent", "reversed")

    @property
    def fields(self) -> set[str]:
        return {"traceparent"}


class Heir(TraceContextTextMapPropagator):
    def inject(
        self, carrier: CarrierT, context: Context | None = None, setter: Setter[CarrierT] = default_setter
    ) -> None:
        setter.set(carrier, "tracestate", "heir=1")


PROPAGATORS: Sequence[TextMapPropagator] = (
    CompositePropagator([TraceContextTextMapPropagator(), W3CBaggagePropagator()]),
    TraceContextTextMapPropagator(),
    CompositePropagator([]),
    CompositePropagator([TraceContextTextMapPropagator(), Reversed()]),
    CompositePropagator([Heir()]),
    Reversed(),
)


@contextmanager
def configured(propagator: TextMapPropagator) -> Iterator[None]:
    before = propagate.get_global_textmap()
    propagate.set_global_textmap(propagator)
    try:
        yield
    finally:
        propagate.set_global_textmap(before)


def told(context: Context) -> tuple[SpanContext, dict[str, object]]:
    """All there is to tell of a context; a span context compares as its ids, and so its parts are told."""
    span = trace.get_current_span(context)
    return span.get_span_context(), {
        "kind": type(span),
        "remote": span.get_span_context().is_remote,
        "flags": (span.get_span_context().trace_flags, type(span.get_span_context().trace_flags)),
        "state": dict(span.get_span_context().trace_state),
        "keys": sorted(context),
    }


@given(parents, st.sampled_from(STATES), st.sampled_from(PROPAGATORS))
@example(USUAL, "", PROPAGATORS[0])
@example(USUAL[:3] + "0x" + USUAL[5:], "", PROPAGATORS[0])
@example(USUAL[:3] + "1_1" + USUAL[6:], "", PROPAGATORS[0])
@example(USUAL.upper(), "", PROPAGATORS[0])
def test_what_is_read_is_what_the_propagator_extracts(
    traceparent: str, tracestate: str, propagator: TextMapPropagator
) -> None:
    with configured(propagator):
        extracted = propagate.extract({"traceparent": traceparent, "tracestate": tracestate}, Context())

        assert told(carried.read(traceparent, tracestate)) == told(extracted)


@given(
    st.builds(
        SpanContext,
        st.integers(0, (1 << 128) - 1) | st.just(0),
        st.integers(0, (1 << 64) - 1) | st.just(0),
        st.booleans(),
        st.integers(0, 255).map(TraceFlags),
        st.sampled_from([None, TraceState(), TraceState([("vendor", "value")])]),
    ),
    st.booleans(),
    st.sampled_from(PROPAGATORS),
)
def test_what_is_written_is_what_the_propagator_injects(
    context: SpanContext, bag: bool, propagator: TextMapPropagator
) -> None:
    span = NonRecordingSpan(context)
    current = baggage.set_baggage("key", "value") if bag else Context()
    token = context_api.attach(trace.set_span_in_context(span, current))
    try:
        with configured(propagator):
            carrier: dict[str, str] = {}
            propagate.inject(carrier)

            assert carried.write(span) == (carrier.get("traceparent", ""), carrier.get("tracestate", ""))
    finally:
        context_api.detach(token)


@pytest.mark.parametrize(
    "provider",
    [
        TracerProvider(shutdown_on_exit=False),
        TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False),
        sdk.TracerProvider(sampler=ALWAYS_ON, shutdown_on_exit=False),
        sdk.TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False),
        NoOpTracerProvider(),
    ],
    ids=["ours", "ours, unsampled", "stock", "stock, unsampled", "none"],
)
@pytest.mark.parametrize("parent", [Context(), carried.read(USUAL, ""), carried.read(USUAL, "a=1")])
def test_the_span_of_a_hop_is_what_its_message_carries(
    provider: trace.TracerProvider, parent: Context
) -> None:
    with use_provider(provider), spans.message_forwarding("a", "b", "1").under(parent) as span:
        carrier: dict[str, str] = {}
        propagate.inject(carrier)

        assert carried.write(span) == (carrier.get("traceparent", ""), carrier.get("tracestate", ""))
