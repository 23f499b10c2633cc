"""`ProbabilitySampler` alone, inside `ParentBased` and under a provider."""

from __future__ import annotations

import logging

import pytest
from opentelemetry import propagate
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider as StockProvider
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, Sampler, SamplingResult
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState, set_span_in_context

from mapek_runtime import TracerProvider
from mapek_runtime.trace.sampling import ProbabilitySampler
from mapek_runtime.trace.sampling.threshold import RANDOMNESS

HALF = 0x80000000000000
HIGH, LOW = HALF, HALF - 1
"""Trace ids that a sampler of one half keeps, and does not keep, by a hair."""
NOISE = 0xABCDEF << 56


def under(
    state: str | TraceState = "", *, trace_id: int = LOW, flags: int = 0x03, span_id: int = 7
) -> Context:
    """A context with a remote parent in it."""
    carried = TraceState.from_header([state]) if isinstance(state, str) else state
    parent = SpanContext(trace_id, span_id, True, TraceFlags(flags), carried)
    return set_span_in_context(NonRecordingSpan(parent), Context())


def asked(sampler: Sampler, trace_id: int, context: Context | None = None) -> SamplingResult:
    return sampler.should_sample(Context() if context is None else context, trace_id, "x", None, {"a": 1})


def header(result: SamplingResult) -> str:
    return result.trace_state.to_header() if result.trace_state else ""


def kept(result: SamplingResult) -> bool:
    return result.decision is Decision.RECORD_AND_SAMPLE


def test_a_root_is_kept_when_its_randomness_reaches_the_threshold() -> None:
    sampler = ProbabilitySampler(0.5)

    assert sampler.threshold == HALF
    assert kept(asked(sampler, NOISE + HIGH))
    assert not kept(asked(sampler, NOISE + LOW))


def test_what_is_kept_says_the_threshold_and_keeps_its_attributes() -> None:
    result = asked(ProbabilitySampler(0.01), RANDOMNESS)

    assert header(result) == "ot=th:fd70a"
    assert dict(result.attributes or {}) == {"a": 1}


def test_what_is_dropped_says_no_threshold() -> None:
    result = asked(ProbabilitySampler(0.01), 0)

    assert header(result) == ""
    assert not result.attributes


def test_the_ratio_one_keeps_the_least_randomness() -> None:
    assert header(asked(ProbabilitySampler(1.0), 1 << 56)) == "ot=th:0"


@pytest.mark.parametrize("ratio", [0, 1.5, -1])
def test_a_ratio_that_is_no_probability_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match="2\\^-56 to 1"):
        ProbabilitySampler(ratio)


def test_an_explicit_randomness_comes_before_the_trace_id_and_stays() -> None:
    sampler = ProbabilitySampler(0.5)

    lifted = asked(sampler, LOW, under("ot=rv:ffffffffffffff"))
    pushed = asked(sampler, HIGH, under("ot=rv:00000000000000", trace_id=HIGH))

    assert kept(lifted)
    assert header(lifted) == "ot=th:8;rv:ffffffffffffff"
    assert not kept(pushed)
    assert header(pushed) == "ot=rv:00000000000000"


def test_a_root_can_be_given_its_randomness_by_who_starts_it() -> None:
    context = under("ot=rv:ffffffffffffff,v=1", trace_id=0, span_id=0)

    result = asked(ProbabilitySampler(0.5), LOW, context)

    assert header(result) == "ot=th:8;rv:ffffffffffffff,v=1"


@pytest.mark.parametrize("flags", [0x02, 0x03])
@pytest.mark.parametrize("trace_id", [LOW, HIGH])
def test_the_parents_decision_and_threshold_are_not_looked_at(flags: int, trace_id: int) -> None:
    result = asked(ProbabilitySampler(0.5), trace_id, under("ot=th:fff", trace_id=trace_id, flags=flags))

    assert kept(result) == (trace_id == HIGH)
    assert header(result) == ("ot=th:8" if trace_id == HIGH else "")


@pytest.mark.parametrize("trace_id", [LOW, HIGH])
def test_what_others_wrote_is_handed_on(trace_id: int) -> None:
    context = under("v=1,ot=p:8;th:1;x:y,w=2", trace_id=trace_id)

    state = asked(ProbabilitySampler(0.5), trace_id, context).trace_state

    assert state is not None
    assert {**state} == {"v": "1", "w": "2", "ot": "th:8;p:8;x:y" if trace_id == HIGH else "p:8;x:y"}


def test_a_full_trace_state_loses_no_entry_to_ours(caplog: pytest.LogCaptureFixture) -> None:
    full = TraceState([(f"k{number}", "v") for number in range(32)])

    result = asked(ProbabilitySampler(0.5), HIGH, under(full, trace_id=HIGH))

    assert kept(result)
    assert result.trace_state == full
    assert caplog.records == []


def test_a_parent_without_the_random_flag_is_warned_about_once(caplog: pytest.LogCaptureFixture) -> None:
    sampler = ProbabilitySampler(0.5)

    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            asked(sampler, LOW, under(flags=0x01))

    (record,) = caplog.records
    assert "Random flag" in record.getMessage()


@pytest.mark.parametrize(
    "context",
    [Context(), under(flags=0x03), under("ot=rv:00000000000000", flags=0x01)],
    ids=["root", "flag set", "explicit randomness"],
)
def test_nothing_is_warned_about_where_the_randomness_is_known(
    context: Context, caplog: pytest.LogCaptureFixture
) -> None:
    asked(ProbabilitySampler(0.5), LOW, context)

    assert caplog.records == []


@pytest.mark.parametrize("provider", [TracerProvider, StockProvider], ids=["ours", "stock"])
def test_a_child_keeps_its_parents_threshold(provider: type[StockProvider]) -> None:
    tracer = provider(ParentBased(ProbabilitySampler(1.0)), shutdown_on_exit=False).get_tracer("x")
    headers: dict[str, str] = {}

    with tracer.start_as_current_span("root"), tracer.start_as_current_span("child") as child:
        propagate.inject(headers)

    assert headers["tracestate"] == "ot=th:0"
    assert child.get_span_context().trace_state.to_header() == "ot=th:0"


def test_a_node_downstream_keeps_the_threshold_it_was_handed() -> None:
    tracer = TracerProvider(ParentBased(ProbabilitySampler(0.5)), shutdown_on_exit=False).get_tracer("x")
    parent = propagate.extract(
        {"traceparent": f"00-{'a' * 32}-{'b' * 16}-03", "tracestate": "ot=th:fd70a4,v=1"}
    )

    span = tracer.start_span("x", context=parent)

    assert span.is_recording()
    assert span.get_span_context().trace_state.to_header() == "ot=th:fd70a4,v=1"


def test_the_random_flag_is_set_on_roots() -> None:
    tracer = TracerProvider(ParentBased(ProbabilitySampler(1.0)), shutdown_on_exit=False).get_tracer("x")

    assert tracer.start_span("x").get_span_context().trace_flags == 0x03


def test_it_describes_itself() -> None:
    assert ProbabilitySampler(0.01).get_description() == "ProbabilitySampler{0.01}"
