"""The section of the configuration for federated learning."""

from __future__ import annotations

from typing import Annotated

import msgspec

from .aggregate import Method

__all__ = ["FlSettings"]

_Seconds = Annotated[float, msgspec.Meta(ge=0.01, le=86_400.0)]


class FlSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Federated learning: when the nodes learn together, and how their models are made into one."""

    interval: _Seconds = 10.0
    """Seconds from one round of learning to the next."""
    gap: _Seconds = 2.0
    """Seconds between two rounds at least, however often one is asked for: a node asks when it has acted."""
    deadline: _Seconds = 5.0
    """Seconds that clients have to train and to send their model in; who is late is left out."""
    least: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 2
    """Clients without which a round makes no model; all nodes, where there are fewer."""
    share: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 1.0
    """Share of the clients with samples that train in a round, chosen at random."""
    epochs: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 1
    """How often a client goes through its samples in a round."""
    method: Method = "mean"
    """How models become one: the mean weighted by samples, or what a poisoned client cannot sway: the
    median of each parameter, or its mean without the highest and lowest values."""
    trim: Annotated[float, msgspec.Meta(ge=0.0, lt=0.5)] = 0.1
    """Share of the highest, and of the lowest values that the trimmed mean leaves out, rounded up."""
    clip: Annotated[float, msgspec.Meta(ge=0.0, le=1_000.0)] = 0.0
    """How far a client's model may go from the one it began with, as a multiple of the median of all
    clients; what goes further is shortened. 0: as far as it likes."""
    most_weight: Annotated[float, msgspec.Meta(ge=1.0, le=1_000_000.0)] = 2.0
    """What a client may weigh in the mean, as a multiple of the median: how many samples it has is only
    what it says."""
