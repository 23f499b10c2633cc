"""Strategies: what a server may say, and what follows for one span at one moment."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mapek_runtime.trace.sampling.strategy import (
    UNKNOWN,
    Decider,
    PerOperation,
    Probabilistic,
    RateLimiting,
    Strategy,
    TokenBucket,
    describe_strategy,
)
from mapek_runtime.trace.sampling.strategy_json import parse_strategy
from mapek_runtime.trace.sampling.threshold import RANDOMNESS, threshold_of

HIGH, LOW = RANDOMNESS, 0


@pytest.mark.parametrize(
    ("document", "strategy"),
    [
        (
            {"strategyType": "PROBABILISTIC", "probabilisticSampling": {"samplingRate": 0.42}},
            Probabilistic(0.42),
        ),
        ({"probabilisticSampling": {"samplingRate": 1}}, Probabilistic(1.0)),
        ({"probabilisticSampling": {}}, Probabilistic(0.0)),
        (
            {"strategyType": "RATE_LIMITING", "rateLimitingSampling": {"maxTracesPerSecond": 42}},
            RateLimiting(42.0),
        ),
        ({"strategyType": 1, "rateLimitingSampling": {"maxTracesPerSecond": 0.5}}, RateLimiting(0.5)),
        (
            {
                "strategyType": "PROBABILISTIC",
                "probabilisticSampling": {"samplingRate": 0.9},
                "operationSampling": {
                    "defaultSamplingProbability": 0.1,
                    "defaultLowerBoundTracesPerSecond": 0.01,
                    "defaultUpperBoundTracesPerSecond": 0,
                    "perOperationStrategies": [
                        {"operation": "mape_k.cycle", "probabilisticSampling": {"samplingRate": 0.5}}
                    ],
                },
            },
            PerOperation(default=0.1, lower_bound=0.01, operations={"mape_k.cycle": 0.5}),
        ),
        ({"operationSampling": {"perOperationStrategies": None}, "new": 1}, PerOperation(default=0.0)),
    ],
)
def test_what_jaeger_answers_is_read(document: dict[str, Any], strategy: Strategy) -> None:
    assert parse_strategy(json.dumps(document)) == strategy


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (b"", "truncated"),
        (b"<html>", "malformed"),
        (b"\xff\xfe", "malformed"),
        (b"[]", "Expected `object`"),
        (b"{}", "it must have operationSampling"),
        (b'{"strategyType":"OTHER"}', "strategyType"),
        (b'{"strategyType":"RATE_LIMITING","probabilisticSampling":{}}', "without rateLimitingSampling"),
        (b'{"probabilisticSampling":{"samplingRate":1.5}}', "samplingRate"),
        (b'{"probabilisticSampling":{"samplingRate":-1}}', "samplingRate"),
        (b'{"probabilisticSampling":{"samplingRate":NaN}}', "malformed"),
        (b'{"probabilisticSampling":{"samplingRate":"1"}}', "samplingRate"),
        (b'{"strategyType":"RATE_LIMITING","rateLimitingSampling":{"maxTracesPerSecond":1e999}}', ""),
        (b'{"operationSampling":{"perOperationStrategies":[{}]}}', "operation"),
        (b"[" * 100_000, ""),
    ],
)
def test_nonsense_is_refused_with_a_reason(document: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match="no sampling strategy: ") as refused:
        parse_strategy(document)

    assert reason in str(refused.value)


def test_a_bucket_lets_its_rate_pass_and_a_second_at_once() -> None:
    bucket = TokenBucket(2.0, 0.0)

    assert [bucket.take(0.0) for _ in range(3)] == [True, True, False]
    assert not bucket.take(0.4)
    assert bucket.take(0.5)
    assert [bucket.take(1000.0) for _ in range(3)] == [True, True, False]


def test_a_bucket_slower_than_one_a_second_lets_one_pass_in_its_time() -> None:
    bucket = TokenBucket(0.1, 0.0)

    assert [bucket.take(float(second)) for second in (0, 1, 9, 10, 11)] == [True, False, False, True, False]


def test_a_bucket_of_nothing_lets_nothing_pass() -> None:
    assert not TokenBucket(0.0, 0.0).take(1e9)


def test_a_clock_that_goes_back_gives_no_token() -> None:
    bucket = TokenBucket(1.0, 100.0)
    bucket.take(100.0)

    assert not bucket.take(0.0)
    assert not bucket.take(100.5)
    assert bucket.take(101.0)


def test_a_probability_decides_by_the_randomness() -> None:
    decider = Decider(Probabilistic(0.42), 0.0)

    assert decider.decide(HIGH, "x", 0.0) == threshold_of(0.42)
    assert decider.decide(LOW, "x", 0.0) is None
    assert Decider(Probabilistic(0.0), 0.0).decide(HIGH, "x", 0.0) is None


def test_a_rate_decides_by_the_time_alone() -> None:
    decider = Decider(RateLimiting(1.0), 0.0)

    assert [decider.decide(LOW, "x", now) for now in (0.0, 0.5, 1.0)] == [UNKNOWN, None, UNKNOWN]


def test_each_operation_has_its_own_probability() -> None:
    decider = Decider(PerOperation(default=0.0, operations={"a": 1.0}), 0.0)

    assert decider.decide(LOW, "a", 0.0) == 0
    assert decider.decide(HIGH, "b", 0.0) is None


def test_the_lower_bound_adds_what_the_probability_does_not_give() -> None:
    decider = Decider(PerOperation(default=0.5, lower_bound=1.0), 0.0)

    assert decider.decide(LOW, "a", 0.0) == UNKNOWN
    assert decider.decide(LOW, "a", 0.5) is None
    assert decider.decide(LOW, "b", 0.5) == UNKNOWN
    assert decider.decide(HIGH, "a", 1.5) == threshold_of(0.5)
    assert decider.decide(LOW, "a", 1.6) is None


def test_the_upper_bound_holds_for_each_operation() -> None:
    decider = Decider(PerOperation(default=1.0, upper_bound=1.0), 0.0)

    assert [decider.decide(HIGH, "a", 0.0) for _ in range(2)] == [UNKNOWN, None]
    assert decider.decide(HIGH, "b", 0.0) == UNKNOWN


def test_operations_beyond_the_bound_go_by_the_probability() -> None:
    decider = Decider(PerOperation(default=0.5, lower_bound=1.0), 0.0)
    for number in range(2000):
        decider.decide(LOW, f"op {number}", 0.0)

    assert decider.decide(LOW, "one more", 0.0) is None
    assert decider.decide(HIGH, "one more", 0.0) == threshold_of(0.5)


@pytest.mark.parametrize(
    ("strategy", "words"),
    [
        (Probabilistic(0.42), "probabilistic 0.42"),
        (RateLimiting(42), "rate limiting 42/s"),
        (PerOperation(default=0.1, operations={"a": 1}), "per operation (1 named, others 0.1)"),
    ],
)
def test_a_strategy_is_described_in_a_few_words(strategy: Strategy, words: str) -> None:
    assert describe_strategy(strategy) == words
