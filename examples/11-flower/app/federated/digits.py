"""Handwritten digits, split among the clients so that no two see the same: the learner of the benchmark.

Each process makes the same split from the same seed, and trains on its own part alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.fl_federation import DigitsLearner, names, split_digits
from mapek_domains.fl.learner import Weights

__all__ = ["learner"]


def learner(config: Mapping[str, Any]) -> DigitsLearner:
    """Clients are called client-00, client-01, …"""
    split = split_digits(
        names(config["clients"]), concentration=config["digits.concentration"], seed=config["digits.seed"]
    )
    liar = config["digits.poisoned"]
    return DigitsLearner(split, hidden=64, rate=0.1, poisoned={liar: _against} if liar else {})


def _against(base: Weights, honest: Weights) -> tuple[Weights, int]:
    wrong = (
        np.asarray(before - 10.0 * (after - before), np.float32)
        for before, after in zip(base, honest, strict=True)
    )
    return tuple(wrong), 100_000_000
