"""One round as its coordinator keeps it: who was called, who takes part, and what came back.

Pure. Whatever is said by somebody who was not asked, for another round, or twice, does not count.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from .learner import Weights
from .wire import Declined, Ready, Upload, Version, WireError, weights_of

__all__ = ["Received", "Tally"]

_MOST_LOSS = 1e6


@dataclass(frozen=True, slots=True)
class Received:
    """A model that a client sent, which is not yet looked at."""

    weights: Weights
    samples: int
    loss: float


class Tally:
    """The answers to one round; `called` are asked first, and those that are `begin`ned with then train."""

    def __init__(self, token: int, called: Sequence[str], *, kind: str) -> None:
        self.token = token
        self.called = tuple(called)
        self.chosen: tuple[str, ...] = ()
        self.ready: dict[str, Ready] = {}
        self.received: dict[str, Received] = {}
        self.refused: dict[str, str] = {}
        """Why the model of a client does not count."""
        self.declined: set[str] = set()
        self._kind = kind

    @property
    def able(self) -> Sequence[str]:
        """Who has samples to train on, in the order of their names."""
        return sorted(name for name, ready in self.ready.items() if ready.samples > 0)

    @property
    def newest(self) -> tuple[Version, str] | None:
        """The newest model that a client says it has, and that client."""
        return max(((ready.have, name) for name, ready in self.ready.items()), default=None)

    @property
    def missing(self) -> Sequence[str]:
        """Who has not answered: to the call, or, once the round has begun, with a model."""
        if not self.chosen:
            return [name for name in self.called if name not in self.ready]
        answered: Collection[str] = self.received.keys() | self.refused.keys() | self.declined
        return [name for name in self.chosen if name not in answered]

    def begin(self, chosen: Sequence[str]) -> None:
        """These train."""
        self.chosen = tuple(chosen)

    def hear(self, source: str, answer: Ready | Upload | Declined) -> str | None:
        """Take an answer; returns why it does not count, if so, as a word to count by."""
        if answer.token != self.token:
            return "late"
        if isinstance(answer, Ready):
            return self._hear_ready(source, answer)
        if source not in self.chosen:
            return "uncalled"
        if source not in self.missing:
            return "twice"
        if isinstance(answer, Declined):
            self.declined.add(source)
            return None
        reason = self._take(source, answer)
        if reason is not None:
            self.refused[source] = reason
        return reason

    def _hear_ready(self, source: str, answer: Ready) -> str | None:
        if source not in self.called:
            return "uncalled"
        if source in self.ready:
            return "twice"
        if self.chosen:
            return "late"
        self.ready[source] = answer
        return None

    def _take(self, source: str, upload: Upload) -> str | None:
        if upload.kind != self._kind:
            return "kind"
        # Also where it is not a number.
        if not 0.0 <= upload.loss <= _MOST_LOSS:
            return "loss"
        try:
            weights = weights_of(upload.model)
        except WireError as error:
            return error.reason
        self.received[source] = Received(weights, upload.samples, upload.loss)
        return None
