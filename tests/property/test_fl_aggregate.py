"""Laws of aggregation: order, bounds, weights, and what a poisoned minority can do."""

from __future__ import annotations

import math
import statistics
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mapek_domains.fl.aggregate import MOST_SAMPLES, Method, Update, aggregate
from mapek_domains.fl.learner import Array, Weights

SHAPES = ((2, 2), (3,))
BASE: Weights = tuple(np.zeros(shape, np.float32) for shape in SHAPES)
METHODS: list[Method] = ["mean", "median", "trimmed"]

numbers = st.floats(-1e3, 1e3, width=32)
wild = st.floats(-1e5, 1e5, width=32)
anything = st.floats(width=32, allow_nan=True, allow_infinity=True)


def weights(values: st.SearchStrategy[float]) -> st.SearchStrategy[Weights]:
    def shaped(flat: list[float]) -> Weights:
        return np.array(flat[:4], np.float32).reshape(2, 2), np.array(flat[4:], np.float32)

    return st.lists(values, min_size=7, max_size=7).map(shaped)


def updates(values: st.SearchStrategy[float] = numbers, *, least: int = 1) -> st.SearchStrategy[list[Update]]:
    one = st.builds(Update, weights(values), st.integers(1, 10_000))
    return st.lists(one, min_size=least, max_size=12)


def flat(model: Weights | list[Array]) -> Any:
    return np.concatenate([np.asarray(array, np.float64).ravel() for array in model])


def stacked(some: list[Update]) -> Any:
    return np.stack([flat(tuple(update.weights)) for update in some])


@pytest.mark.parametrize("method", METHODS)
@given(data=st.data())
def test_the_order_of_the_clients_does_not_matter(method: Method, data: st.DataObject) -> None:
    some = data.draw(updates())
    turned = data.draw(st.permutations(some))
    clip = data.draw(st.sampled_from([0.0, 1.5]))

    first, second = (
        aggregate(each, BASE, method=method, clip=clip, most_weight=2.0) for each in (some, turned)
    )

    assert flat(first.weights) == pytest.approx(flat(second.weights), rel=1e-5, abs=1e-3)


@pytest.mark.parametrize("method", METHODS)
@given(some=updates(), trim=st.floats(0.0, 0.49))
def test_every_parameter_lies_between_the_lowest_and_the_highest(
    method: Method, some: list[Update], trim: float
) -> None:
    made = flat(aggregate(some, BASE, method=method, trim=trim).weights)
    all_of_them = stacked(some)

    slack = 1e-4 * (1.0 + np.abs(all_of_them).max())
    assert (made >= all_of_them.min(axis=0) - slack).all()
    assert (made <= all_of_them.max(axis=0) + slack).all()


@given(some=updates())
def test_the_mean_is_numpys_average_by_samples(some: list[Update]) -> None:
    made = aggregate(some, BASE)

    wanted = np.average(stacked(some), axis=0, weights=[update.samples for update in some])
    assert flat(made.weights) == pytest.approx(wanted, rel=1e-5, abs=1e-3)
    assert made.used == tuple(range(len(some)))


@given(some=updates(), most=st.floats(1.0, 10.0))
def test_no_client_weighs_more_than_its_cap_and_all_weigh_one(some: list[Update], most: float) -> None:
    shares = aggregate(some, BASE, most_weight=most).shares

    assert sum(shares) == pytest.approx(1.0)
    assert max(shares) <= most * sorted(shares)[(len(shares) - 1) // 2] * (1 + 1e-9)


@given(
    honest=st.lists(st.integers(50, 200), min_size=3, max_size=9),
    poisoned=st.lists(st.integers(1, MOST_SAMPLES), min_size=1, max_size=4),
)
def test_claims_of_a_minority_win_no_more_than_the_cap_gives(honest: list[int], poisoned: list[int]) -> None:
    assume(len(poisoned) < len(honest))
    some = [Update(BASE, samples) for samples in [*honest, *poisoned]]

    shares = aggregate(some, BASE, most_weight=2.0).shares

    median = statistics.median_low([*honest, *poisoned])
    theirs, ours = len(poisoned) * 2.0 * median, sum(min(claim, 2.0 * median) for claim in honest)
    # With a majority honest, the low median is not above every honest claim.
    assert median <= max(honest)
    assert sum(shares[len(honest) :]) <= theirs / (theirs + ours) + 1e-9


@pytest.mark.parametrize("method", ["median", "trimmed"])
@given(honest=updates(least=3), poison=st.lists(weights(wild), min_size=1, max_size=5))
def test_a_poisoned_minority_stays_within_the_honest(
    method: Method, honest: list[Update], poison: list[Weights]
) -> None:
    assume(len(poison) < len(honest))
    some = [*honest, *(Update(each, MOST_SAMPLES) for each in poison)]
    # The trimmed mean leaves out so many at each end.
    trim = len(poison) / len(some)

    made = flat(aggregate(some, BASE, method=method, trim=trim).weights)

    honestly = stacked(honest)
    slack = 1e-4 * (1.0 + np.abs(honestly).max())
    assert (made >= honestly.min(axis=0) - slack).all()
    assert (made <= honestly.max(axis=0) + slack).all()


@pytest.mark.parametrize("method", METHODS)
@given(some=updates(anything))
def test_whatever_comes_the_model_is_finite_and_every_client_is_accounted_for(
    method: Method, some: list[Update]
) -> None:
    made = aggregate(some, BASE, method=method, clip=2.0, most_weight=2.0)

    assert np.isfinite(flat(made.weights)).all()
    assert sorted([*made.used, *made.refused]) == list(range(len(some)))
    assert all(array.dtype == np.float32 for array in made.weights)
    assert [array.shape for array in made.weights] == list(SHAPES)


@pytest.mark.parametrize("method", METHODS)
@given(one=weights(numbers), count=st.integers(1, 8))
def test_clients_that_agree_are_agreed_with(method: Method, one: Weights, count: int) -> None:
    made = aggregate([Update(one, 5 + index) for index in range(count)], BASE, method=method)

    assert flat(made.weights) == pytest.approx(flat(one), rel=1e-6, abs=1e-6)


@given(some=updates(least=2), clip=st.floats(0.5, 3.0))
def test_clipping_lets_nobody_go_further_than_its_share_of_the_median(
    some: list[Update], clip: float
) -> None:
    lengths = sorted(math.sqrt(float((each**2).sum())) for each in stacked(some))
    most = clip * lengths[(len(lengths) - 1) // 2]

    made = flat(aggregate(some, BASE, clip=clip).weights)

    assert math.sqrt(float((made**2).sum())) <= most * (1 + 1e-4) + 1e-3
