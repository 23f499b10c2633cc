"""`JaegerRemoteSampler`: samples as a Jaeger server says, at the time and in its own words.

The sampler decides by the strategy that it holds, and knows no network. What fetches strategies is
handed in as a `StrategySource` and told of every root decision, so that it can begin where a loop
runs; it sets `strategy` when the server has said something new.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import ParentBased, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanKind, TraceState
from opentelemetry.util.types import Attributes

from .strategy import UNKNOWN, Decider, Probabilistic, Strategy, describe_strategy
from .threshold import RANDOMNESS
from .verdict import Kept, drop, incoming, randomness_in

__all__ = ["INITIAL_RATE", "JaegerRemoteSampler", "StrategySource", "find_remote"]

INITIAL_RATE = 0.001
"""The share of traces that is kept until the server has said anything, as in Jaeger's own clients."""


class StrategySource(Protocol):
    """Keeps the strategy of a sampler current."""

    def attend(self, sampler: JaegerRemoteSampler) -> None:
        """A root was decided: fetch from now on, if that is not under way. Must cost next to nothing."""


class JaegerRemoteSampler(Sampler):
    """Decides by the strategy that a Jaeger server gave last, and before that by `initial_rate`.

    It ignores what the parent decided; as the root of a `ParentBased` it decides for whole traces.
    Without a `source` the strategy changes when somebody sets it.
    """

    def __init__(
        self,
        service_name: str,
        *,
        source: StrategySource | None = None,
        initial_rate: float = INITIAL_RATE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not 0 <= initial_rate <= 1:
            raise ValueError(f"initial_rate is {initial_rate!r}; it must be from 0 to 1")
        self.service_name = service_name
        self.source = source
        self._clock = clock
        self._follow(Probabilistic(initial_rate))

    @property
    def strategy(self) -> Strategy:
        """What decides now."""
        return self._decider.strategy

    @strategy.setter
    def strategy(self, strategy: Strategy) -> None:
        # The same strategy again must not fill the token buckets.
        if strategy != self._decider.strategy:
            self._follow(strategy)

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """Keep the span if the strategy says so for its name and the randomness of its trace."""
        if self.source is not None:
            self.source.attend(self)
        parent = incoming(parent_context)
        state = trace_state if parent is None else parent.trace_state or trace_state
        randomness = randomness_in(state) if state else None
        decide, kept, needs_time = self._now
        threshold = decide(
            trace_id & RANDOMNESS if randomness is None else randomness,
            name,
            self._clock() if needs_time else 0.0,
        )
        return drop(state) if threshold is None else kept[threshold].answer(attributes, state)

    def get_description(self) -> str:
        """`JaegerRemoteSampler{probabilistic 0.42}`: the strategy of this moment."""
        return f"JaegerRemoteSampler{{{describe_strategy(self.strategy)}}}"

    def _follow(self, strategy: Strategy) -> None:
        decider = self._decider = Decider(strategy, self._clock())
        kept = {threshold: Kept(threshold) for threshold in decider.thresholds}
        kept[UNKNOWN] = Kept(None)
        # One attribute, so that a decision in another thread sees the old strategy or the new one.
        self._now = (decider.decide, kept, decider.needs_time)


def find_remote(sampler: Sampler) -> JaegerRemoteSampler | None:
    """The remote sampler that `sampler` is, or asks for its roots."""
    root = sampler._root if isinstance(sampler, ParentBased) else sampler
    return root if isinstance(root, JaegerRemoteSampler) else None
