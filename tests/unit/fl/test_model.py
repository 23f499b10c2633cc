"""The classifier: its gradient, its training, and what it says of samples that do not fit."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from mapek_domains.fl import model

RNG = np.random.default_rng(5)
X = RNG.normal(size=(300, 6)).astype(np.float32)
TWO = (X[:, 0] + X[:, 1] > 0).astype(int)
THREE = np.clip(np.digitize(X[:, 2], (-0.5, 0.5)), 0, 2)


@pytest.mark.parametrize(
    ("sizes", "y"),
    [((6, 1), TWO), ((6, 3), THREE), ((6, 5, 1), TWO), ((6, 5, 3), THREE), ((6, 4, 4, 3), THREE)],
    ids=["logistic", "softmax", "perceptron, one output", "perceptron", "two hidden layers"],
)
def test_the_gradient_is_that_of_the_loss(sizes: tuple[int, ...], y: Any) -> None:
    rng = np.random.default_rng(1)
    weights = tuple(
        rng.normal(0.0, 0.5, array.shape).astype(np.float32) for array in model.initial(sizes, seed=0)
    )
    slopes = tuple(np.empty_like(array) for array in weights)
    model._backward(weights, X, y.astype(np.int64), slopes)
    for layer, array in enumerate(weights):
        for place in [(0,) * array.ndim, tuple(side - 1 for side in array.shape)]:
            losses = []
            for step in (1e-2, -1e-2):
                moved = [each.copy() for each in weights]
                moved[layer][place] += step
                losses.append(model.loss(tuple(moved), X, y))

            assert slopes[layer][place] == pytest.approx((losses[0] - losses[1]) / 2e-2, abs=2e-3)


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
@pytest.mark.parametrize(("sizes", "y"), [((6, 8, 1), TWO), ((6, 3), THREE)], ids=["two", "three"])
def test_training_makes_the_loss_smaller_and_tells_it_truly(
    optimiser: Any, sizes: tuple[int, ...], y: Any
) -> None:
    weights = model.initial(sizes, seed=0)

    trained = model.train(weights, X, y, epochs=10, optimiser=optimiser)

    assert trained.before == pytest.approx(model.loss(weights, X, y))
    assert trained.after == pytest.approx(model.loss(trained.weights, X, y))
    assert trained.after < 0.6 * trained.before


def test_the_loss_is_the_mean_cross_entropy() -> None:
    weights = model.train(model.initial((6, 3), seed=0), X, THREE, epochs=2).weights
    chances = model.predict(weights, X).astype(np.float64)

    assert model.loss(weights, X, THREE) == pytest.approx(-np.log(chances[np.arange(300), THREE]).mean())


def test_what_is_trained_is_a_copy() -> None:
    weights = model.initial((6, 4, 1), seed=0)
    before = [array.copy() for array in weights]
    for array in weights:
        array.flags.writeable = False

    model.train(weights, X, TWO)

    assert all(np.array_equal(a, b) for a, b in zip(weights, before, strict=True))


def test_the_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    weights = model.initial((6, 4, 1), seed=0)

    first, again, other = (model.train(weights, X, TWO, seed=seed).weights for seed in (1, 1, 2))

    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_probabilities_of_one_output_are_one_each_and_of_several_sum_to_one() -> None:
    one, three = model.initial((6, 1), seed=0), model.initial((6, 5, 3), seed=0)

    assert model.predict(one, X).shape == (300,)
    assert model.predict(one, X)[0] == 0.5
    assert model.predict(three, X).shape == (300, 3)
    assert model.predict(three, X).sum(axis=1) == pytest.approx(1.0)
    assert model.predict(three, X[:0]).shape == (0, 3)


def test_samples_out_of_all_bounds_give_probabilities() -> None:
    weights = (np.full((6, 1), 1e6, np.float32), np.zeros(1, np.float32))

    assert set(np.round(model.predict(weights, X), 6)) == {0.0, 1.0}


def test_training_that_runs_away_raises_nothing() -> None:
    huge = np.full((40, 6), 1e30, np.float32)

    trained = model.train(
        model.initial((6, 4, 3), seed=0), huge, np.arange(40) % 3, rate=1e20, optimiser="sgd"
    )

    assert not all(np.isfinite(array).all() for array in trained.weights)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (X[:, :5], TWO, r"\(300, 5\).*\(n, 6\)"),
        (X[0], TWO, r"\(n, 6\)"),
        (X, TWO[:10], r"labels \(10,\)"),
        (X[:0], TWO[:0], r"\(0, 6\)"),
        (X, TWO - 1, "labels go from -1"),
        (X, TWO * 2, "0 to 1 fit"),
    ],
    ids=["inputs", "one row", "labels", "none", "negative", "too high"],
)
def test_samples_that_do_not_fit_are_named(x: Any, y: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model.train(model.initial((6, 1), seed=0), x, y)


@pytest.mark.parametrize("sizes", [(), (4,), (4, 0), (0, 2)])
def test_sizes_that_cannot_be_are_named(sizes: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="sizes of layers"):
        model.initial(sizes, seed=0)


def test_training_in_a_thread_gives_the_same() -> None:
    weights, found = model.initial((6, 16, 1), seed=0), []

    thread = threading.Thread(target=lambda: found.append(model.train(weights, X, TWO, epochs=20)))
    thread.start()
    thread.join()

    assert found[0].after == model.train(weights, X, TWO, epochs=20).after
