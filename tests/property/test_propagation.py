"""Whatever a header holds, a span that is started under it is whole.

What was injected is extracted as it was. What a stranger sends, well-formed or not, never raises, and
gives with our provider what it gives with the stock SDK's: that parent, or none, never half of one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry import baggage, trace
from opentelemetry import context as context_api
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context.context import Context
from opentelemetry.context.contextvars_context import ContextVarsRuntimeContext
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, DEFAULT_ON, ParentBased, Sampler
from opentelemetry.trace import SpanContext, TraceFlags, TraceState
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from mapek_runtime import TracerProvider

PROPAGATOR = CompositePropagator([TraceContextTextMapPropagator(), W3CBaggagePropagator()])
SAMPLERS: tuple[Sampler, ...] = (DEFAULT_ON, ALWAYS_ON, ParentBased(ALWAYS_OFF))
Headers = Mapping[str, str | list[str]]


class Fixed(RandomIdGenerator):
    """The same ids for both providers."""

    def generate_trace_id(self) -> int:
        return 0xABCDEF

    def generate_span_id(self) -> int:
        return 0x123456


def tracers(kind: type[sdk.TracerProvider]) -> tuple[trace.Tracer, ...]:
    providers = [
        kind(sampler, Resource({}), shutdown_on_exit=False, id_generator=Fixed()) for sampler in SAMPLERS
    ]
    return tuple(provider.get_tracer("tests") for provider in providers)


OURS, STOCK = tracers(TracerProvider), tracers(sdk.TracerProvider)

# What others may send

HEX = "0123456789abcdef"
LETTERS = "abcdefghijklmnopqrstuvwxyz"
PRINTED = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) != ",")
BYTES = "".join(map(chr, range(256)))
CHANGES: tuple[Callable[[str], str], ...] = (str.upper, str.lower, str.title, str.strip, str)

hexes = st.text(HEX, max_size=40)
strange = st.text(BYTES, max_size=60)


def hex_of(length: int) -> st.SearchStrategy[str]:
    return st.text(HEX, min_size=length, max_size=length)


well_formed = st.builds(
    "{}-{}-{}-{}{}".format,
    st.sampled_from(["00", "01", "cc", "fe", "ff"]) | hex_of(2),
    hex_of(32) | st.just("0" * 32),
    hex_of(16) | st.just("0" * 16),
    hex_of(2),
    st.sampled_from(["", "", "", "-", "-more", "-00-11", "."]),
)
misshapen = st.builds("-".join, st.lists(hexes | strange, max_size=6))


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """A header that was well-formed until one piece of it was changed."""
    header = draw(well_formed)
    start = draw(st.integers(0, len(header)))
    end = draw(st.integers(start, min(len(header), start + 4)))
    piece = draw(st.sampled_from(["", " ", "\t", "-", "g", "\0", "\n", "é", "0", "--"]))
    return draw(st.sampled_from(CHANGES))(header[:start] + piece + header[end:])


parents = well_formed | damaged() | misshapen | strange
keys = st.builds(str.__add__, st.sampled_from(LETTERS), st.text(LETTERS + "0123456789_*/-", max_size=20))
members = st.builds(
    "{}{}{}".format,
    keys | strange,
    st.sampled_from(["=", "=", "", "=="]),
    st.text(PRINTED, max_size=30) | strange,
)
states = st.lists(members, max_size=40).map(",".join) | strange | st.just("a=" + "b" * 100_000)
bags = states | st.just(",".join(f"key{n}=value" for n in range(300)))


def one_or_many(texts: st.SearchStrategy[str]) -> st.SearchStrategy[str | list[str]]:
    return texts | st.lists(texts, max_size=3)


headers: st.SearchStrategy[dict[str, str | list[str]]] = st.fixed_dictionaries(
    {},
    optional={
        "traceparent": one_or_many(parents),
        "tracestate": one_or_many(states),
        "baggage": one_or_many(bags),
        "Traceparent": one_or_many(parents),
    },
)


@contextmanager
def stock_storage() -> Iterator[None]:
    before, context_api._RUNTIME_CONTEXT = context_api._RUNTIME_CONTEXT, ContextVarsRuntimeContext()
    try:
        yield
    finally:
        context_api._RUNTIME_CONTEXT = before


Outcome = tuple[SpanContext, SpanContext | None, bool, dict[str, str], dict[str, object]]


def outcomes(tracer: trace.Tracer, sent: Headers) -> list[Outcome]:
    """A span under what was extracted, and one below it: identity, parent, and what each would send on."""
    told: list[Outcome] = []
    extracted = PROPAGATOR.extract(sent, context=Context())
    with (
        tracer.start_as_current_span("server", extracted) as server,
        tracer.start_as_current_span("inner") as inner,
    ):
        for span in (server, inner):
            carrier: dict[str, str] = {}
            PROPAGATOR.inject(carrier, trace.set_span_in_context(span, extracted))
            parent = span.parent if isinstance(span, sdk.Span) else None
            told.append(
                (
                    span.get_span_context(),
                    parent,
                    span.is_recording(),
                    carrier,
                    dict(baggage.get_all(extracted)),
                )
            )
    return told


FORM = re.compile(r"[ \t]*([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?[ \t]*")


def expected(sent: Headers) -> tuple[int, int] | None:
    """The parent that the W3C recommendation reads in the headers; None when it reads none."""
    text = sent.get("traceparent", "")
    if isinstance(text, list):
        text = text[0] if text else ""
    found = FORM.fullmatch(text)
    if found is None or found[1] == "ff" or (found[1] == "00" and found[5]):
        return None
    ids = int(found[2], 16), int(found[3], 16)
    return ids if all(ids) else None


@given(sent=headers)
@example(sent={"traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "tracestate": "a=" + "b" * 100_000})
@example(sent={"traceparent": f"00-{'A' * 32}-{'b' * 16}-01"})
@example(sent={"traceparent": f"ff-{'a' * 32}-{'b' * 16}-01"})
@example(sent={"traceparent": f"cc-{'a' * 32}-{'b' * 16}-01-what-comes-later"})
@example(sent={"traceparent": f"00-{'a' * 32}-{'b' * 16}-01-more"})
@example(sent={"traceparent": f"00-{'0' * 32}-{'b' * 16}-01"})
@example(sent={"traceparent": f"00-{'a' * 32}-{'0' * 16}-01"})
@example(sent={"traceparent": f"00-{'a' * 32}-{'b' * 16}-ff", "tracestate": ["a=1,b=2", "a=3"]})
@example(sent={"traceparent": [f"00-{'a' * 32}-{'b' * 16}-01", f"00-{'c' * 32}-{'d' * 16}-01"]})
@example(sent={"traceparent": [], "tracestate": [], "baggage": []})
def test_a_span_under_whatever_was_sent_is_valid_and_has_that_parent_or_none(sent: Headers) -> None:
    for tracer in OURS:
        (server, parent, recording, carrier, _), (inner, above, _, _, _) = outcomes(tracer, sent)
        known = expected(sent)

        assert server.is_valid
        assert not server.is_remote
        assert inner.trace_id == server.trace_id
        assert above is None or (above.trace_id, above.span_id) == (server.trace_id, server.span_id)
        assert carrier["traceparent"].startswith(f"00-{server.trace_id:032x}-{server.span_id:016x}-")
        if parent is not None:
            assert (parent.is_valid, parent.is_remote) == (True, True)
            assert parent.trace_id == server.trace_id
            assert known == (parent.trace_id, parent.span_id)
        elif recording:
            assert known is None
        assert server.trace_id == (known[0] if known else 0xABCDEF)


@given(sent=headers)
def test_whatever_was_sent_has_the_outcome_that_it_has_with_the_stock_sdk(sent: Headers) -> None:
    for mine, theirs in zip(OURS, STOCK, strict=True):
        with stock_storage():
            stock = outcomes(theirs, sent)

        assert outcomes(mine, sent) == stock


ids = st.integers(1, 2**64 - 1)
trace_ids = st.integers(1, 2**128 - 1)
flags = st.integers(0, 255).map(TraceFlags)
# The propagator of the SDK strips what surrounds a member, as the recommendation allows: no spaces.
trace_states = st.dictionaries(keys, st.text(PRINTED, min_size=1, max_size=40), max_size=32).map(
    lambda pairs: TraceState(list(pairs.items()))
)
bags_to_carry = st.dictionaries(
    st.text(LETTERS.upper() + "0123456789!#$&'*.^_`|~-", min_size=1, max_size=20),
    st.text(max_size=20).map(str.strip),
    max_size=10,
)


@given(trace_id=trace_ids, span_id=ids, flag=flags, state=trace_states, carried=bags_to_carry)
def test_what_is_injected_is_extracted_as_it_was(
    trace_id: int, span_id: int, flag: TraceFlags, state: TraceState, carried: dict[str, str]
) -> None:
    sent = SpanContext(trace_id, span_id, is_remote=False, trace_flags=flag, trace_state=state)
    context = trace.set_span_in_context(trace.NonRecordingSpan(sent), Context())
    for key, value in carried.items():
        context = baggage.set_baggage(key, value, context)
    carrier: dict[str, str] = {}

    PROPAGATOR.inject(carrier, context)
    extracted = PROPAGATOR.extract(carrier, context=Context())

    there = trace.get_current_span(extracted).get_span_context()
    assert (there.trace_id, there.span_id, there.trace_flags) == (trace_id, span_id, flag)
    assert (there.trace_state.to_header(), there.is_remote) == (state.to_header(), True)
    assert dict(baggage.get_all(extracted)) == carried


@given(sent=headers, state=trace_states, flag=flags)
def test_a_trace_goes_on_from_hop_to_hop(sent: Headers, state: TraceState, flag: TraceFlags) -> None:
    first = SpanContext(5, 6, is_remote=True, trace_flags=flag, trace_state=state)
    context = trace.set_span_in_context(
        trace.NonRecordingSpan(first), PROPAGATOR.extract(sent, context=Context())
    )
    for tracer in OURS[:2] * 2:
        carrier: dict[str, str] = {}
        with tracer.start_as_current_span("hop", context) as span:
            PROPAGATOR.inject(carrier)
        context = PROPAGATOR.extract(carrier, context=Context())
        there = trace.get_current_span(context).get_span_context()

        assert there.trace_id == 5
        assert (there.span_id, there.trace_flags) == (0x123456, span.get_span_context().trace_flags)
        assert there.trace_state.to_header() == state.to_header()
        # Whether the id is random is the first one's to say; whether it is sampled each hop decides.
        assert there.trace_flags & 2 == flag & 2
