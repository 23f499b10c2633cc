"""`JaegerRemoteSampler`: decides by the strategy that it was given last."""

from __future__ import annotations

import pytest
from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Decision, ParentBased, SamplingResult
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState, set_span_in_context

from mapek_runtime.trace.sampling import JaegerRemoteSampler
from mapek_runtime.trace.sampling.remote import find_remote
from mapek_runtime.trace.sampling.strategy import PerOperation, Probabilistic, RateLimiting
from mapek_runtime.trace.sampling.threshold import RANDOMNESS

HIGH, LOW = RANDOMNESS, 1 << 56


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Attendance:
    """A source that never has anything to say."""

    def __init__(self) -> None:
        self.attended: list[JaegerRemoteSampler] = []

    def attend(self, sampler: JaegerRemoteSampler) -> None:
        self.attended.append(sampler)


def asked(sampler: JaegerRemoteSampler, trace_id: int, name: str = "x") -> SamplingResult:
    return sampler.should_sample(Context(), trace_id, name)


def kept(result: SamplingResult) -> bool:
    return result.decision is Decision.RECORD_AND_SAMPLE


def test_the_initial_rate_decides_until_there_is_a_strategy() -> None:
    sampler = JaegerRemoteSampler("shop", initial_rate=0.5)

    assert kept(asked(sampler, HIGH))
    assert not kept(asked(sampler, LOW))

    sampler.strategy = Probabilistic(1.0)
    assert kept(asked(sampler, LOW))


def test_a_probability_is_recorded_and_a_rate_is_not() -> None:
    time = Time()
    sampler = JaegerRemoteSampler("shop", initial_rate=0.5, clock=time)

    by_share = asked(sampler, HIGH)
    sampler.strategy = RateLimiting(1.0)
    by_rate = asked(sampler, HIGH)

    assert by_share.trace_state == TraceState([("ot", "th:8")])
    assert kept(by_rate)
    assert not by_rate.trace_state
    assert not kept(asked(sampler, HIGH))


def test_a_threshold_from_before_does_not_outlive_a_decision_by_rate() -> None:
    sampler = JaegerRemoteSampler("shop", clock=Time())
    sampler.strategy = RateLimiting(1.0)
    state = TraceState([("ot", "th:8;rv:00000000000000"), ("v", "1")])
    parent = SpanContext(1, 1, True, TraceFlags(3), state)

    result = sampler.should_sample(set_span_in_context(NonRecordingSpan(parent), Context()), 1, "x")

    assert kept(result)
    assert result.trace_state is not None
    assert {**result.trace_state} == {"ot": "rv:00000000000000", "v": "1"}


def test_the_same_strategy_again_gives_no_new_tokens() -> None:
    sampler = JaegerRemoteSampler("shop", clock=Time())
    sampler.strategy = RateLimiting(1.0)
    assert kept(asked(sampler, LOW))

    sampler.strategy = RateLimiting(1.0)

    assert not kept(asked(sampler, LOW))


def test_each_operation_is_decided_by_its_name() -> None:
    sampler = JaegerRemoteSampler("shop", initial_rate=0)
    sampler.strategy = PerOperation(default=0.0, operations={"mape_k.cycle": 1.0})

    assert kept(asked(sampler, LOW, "mape_k.cycle"))
    assert not kept(asked(sampler, HIGH, "other"))


def test_the_source_is_told_of_decisions_on_roots_only_under_a_parent_based() -> None:
    source = Attendance()
    sampler = JaegerRemoteSampler("shop", source=source)
    parent = SpanContext(1, 1, True, TraceFlags(1))

    ParentBased(sampler).should_sample(Context(), 1, "root")
    ParentBased(sampler).should_sample(set_span_in_context(NonRecordingSpan(parent), Context()), 1, "child")

    assert source.attended == [sampler]


def test_it_is_found_inside_a_parent_based() -> None:
    sampler = JaegerRemoteSampler("shop")

    assert find_remote(sampler) is sampler
    assert find_remote(ParentBased(sampler)) is sampler
    assert find_remote(ParentBased(ALWAYS_ON)) is None


def test_it_describes_the_strategy_of_the_moment() -> None:
    sampler = JaegerRemoteSampler("shop", initial_rate=0.25)
    assert sampler.get_description() == "JaegerRemoteSampler{probabilistic 0.25}"

    sampler.strategy = RateLimiting(5)
    assert sampler.get_description() == "JaegerRemoteSampler{rate limiting 5/s}"


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_an_initial_rate_that_is_no_share_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        JaegerRemoteSampler("shop", initial_rate=rate)
