"""Many models into one: what counts, what is refused and why, and who can sway it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mapek_domains.fl.aggregate import MOST_SAMPLES, Update, aggregate, refusal
from mapek_domains.fl.learner import Weights

BASE: Weights = (np.zeros((2, 2), np.float32), np.zeros(2, np.float32))


def update(number: float, samples: int = 10) -> Update:
    return Update([np.full((2, 2), number, np.float32), np.full(2, -number, np.float32)], samples)


def test_the_mean_is_weighted_by_samples() -> None:
    made = aggregate([update(1.0, 10), update(5.0, 30)], BASE)

    assert made.weights[0].dtype == np.float32
    assert made.weights[0].tolist() == [[4.0, 4.0], [4.0, 4.0]]
    assert made.weights[1].tolist() == [-4.0, -4.0]
    assert made.shares == (0.25, 0.75)
    assert made.used == (0, 1)


def test_a_claim_of_many_samples_does_not_win() -> None:
    honest = [update(1.0, samples) for samples in (80, 100, 120)]

    made = aggregate([*honest, update(1000.0, MOST_SAMPLES)], BASE, most_weight=2.0)

    assert made.shares == (0.16, 0.2, 0.24, 0.4)


@pytest.mark.parametrize(
    ("method", "wanted"),
    [("mean", 22.0), ("median", 3.0), ("trimmed", 3.0)],
    ids=["mean", "median", "trimmed"],
)
def test_what_one_of_five_can_do(method: Any, wanted: float) -> None:
    updates = [update(number) for number in (1.0, 2.0, 3.0, 4.0, 100.0)]

    made = aggregate(updates, BASE, method=method, trim=0.1)

    assert made.weights[0][0, 0] == wanted
    assert sum(made.shares) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("clients", "trim", "wanted"),
    [(2, 0.4, 50.5), (3, 0.1, 2.0), (10, 0.1, 5.5), (10, 0.3, 5.5), (4, 0.0, 26.5)],
    ids=["too few to trim", "one of three", "one in ten", "three in ten", "none"],
)
def test_how_many_are_trimmed(clients: int, trim: float, wanted: float) -> None:
    numbers = [*(float(number) for number in range(1, clients)), 100.0]

    made = aggregate([update(number) for number in numbers], BASE, method="trimmed", trim=trim)

    assert made.weights[0][0, 0] == pytest.approx(wanted)


def test_a_model_that_went_far_is_shortened() -> None:
    updates = [update(1.0), update(-1.0), update(1000.0)]

    made = aggregate(updates, BASE, clip=2.0)

    # Twice the median way, which is that of the others.
    assert made.weights[0][0, 0] == pytest.approx(2.0 / 3.0)


def test_a_model_that_stayed_where_it_was_is_not_divided_by() -> None:
    made = aggregate([update(0.0), update(0.0), update(7.0)], BASE, clip=1.5)

    assert made.weights[0].tolist() == [[0.0, 0.0], [0.0, 0.0]]


@pytest.mark.parametrize(
    ("weights", "samples", "reason"),
    [
        ([np.full((2, 2), np.nan, np.float32), np.zeros(2, np.float32)], 10, "not_finite"),
        ([np.zeros((2, 2), np.float32), np.array([0, np.inf], np.float32)], 10, "not_finite"),
        ([np.zeros((2, 3), np.float32), np.zeros(2, np.float32)], 10, "shape"),
        ([np.zeros((4,), np.float32), np.zeros(2, np.float32)], 10, "shape"),
        ([np.zeros((2, 2), np.float32)], 10, "shape"),
        ([np.zeros((2, 2), np.float64), np.zeros(2, np.float32)], 10, "dtype"),
        ([np.zeros((2, 2), np.int32), np.zeros(2, np.float32)], 10, "dtype"),
        ([np.full((2, 2), 3e38, np.float32), np.zeros(2, np.float32)], 10, "norm"),
        (update(1.0).weights, 0, "samples"),
        (update(1.0).weights, -5, "samples"),
        (update(1.0).weights, 10**18, "samples"),
        (update(1.0).weights, True, "samples"),
        (update(1.0).weights, 1.5, "samples"),
        (update(1.0).weights, math.nan, "samples"),
    ],
)
def test_what_is_refused_and_why(weights: list[NDArray[Any]], samples: Any, reason: str) -> None:
    made = aggregate([update(1.0), Update(weights, samples), update(3.0)], BASE)

    assert refusal(weights, samples, like=BASE) == reason
    assert made.refused == {1: reason}
    assert made.used == (0, 2)
    assert made.weights[0][0, 0] == 2.0


def test_where_nobody_counts_the_model_stays() -> None:
    made = aggregate([update(math.nan), update(1.0, 0)], BASE)

    assert made.weights is BASE
    assert made.used == ()
    assert made.refused == {0: "not_finite", 1: "samples"}


def test_what_came_is_not_changed() -> None:
    updates = [update(number) for number in (3.0, 1.0, 100.0)]
    before = [[array.copy() for array in each.weights] for each in updates]

    for method in ("mean", "median", "trimmed"):
        aggregate(updates, BASE, method=method, clip=1.0)

    assert all(
        np.array_equal(a, b)
        for each, kept in zip(updates, before, strict=True)
        for a, b in zip(each.weights, kept, strict=True)
    )
