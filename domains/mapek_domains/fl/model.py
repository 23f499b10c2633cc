"""A small classifier: dense layers with rectifiers between them, trained in minibatches. numpy alone.

One layer is logistic regression (one output) or softmax regression (several), two are a perceptron with
one hidden layer. Its weights are `(W1, b1, W2, b2, …)`, `W` of shape (inputs, outputs) and `b` of shape
(outputs,), all float32. The loss is the mean cross-entropy in nats.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .learner import Array, Weights
from .turns import Turns

__all__ = ["Optimiser", "Trained", "initial", "loss", "predict", "train"]

Optimiser = Literal["sgd", "adam"]

_LEAST = 1e-7
"""A probability is not taken for smaller, or a certain mistake would cost without limit."""
_ALONE = 200_000
"""Products in one matrix multiplication: OpenBLAS starts threads for more, which takes longer than this."""


class Trained(NamedTuple):
    """What training gave: new weights, and the loss on the same samples before and after."""

    weights: Weights
    before: float
    after: float


def initial(sizes: Sequence[int], seed: int) -> Weights:
    """Weights for layers of these sizes, such as (64, 10) or (20, 16, 1).

    Hidden layers begin at random (He et al., 2015), the last one at zero: at first nothing is more likely
    than anything else. Raises ValueError for fewer than two sizes or one below 1.
    """
    if len(sizes) < 2 or min(sizes) < 1:
        raise ValueError(f"the sizes of layers are {tuple(sizes)!r}; two at least, each at least 1")
    rng = np.random.default_rng(seed)
    weights: list[Array] = []
    for layer, (inputs, outputs) in enumerate(pairwise(sizes)):
        matrix = rng.normal(0.0, np.sqrt(2.0 / inputs), (inputs, outputs)).astype(np.float32)
        weights.append(matrix if layer < len(sizes) - 2 else np.zeros_like(matrix))
        weights.append(np.zeros(outputs, np.float32))
    return tuple(weights)


def predict(weights: Weights, x: NDArray[Any]) -> Array:
    """Probabilities for samples of shape (n, inputs): (n, classes), or (n,) of the one output."""
    outputs = _outputs(weights, np.asarray(x, np.float32))
    return outputs[:, 0] if outputs.shape[1] == 1 else outputs


def loss(weights: Weights, x: NDArray[Any], y: NDArray[Any]) -> float:
    """The mean cross-entropy of the labels `y`: class numbers, or 0 and 1 for one output; shape (n,)."""
    x, y = _samples(weights, x, y)
    return _loss(_outputs(weights, x), y)


def train(
    weights: Weights,
    x: NDArray[Any],
    y: NDArray[Any],
    *,
    epochs: int = 1,
    seed: int = 0,
    batch: int = 32,
    rate: float = 0.05,
    optimiser: Optimiser = "adam",
    momentum: float = 0.9,
    decay: float = 0.0,
) -> Trained:
    """Train a copy of `weights` on samples of shape (n, inputs) and their labels of shape (n,).

    Adam is as in Kingma and Ba (2015) with its usual constants, and begins anew with each call; `momentum`
    is for SGD alone, `decay` draws every parameter to zero. The same seed and samples give the same
    weights. In a thread it lets others have the interpreter twice a millisecond. Raises ValueError for
    samples that do not fit; where training runs away the weights are not finite, and nothing is raised.
    """
    x, y = _samples(weights, x, y)
    flat = np.concatenate([array.ravel() for array in weights]).astype(np.float32)
    gradient = np.empty_like(flat)
    mine, slopes = _views(flat, weights), _views(gradient, weights)
    step = _Adam(flat, rate) if optimiser == "adam" else _Descent(flat, rate, momentum)
    rng = np.random.default_rng(seed)
    turns = Turns()
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        before = _loss(_outputs(weights, x), y)
        for _ in range(epochs):
            order = rng.permutation(len(x))
            for start in range(0, len(x), batch):
                chosen = order[start : start + batch]
                _backward(mine, x[chosen], y[chosen], slopes)
                if decay:
                    gradient += decay * flat
                step(flat, gradient)
                turns()
        after = _loss(_outputs(mine, x), y)
    return Trained(mine, before, after)


def _samples(weights: Weights, x: NDArray[Any], y: NDArray[Any]) -> tuple[Array, NDArray[np.int64]]:
    x, y = np.asarray(x, np.float32), np.asarray(y).astype(np.int64)
    inputs, classes = weights[0].shape[0], max(weights[-1].shape[0], 2)
    if x.ndim != 2 or x.shape[1] != inputs or y.shape != (len(x),) or not len(x):
        raise ValueError(f"samples have shape {x.shape} and labels {y.shape}; (n, {inputs}) and (n,) fit")
    if y.min() < 0 or y.max() >= classes:
        raise ValueError(f"labels go from {y.min()} to {y.max()}; 0 to {classes - 1} fit")
    return x, y


def _outputs(weights: Weights, x: Array) -> Array:
    rows = max(1, _ALONE // max(array.size for array in weights))
    blocks = [_forward(weights, x[start : start + rows])[-1] for start in range(0, len(x), rows)]
    return np.concatenate(blocks) if blocks else _forward(weights, x)[-1]


def _forward(weights: Weights, x: Array) -> list[Array]:
    """What each layer puts out, the samples themselves first and probabilities last."""
    outputs = [x]
    for layer in range(0, len(weights), 2):
        x = x @ weights[layer]
        x += weights[layer + 1]
        if layer < len(weights) - 2:
            np.maximum(x, 0.0, out=x)
        outputs.append(x)
    if x.shape[1] == 1:
        # Clipped, or the exponential of a large negative one would overflow.
        np.clip(x, -60.0, 60.0, out=x)
        np.negative(x, out=x)
        np.exp(x, out=x)
        x += 1.0
        np.reciprocal(x, out=x)
    else:
        x -= x.max(axis=1, keepdims=True)
        np.exp(x, out=x)
        x /= x.sum(axis=1, keepdims=True)
    return outputs


def _loss(outputs: Array, y: NDArray[np.int64]) -> float:
    if outputs.shape[1] == 1:
        right = np.where(y == 1, outputs[:, 0], 1.0 - outputs[:, 0])
    else:
        right = outputs[np.arange(len(y)), y]
    return float(-np.log(np.maximum(right, _LEAST), dtype=np.float64).mean())


def _backward(weights: Weights, x: Array, y: NDArray[np.int64], slopes: Weights) -> None:
    """Write the gradient of the loss into `slopes`."""
    outputs = _forward(weights, x)
    error = outputs[-1]
    # Of the sigmoid as of the softmax, under cross-entropy: probability minus truth.
    if error.shape[1] == 1:
        error[:, 0] -= y
    else:
        error[np.arange(len(y)), y] -= 1.0
    error /= len(y)
    for layer in range(len(weights) - 2, -1, -2):
        inputs = outputs[layer // 2]
        np.matmul(inputs.T, error, out=slopes[layer])
        error.sum(axis=0, out=slopes[layer + 1])
        if layer:
            error = error @ weights[layer].T
            error *= inputs > 0


def _views(flat: Array, like: Weights) -> Weights:
    """Arrays of the shapes of `like` over one long array: a step is then one operation for all."""
    views, start = [], 0
    for array in like:
        views.append(flat[start : start + array.size].reshape(array.shape))
        start += array.size
    return tuple(views)


class _Descent:
    def __init__(self, flat: Array, rate: float, momentum: float) -> None:
        self._rate, self._momentum = np.float32(rate), np.float32(momentum)
        self._speed = np.zeros_like(flat)

    def __call__(self, flat: Array, gradient: Array) -> None:
        self._speed *= self._momentum
        self._speed += gradient
        flat -= self._rate * self._speed


class _Adam:
    FIRST, SECOND, LEAST = 0.9, 0.999, 1e-8

    def __init__(self, flat: Array, rate: float) -> None:
        self._rate = rate
        self._mean, self._square = np.zeros_like(flat), np.zeros_like(flat)
        self._steps = 0

    def __call__(self, flat: Array, gradient: Array) -> None:
        self._steps += 1
        self._mean *= np.float32(self.FIRST)
        self._mean += np.float32(1.0 - self.FIRST) * gradient
        self._square *= np.float32(self.SECOND)
        self._square += np.float32(1.0 - self.SECOND) * np.square(gradient)
        spread = np.sqrt(self._square)
        spread /= np.float32((1.0 - self.SECOND**self._steps) ** 0.5)
        spread += np.float32(self.LEAST)
        flat -= np.float32(self._rate / (1.0 - self.FIRST**self._steps)) * self._mean / spread
