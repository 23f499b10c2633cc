"""Many models into one: federated averaging, and its kin that a poisoned client does not sway.

Pure: arrays in, arrays out. What a client sends is a claim: its arrays are looked at before they count,
and so is the number of samples by which it wants to be weighed.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .learner import Array, Weights

__all__ = ["MOST_NORM", "MOST_SAMPLES", "Aggregate", "Method", "Update", "aggregate", "combine", "refusal"]

Method = Literal["mean", "median", "trimmed"]

MOST_SAMPLES = 100_000_000
"""No node has more samples; who says so is wrong in everything."""
MOST_NORM = 1e6
"""Euclidean length of all weights of a model; far beyond what any training reaches."""

_Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Update:
    """What one client made of the model, and on how many samples, as it says."""

    weights: Sequence[NDArray[Any]]
    samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregate:
    """What became of some updates.

    `used` are the indices of those that count, in order, `shares` what each of them was weighed by (they
    sum to 1; all are equal where the method does not weigh), `refused` has the reason by index.
    """

    weights: Weights
    used: tuple[int, ...]
    shares: tuple[float, ...]
    refused: Mapping[int, str]


def refusal(weights: Sequence[NDArray[Any]], samples: int, *, like: Weights) -> str | None:
    """Why an update cannot count, as one word; None where it can."""
    if not _is_count(samples) or not 1 <= samples <= MOST_SAMPLES:
        return "samples"
    if len(weights) != len(like):
        return "shape"
    squares = 0.0
    for array, model in zip(weights, like, strict=True):
        if array.dtype != np.float32:
            return "dtype"
        if array.shape != model.shape:
            return "shape"
        if not np.isfinite(array).all():
            return "not_finite"
        squares += float(np.sum(np.square(array, dtype=np.float64)))
    return "norm" if math.sqrt(squares) > MOST_NORM else None


def aggregate(
    updates: Sequence[Update],
    base: Weights,
    *,
    method: Method = "mean",
    trim: float = 0.1,
    clip: float = 0.0,
    most_weight: float = math.inf,
) -> Aggregate:
    """The model that the updates of `base` make together; `base` itself where none of them counts.

    * `mean`: the average weighted by samples (McMahan et al., 2017, *Communication-Efficient Learning of
      Deep Networks from Decentralized Data*, algorithm 1). No client counts for more samples than
      `most_weight` times the median of what the clients claim, or the largest claim would win.
    * `median`: of each parameter (Yin et al., 2018, *Byzantine-Robust Distributed Learning*, definition 1).
    * `trimmed`: the mean of each parameter without the share `trim` (under 0.5) of the highest and of the
      lowest values, rounded up (the same, definition 2).

    The last two do not weigh: to them a number of samples is only a claim. `clip` over 0: no update goes
    further from `base` than that many times the median of their distances; longer ones are shortened.
    """
    reasons = {i: refusal(update.weights, update.samples, like=base) for i, update in enumerate(updates)}
    refused = {i: reason for i, reason in reasons.items() if reason is not None}
    used = tuple(i for i in reasons if i not in refused)
    if not used:
        return Aggregate(weights=base, used=(), shares=(), refused=refused)
    models: list[Sequence[Array]] = [updates[i].weights for i in used]
    if clip > 0:
        models = _clipped(models, base, clip)
    if method == "mean":
        shares = _shares([updates[i].samples for i in used], most_weight)
    else:
        shares = np.full(len(used), 1.0 / len(used))
    weights = tuple(
        combine([model[layer] for model in models], shares, method=method, trim=trim).astype(np.float32)
        for layer in range(len(base))
    )
    return Aggregate(weights=weights, used=used, shares=tuple(shares.tolist()), refused=refused)


def combine(
    values: Sequence[NDArray[Any]], shares: Sequence[float] | _Doubles, *, method: Method, trim: float
) -> NDArray[Any]:
    """One array of several of the same shape, element by element; `shares` count for the mean alone."""
    if method == "mean":
        total = np.zeros(values[0].shape)
        for share, value in zip(shares, values, strict=True):
            total += share * value
        return total
    stack = np.stack(values)
    if method == "median":
        return np.asarray(np.median(stack, axis=0))
    cut = min(math.ceil(trim * len(values) - 1e-9), (len(values) - 1) // 2)
    stack.sort(axis=0)
    return np.asarray(stack[cut : len(values) - cut].mean(axis=0, dtype=np.float64))


def _is_count(samples: object) -> bool:
    return isinstance(samples, int) and not isinstance(samples, bool)


def _shares(samples: Sequence[int], most_weight: float) -> _Doubles:
    """What each claim weighs; with most clients honest, the low median is not above all honest claims."""
    most = most_weight * statistics.median_low(samples)
    counted: _Doubles = np.array([min(float(claim), most) for claim in samples])
    counted /= counted.sum()
    return counted


def _clipped(models: Sequence[Sequence[Array]], base: Weights, clip: float) -> list[Sequence[Array]]:
    lengths = [
        math.sqrt(
            sum(
                float(np.sum(np.square(array - of.astype(np.float64))))
                for array, of in zip(model, base, strict=True)
            )
        )
        for model in models
    ]
    most = clip * statistics.median_low(lengths)
    return [
        model
        if length <= most
        else [
            (of + (array - of.astype(np.float64)) * (most / length)).astype(np.float32)
            for array, of in zip(model, base, strict=True)
        ]
        for model, length in zip(models, lengths, strict=True)
    ]
