"""What federated learning needs of a model and its data: the rounds know nothing else of either."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

__all__ = ["Array", "Forgets", "Learner", "Weights"]

Array = NDArray[np.float32]
Weights = tuple[Array, ...]
"""The parameters of a model: arrays whose number and shapes never change. Those that are handed to a
learner cannot be written to; it copies what it wants to change."""


class Learner(Protocol):
    """A model, and the data of the nodes of this process that it is trained on. The data never leaves it.

    `train` is called in a thread, for one node at a time; everything else on the event loop, also while
    `train` runs, so that `train` takes a copy of what it reads before it computes.
    """

    kind: str
    """What is learned, such as `mesh.link`; nodes whose kind or shapes differ do not learn together."""

    def initial(self) -> Weights:
        """The weights to begin with, the same on every node."""

    def local(self, node_id: str) -> int:
        """How many samples that node could train on now; with 0 it takes no part in a round."""

    def train(self, node_id: str, weights: Weights, epochs: int, seed: int) -> tuple[Weights, int, float]:
        """Train from `weights` on the node's own data: new weights, how many samples, the loss after it.

        The same seed and data give the same weights.
        """

    def adopt(self, node_id: str, weights: Weights, round: int) -> None:  # noqa: A002 - a word of the field
        """The model that round `round` made is the node's from now on; it is newer than the one before."""


@runtime_checkable
class Forgets(Protocol):
    """A learner that can lose what a crash of a node takes with it."""

    def forget(self, node_id: str) -> None:
        """Data and model of that node are gone."""
