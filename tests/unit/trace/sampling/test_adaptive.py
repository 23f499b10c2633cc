"""`AdaptiveSampler` and the division of its budget."""

from __future__ import annotations

import pytest
from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import Decision, ParentBased
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState, set_span_in_context

from mapek_runtime import TracerProvider
from mapek_runtime.trace.sampling import AdaptiveSampler
from mapek_runtime.trace.sampling.budget import Budget, shares_of
from mapek_runtime.trace.sampling.threshold import RANDOMNESS, adjusted_count, read_sub_keys
from tests.unit.trace.sampling.arrivals import Arrivals


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_new_operation_is_seen_at_once() -> None:
    budget = Budget(1.0, now=0.0)
    budget.decide("flood", 0, 0.0)
    budget.decide("flood", 0, 0.0)

    assert budget.decide("new", 0, 0.0) == 0


def test_what_fits_into_the_budget_is_kept_whole() -> None:
    seen = Arrivals(budget=10).steady({"a": 5, "b": 1}, seconds=60)

    assert seen.kept == seen.arrived


def test_a_frequent_operation_is_cut_down_to_the_budget() -> None:
    seen = Arrivals(budget=10).steady({"a": 1000}, seconds=60)

    assert 7 * 60 < seen.kept["a"] <= 11 * 60


def test_frequent_operations_share_and_a_rare_one_keeps_everything() -> None:
    seen = Arrivals(budget=10).steady({"a": 3000, "b": 300, "rare": 0.2}, seconds=60)

    assert seen.kept["rare"] == seen.arrived["rare"] > 5
    assert seen.kept["a"] == pytest.approx(seen.kept["b"], rel=0.3)
    assert seen.total_kept <= 11 * 60


def test_the_probability_follows_the_measured_rate() -> None:
    arrivals = Arrivals(budget=10)
    arrivals.steady({"a": 1000}, seconds=30)
    busy = arrivals.budget.probability("a")
    arrivals.steady({"a": 20}, seconds=30)

    assert 0.006 < busy < 0.013
    assert 0.3 < arrivals.budget.probability("a") < 0.7


def test_a_burst_of_any_height_keeps_only_a_few_more() -> None:
    arrivals = Arrivals(budget=10)
    arrivals.steady({"a": 1}, seconds=30)
    before = arrivals.kept["a"]

    arrivals.at_once("a", 200_000)

    # Its own tokens, the pool, and about the logarithm to the base 4 of what arrived.
    assert arrivals.kept["a"] - before <= 2 * 10 + 15


def test_operations_beyond_the_bound_share_one_entry() -> None:
    budget = Budget(5.0, now=0.0, operations=3)
    for name in ("a", "b", "c"):
        budget.decide(name, 0, 0.0)

    kept = [budget.decide(f"op {number}", RANDOMNESS >> 1, 0.0) for number in range(100)]

    # One token of that entry, and the pool of five.
    assert sum(each is not None for each in kept) <= 6


def test_an_operation_that_is_gone_makes_room_for_another() -> None:
    budget = Budget(5.0, now=0.0, operations=1)
    budget.decide("old", 0, 0.0)
    for second in range(1, 70):
        budget.decide("flood", 0, float(second))

    flooded = [budget.decide("flood", 0, 70.0) for _ in range(50)]
    budget.decide("new", 0, 71.0)

    assert flooded[-1] is None
    assert budget.probability("flood") < 1


def test_the_shares_are_what_is_needed_up_to_one_level() -> None:
    shares = shares_of(10.0, [1.0, 100.0, 3.0, 50.0])

    assert shares[0] == 1.0
    assert shares[1] == shares[3] == pytest.approx(3.0)
    assert shares[2] == pytest.approx(3.0)
    assert sum(shares) == pytest.approx(10.0)


@pytest.mark.parametrize("budget", [0, -1, float("nan"), float("inf")])
def test_a_budget_that_is_none_is_refused(budget: float) -> None:
    with pytest.raises(ValueError, match="a number of traces a second above 0"):
        AdaptiveSampler(budget)


def test_operations_must_be_at_least_one() -> None:
    with pytest.raises(ValueError, match="it must be at least 1"):
        AdaptiveSampler(1, operations=0)


def test_what_is_kept_says_its_threshold() -> None:
    time = Time()
    sampler = AdaptiveSampler(2, clock=time)
    counts: list[float] = []

    for number in range(20_000):
        time.now = number / 1000
        result = sampler.should_sample(Context(), number * 0x9E3779B97F4A7C15, "x")
        if result.decision is Decision.RECORD_AND_SAMPLE:
            assert result.trace_state is not None
            threshold = read_sub_keys(result.trace_state["ot"]).threshold
            assert threshold is not None
            counts.append(adjusted_count(threshold))

    assert counts[0] == 1
    assert max(counts) > 100


def test_an_explicit_randomness_decides() -> None:
    time = Time()
    sampler = AdaptiveSampler(1, clock=time)
    for _ in range(3):
        sampler.should_sample(Context(), RANDOMNESS, "x")
    context = set_span_in_context(
        NonRecordingSpan(SpanContext(0, 0, False, TraceFlags(0), TraceState([("ot", "rv:00000000000000")]))),
        Context(),
    )

    result = sampler.should_sample(context, RANDOMNESS, "x")

    assert result.decision is Decision.DROP
    assert result.trace_state is not None
    assert result.trace_state["ot"] == "rv:00000000000000"


@pytest.mark.parametrize("sampled", [True, False])
def test_a_child_does_as_its_parent_and_costs_nothing_of_the_budget(sampled: bool) -> None:
    sampler = AdaptiveSampler(1, clock=Time())
    state = TraceState([("ot", "th:c")])
    parent = SpanContext(1, 1, True, TraceFlags(int(sampled)), state)
    context = set_span_in_context(NonRecordingSpan(parent), Context())

    results = [sampler.should_sample(context, 1, "x", None, {"a": 1}) for _ in range(100)]

    assert {result.decision is Decision.RECORD_AND_SAMPLE for result in results} == {sampled}
    assert all(result.trace_state == state for result in results)
    assert sampler.should_sample(Context(), 0, "x").decision is Decision.RECORD_AND_SAMPLE


def test_whole_traces_are_kept_or_dropped() -> None:
    tracer = TracerProvider(ParentBased(AdaptiveSampler(1, clock=Time())), shutdown_on_exit=False).get_tracer(
        "x"
    )
    pairs = set()

    for _ in range(50):
        with tracer.start_as_current_span("root") as root, tracer.start_as_current_span("child") as child:
            pairs.add((root.is_recording(), child.is_recording()))

    assert pairs == {(True, True), (False, False)}


def test_it_describes_itself() -> None:
    assert AdaptiveSampler(2.5).get_description() == "AdaptiveSampler{2.5/s}"
