"""What is normal on a link, learned by all nodes together: what Analyze asks, and what each node learns from.

Each node keeps readings of which somebody knew whether they were normal, in rings of its own; nothing
leaves it but weights. A small perceptron learns to tell the two apart; its output before the sigmoid is a
log-likelihood ratio. How high that must be to speak of trouble is agreed upon like the weights: each node
fits the tail of it over normal readings that it did not train on (the excesses over a high quantile are
about exponential: J. Pickands, 1975), and the two numbers of that tail are one more array of the weights.
Where the normal readings of a node want more than was agreed, its own limit holds there.

No threshold leaves its bounds, whatever a peer sends: a model can be made useless by enough of those that
train it, but not blind to everything nor afraid of everything.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mapek_runtime.loop.domain import Judgement

from . import model
from .learner import Array, Weights
from .settings import FlSettings

__all__ = ["INPUTS", "LinkNormality"]

INPUTS: Mapping[str, int] = {"mesh.link": 16}
"""How many features a reading of each kind has: a model has a shape before it has seen anything."""

_HIDDEN = 16
_SEED = 6
_KEPT, _KEPT_HELD_OUT = 2000, 1000
_HELD_OUT = 0.25  # The share of the normal readings that is not trained on.
_ENOUGH = 40
_BATCH, _LEAST_STEPS = 64, 250
_TAIL, _CHANCE = 0.05, 5e-5
_LOWEST, _HIGHEST, _ABOVE_AGREED = 4.0, 16.0, 2.0
_SOFTNESS = 4.0
"""A score is the sigmoid of a quarter of the log-likelihood ratio, or all scores of trouble would be 1."""

_Float = NDArray[np.float64]


class LinkNormality:
    """A `Learner` of what is normal on links, and the judge and observer of a `Normality`.

    A reading with the wrong number of features, or one that is not finite, is refused and counted.
    """

    def __init__(self, settings: FlSettings, rng: random.Random, *, kind: str = "mesh.link") -> None:
        del settings  # How rounds go is the session's business.
        self.kind = kind
        self.refused: Counter[str] = Counter()
        self._inputs = INPUTS[kind]
        self._rng = rng
        self._homes: dict[str, _Home] = {}

    # Learner

    def initial(self) -> Weights:
        """A perceptron that thinks nothing more likely than anything else, with the highest threshold."""
        return (*model.initial((self._inputs, _HIDDEN, 1), _SEED), np.array([_HIGHEST, 0.0], np.float32))

    def local(self, node_id: str) -> int:
        """Readings to train on: none until there are enough of each sort."""
        home = self._homes.get(node_id)
        if home is None or min(len(home.normal), len(home.abnormal), len(home.held_out)) < _ENOUGH:
            return 0
        return len(home.normal) + len(home.abnormal)

    def train(self, node_id: str, weights: Weights, epochs: int, seed: int) -> tuple[Weights, int, float]:
        """Train on the node's readings; few readings are gone through more often than `epochs` says."""
        home = self._homes.get(node_id)
        if home is None:
            # The node crashed meanwhile: no samples, and so refused.
            return weights, 0, 0.0
        normal, abnormal, held_out = home.normal.copy(), home.abnormal.copy(), home.held_out.copy()
        x = np.concatenate((normal, abnormal))
        y = np.concatenate((np.zeros(len(normal)), np.ones(len(abnormal))))
        trained = model.train(
            weights[:-1],
            x,
            y,
            epochs=max(epochs, math.ceil(_LEAST_STEPS * _BATCH / len(x))),
            seed=seed,
            batch=_BATCH,
            rate=0.01,
            decay=1e-4,
        )
        tail = _tail(_ratio(_layers(trained.weights), held_out.astype(np.float64)))
        return (*trained.weights, np.array(tail, np.float32)), len(x), trained.after

    def adopt(self, node_id: str, weights: Weights, round: int) -> None:  # noqa: A002 - a word of the field
        """Judge by these weights from now on."""
        home = self._home(node_id)
        layers = _layers(weights[:-1])
        threshold = _threshold(float(weights[-1][0]), float(weights[-1][1]))
        if len(home.held_out) >= _ENOUGH:
            own = _threshold(*_tail(_ratio(layers, home.held_out.copy().astype(np.float64))))
            threshold = max(threshold, min(own, threshold + _ABOVE_AGREED))
        home.layers, home.threshold, home.version = layers, threshold, round

    def forget(self, node_id: str) -> None:
        """The readings and the model of that node are gone."""
        self._homes.pop(node_id, None)

    # Normality

    def judge(self, node_id: str, kind: str, features: Sequence[float]) -> Judgement | None:
        """Judge a reading by the node's own copy of the model."""
        home = self._homes.get(node_id)
        if home is None or not home.version or not self._acceptable(kind, features):
            return None
        ratio = float(_ratio(home.layers, np.array(features, np.float64)))
        return Judgement(score=_score(ratio), threshold=_score(home.threshold), version=home.version)

    def observe(self, node_id: str, kind: str, features: Sequence[float], *, normal: bool | None) -> None:
        """Keep a reading to learn from, in place of an older one where there are many."""
        if normal is None or not self._acceptable(kind, features):
            return
        home = self._home(node_id)
        if not normal:
            home.abnormal.add(features)
            return
        # By chance, because readings come in an order that may have a period.
        (home.held_out if self._rng.random() < _HELD_OUT else home.normal).add(features)

    # Inside

    def _acceptable(self, kind: str, features: Sequence[float]) -> bool:
        if kind != self.kind:
            self.refused["kind"] += 1
        elif len(features) != self._inputs:
            self.refused["length"] += 1
        elif not math.isfinite(sum(features)):
            self.refused["not_finite"] += 1
        else:
            return True
        return False

    def _home(self, node_id: str) -> _Home:
        if node_id not in self._homes:
            self._homes[node_id] = _Home(self._inputs, self._rng)
        return self._homes[node_id]


