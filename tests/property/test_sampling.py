"""Rules of sampling that hold for every trace, every ratio, every header and every arrival."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import Decision, Sampler
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState, set_span_in_context

from mapek_runtime.trace.sampling import AdaptiveSampler, JaegerRemoteSampler, ProbabilitySampler
from mapek_runtime.trace.sampling.strategy import (
    Decider,
    PerOperation,
    Probabilistic,
    RateLimiting,
    TokenBucket,
)
from mapek_runtime.trace.sampling.strategy_json import parse_strategy
from mapek_runtime.trace.sampling.threshold import (
    EVERYTHING,
    LEAST_RATIO,
    RANDOMNESS,
    decode_threshold,
    encode_threshold,
    probability_of,
    read_sub_keys,
    threshold_of,
)
from tests.unit.trace.sampling.arrivals import Arrivals

ratios = st.floats(min_value=LEAST_RATIO, max_value=1)
trace_ids = st.integers(min_value=1, max_value=2**128 - 1)
sub_keys = st.text(alphabet="rvthpx0f8;: _.", max_size=40) | st.sampled_from(
    ["rv:00000000000000", "rv:ffffffffffffff", "th:", "th:fd70a4;rv:0", "x:" + "y" * 254]
)
entry_values = sub_keys | st.text(max_size=20)


@st.composite
def states(draw: st.DrawFn) -> TraceState:
    """Trace states that a hostile caller might have sent, as the propagator lets them through."""
    others = draw(st.lists(st.from_regex(r"\A[a-z][a-z0-9]{0,3}\Z"), max_size=32, unique=True))
    entries = [(key, draw(st.sampled_from(["1", "a;b:c", "x y"]))) for key in others if key != "ot"]
    if draw(st.booleans()):
        entries.insert(0, ("ot", draw(entry_values)))
    return TraceState([pair for pair in entries if is_valid(pair)][:32])


def is_valid(pair: tuple[str, str]) -> bool:
    value = pair[1]
    return (
        0 < len(value) <= 256
        and value[-1] != " "
        and all(" " <= letter <= "~" and letter not in ",=" for letter in value)
    )


def under(state: TraceState, flags: int, trace_id: int) -> Context:
    return set_span_in_context(
        NonRecordingSpan(SpanContext(trace_id, 1, True, TraceFlags(flags), state)), Context()
    )


@given(ratio=ratios, digits=st.integers(1, 14))
def test_a_threshold_is_as_close_to_its_ratio_as_its_digits_say(ratio: float, digits: int) -> None:
    threshold = threshold_of(ratio, digits)

    assert 0 <= threshold < EVERYTHING
    # The last digit counts 16^-digits of the ratio's own order of magnitude, or 2^-56.
    tolerance = max(16.0 ** (1 - digits) * min(1.0, ratio * 16), 2.0**-56)
    assert abs(probability_of(threshold) - ratio) <= tolerance


@given(lesser=ratios, greater=ratios)
def test_a_greater_ratio_has_no_greater_threshold(lesser: float, greater: float) -> None:
    lesser, greater = sorted((lesser, greater))

    assert threshold_of(lesser) >= threshold_of(greater)


@given(threshold=st.integers(0, EVERYTHING - 1))
def test_a_threshold_is_read_as_it_was_written(threshold: int) -> None:
    assert decode_threshold(encode_threshold(threshold)) == threshold


def test_the_traces_of_lower_ratios_are_among_those_of_higher_ones() -> None:
    source = random.Random(7)
    ids = [source.getrandbits(128) | 1 for _ in range(100_000)]
    kept = []
    for ratio in (0.1, 0.3, 0.7):
        sampler = ProbabilitySampler(ratio)
        results = [(trace_id, sampler.should_sample(Context(), trace_id, "x")) for trace_id in ids]
        kept.append({each for each, result in results if result.decision is Decision.RECORD_AND_SAMPLE})
        # `ot=th:` is there exactly where the trace is kept.
        marked = {each for each, result in results if result.trace_state and "ot" in result.trace_state}
        assert marked == kept[-1]

    for fewer, more in pairwise(kept):
        assert fewer < more
    for ratio, which in zip((0.1, 0.3, 0.7), kept, strict=True):
        # Five standard deviations.
        assert len(which) / len(ids) == pytest.approx(ratio, abs=5 * (ratio * (1 - ratio) / len(ids)) ** 0.5)


@given(ratio=ratios, state=states(), flags=st.integers(0, 255), trace_id=trace_ids)
def test_no_trace_state_makes_the_probability_sampler_raise_or_lose_what_others_wrote(
    ratio: float, state: TraceState, flags: int, trace_id: int
) -> None:
    sampler = ProbabilitySampler(ratio)

    result = sampler.should_sample(under(state, flags, trace_id), trace_id, "x", None, {"a": 1})

    before = read_sub_keys(state.get("ot", ""))
    after_state = result.trace_state if result.trace_state is not None else TraceState()
    after = read_sub_keys(after_state.get("ot", ""))
    randomness = before.randomness if before.randomness is not None else trace_id & RANDOMNESS
    keeps = randomness >= sampler.threshold
    assert (result.decision is Decision.RECORD_AND_SAMPLE) == keeps
    assert {**after_state, "ot": ""} == {**state, "ot": ""}
    assert after.others == before.others
    assert after.threshold in ({sampler.threshold, None} if keeps else {None})
    assert len(after_state.get("ot", "")) <= 256


@given(state=states(), flags=st.integers(0, 255), trace_id=trace_ids, name=st.text(max_size=5))
def test_no_parent_makes_any_sampler_raise(state: TraceState, flags: int, trace_id: int, name: str) -> None:
    remote = JaegerRemoteSampler("x", initial_rate=0.5)
    samplers: list[Sampler] = [AdaptiveSampler(1.0), remote]

    for sampler in samplers:
        sampler.should_sample(under(state, flags, trace_id), trace_id, name)
        sampler.should_sample(None, trace_id, name, trace_state=state)


@given(document=st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_answer_is_a_strategy_or_a_value_error(document: bytes) -> None:
    try:
        strategy = parse_strategy(document)
    except ValueError:
        return
    Decider(strategy, 0.0).decide(0, "x", 0.0)


@given(
    rate=st.floats(0, 50),
    steps=st.lists(st.tuples(st.floats(-1, 5), st.integers(1, 30)), max_size=30),
)
def test_a_bucket_never_lets_more_pass_than_its_rate_and_one_second(
    rate: float, steps: list[tuple[float, int]]
) -> None:
    bucket = TokenBucket(rate, 0.0)
    now = latest = 0.0
    passed = 0

    for step, count in steps:
        now += step
        latest = max(latest, now)
        passed += sum(bucket.take(now) for _ in range(count))

    assert passed <= rate * latest + max(1.0, rate) * (rate > 0) + 1e-6


@given(
    default=st.floats(0, 1),
    lower=st.floats(0, 5),
    upper=st.just(0.0) | st.floats(0.1, 5),
    arrivals=st.lists(
        st.tuples(st.sampled_from("ab"), st.floats(0, 1), st.integers(0, RANDOMNESS)), max_size=80
    ),
)
def test_the_bounds_of_an_operation_hold(
    default: float, lower: float, upper: float, arrivals: list[tuple[str, float, int]]
) -> None:
    strategy = PerOperation(default=default, lower_bound=lower, upper_bound=upper)
    decider = Decider(strategy, 0.0)
    plain = Decider(Probabilistic(default), 0.0)
    now, kept, by_share = 0.0, dict.fromkeys("ab", 0), dict.fromkeys("ab", 0)

    for name, step, randomness in arrivals:
        now += step
        verdict = decider.decide(randomness, name, now)
        share = plain.decide(randomness, name, now)
        kept[name] += verdict is not None
        by_share[name] += share is not None
        if share is not None and not upper:
            assert verdict == share

    for name in "ab":
        extra = lower * now + max(1.0, lower) if lower else 0.0
        assert kept[name] <= by_share[name] + extra + 1e-6
        if upper:
            assert kept[name] <= upper * now + max(1.0, upper) + 1e-6


@given(per_second=st.floats(0, 100), steps=st.lists(st.floats(0, 2), max_size=100))
def test_rate_limiting_keeps_to_its_rate(per_second: float, steps: list[float]) -> None:
    decider = Decider(RateLimiting(per_second), 0.0)
    now, kept = 0.0, 0

    for step in steps:
        now += step
        kept += decider.decide(0, "x", now) is not None

    assert kept <= per_second * now + max(1.0, per_second) * (per_second > 0) + 1e-6


@settings(max_examples=60, deadline=None)
@given(
    budget=st.floats(0.1, 50),
    operations=st.integers(1, 6),
    seed=st.integers(0, 2**32),
    bursts=st.lists(
        st.tuples(st.integers(0, 9), st.floats(0, 3), st.integers(1, 300)), min_size=1, max_size=40
    ),
)
def test_over_any_arrivals_the_kept_rate_stays_within_the_budget(
    budget: float, operations: int, seed: int, bursts: list[tuple[int, float, int]]
) -> None:
    arrivals = Arrivals(budget, seed=seed, operations=operations)

    for number, step, count in bursts:
        arrivals.now += step
        arrivals.at_once(f"op {number}", count)

    entries = min(operations, len(arrivals.arrived)) + (len(arrivals.arrived) > operations)
    # The budget, one pool, the first trace of each operation; and 11 beyond the last token of an operation
    # come only when 300 traces in a row meet a chance of 4^-11.
    assert arrivals.total_kept <= budget * arrivals.now + max(1.0, budget) + entries * (1 + 11)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    flood=st.integers(10, 400),
    others=st.integers(0, 4),
    gap=st.integers(2, 9),
)
def test_rare_operations_keep_being_seen_in_a_flood(seed: int, flood: int, others: int, gap: int) -> None:
    arrivals = Arrivals(10.0, seed=seed)

    for second in range(60):
        for step in range(5):
            arrivals.now = second + step / 5
            arrivals.at_once("flood", flood)
            for number in range(others):
                arrivals.at_once(f"busy {number}", 10)
        if second % gap == 0:
            assert arrivals.one("rare")


@pytest.mark.parametrize(
    ("rates", "tolerance"),
    [({"a": 5.0}, 0.005), ({"a": 100.0, "b": 5.0}, 0.05), ({"a": 1000.0}, 0.08)],
    ids=["within the budget", "two operations", "a hundredfold"],
)
def test_counts_estimated_from_what_was_kept_are_right_on_average(
    rates: dict[str, float], tolerance: float
) -> None:
    arrived = estimated = 0.0
    for seed in range(12):
        arrivals = Arrivals(10.0, seed=seed).steady(rates, seconds=30)
        arrived += sum(arrivals.arrived.values())
        estimated += sum(arrivals.estimated.values())

    assert estimated == pytest.approx(arrived, rel=tolerance)


def test_counts_stay_right_on_average_when_bursts_use_up_every_token() -> None:
    arrived = estimated = 0.0
    for seed in range(400):
        arrivals = Arrivals(2.0, seed=seed)
        for _ in range(6):
            arrivals.now += 1.0
            arrivals.at_once("a", 60)
        arrived += arrivals.arrived["a"]
        estimated += arrivals.estimated["a"]

    assert estimated == pytest.approx(arrived, rel=0.1)