class _Ring:
    """Rows of features; when it is full a new one takes the place of any, so that what is old fades."""

    def __init__(self, most: int, inputs: int, rng: random.Random) -> None:
        self._rows = np.zeros((most, inputs), np.float32)
        self._count = 0
        self._rng = rng

    def __len__(self) -> int:
        return self._count

    def add(self, features: Sequence[float]) -> None:
        if self._count < len(self._rows):
            self._rows[self._count] = features
            self._count += 1
        else:
            self._rows[self._rng.randrange(len(self._rows))] = features

    def copy(self) -> Array:
        return self._rows[: self._count].copy()


class _Home:
    """What one node has: its readings, and the model that it judges by."""

    def __init__(self, inputs: int, rng: random.Random) -> None:
        self.normal = _Ring(_KEPT, inputs, rng)
        self.abnormal = _Ring(_KEPT, inputs, rng)
        self.held_out = _Ring(_KEPT_HELD_OUT, inputs, rng)
        self.layers: tuple[_Float, ...] = ()
        self.threshold = _HIGHEST
        self.version = 0


def _layers(weights: Weights) -> tuple[_Float, ...]:
    return tuple(array.astype(np.float64) for array in weights)


def _ratio(layers: tuple[_Float, ...], x: _Float) -> Any:
    """The log-likelihood ratios of readings of shape (n, inputs) or (inputs,): as `model.predict`, but
    before the sigmoid, which cannot tell 1 in 1e8 from 1 in 1e9."""
    for layer in range(0, len(layers) - 2, 2):
        x = np.maximum(x @ layers[layer] + layers[layer + 1], 0.0)
    return (x @ layers[-2] + layers[-1])[..., 0]


def _tail(ratios: _Float) -> tuple[float, float]:
    """Where the tail begins, and its mean excess."""
    start = float(np.quantile(ratios, 1.0 - _TAIL))
    above = ratios[ratios > start]
    return start, float((above - start).mean()) if len(above) else 0.0


def _threshold(start: float, excess: float) -> float:
    """What a normal reading exceeds with a chance of `_CHANCE`, where its tail is exponential."""
    return min(max(start + excess * math.log(_TAIL / _CHANCE), _LOWEST), _HIGHEST)


def _score(ratio: float) -> float:
    return 1.0 / (1.0 + math.exp(-min(max(ratio / _SOFTNESS, -40.0), 40.0)))
