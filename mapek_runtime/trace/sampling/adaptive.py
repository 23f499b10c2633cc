"""`AdaptiveSampler`: so many traces a second, shared fairly among the operations of a process.

The decision is `Budget`'s, in `budget`; here it becomes a sampler.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanKind, TraceState
from opentelemetry.util.types import Attributes

from .budget import DEFAULT_OPERATIONS, Budget
from .threshold import RANDOMNESS
from .verdict import Kept, drop, incoming, randomness_in

__all__ = ["AdaptiveSampler"]

_SAMPLED = 0x01
_MOST_VERDICTS = 512


class AdaptiveSampler(Sampler):
    """Keeps `budget` traces a second over all operations, an operation being the name of a root span.

    Rare operations keep all their traces, frequent ones share what is left, and a new one is seen at
    once. What is kept says with which probability (`ot=th:`), so that counts can be set right, and
    goes by the randomness of the trace, so that every node with a higher probability keeps it too.
    A child does as its parent did. `operations` bounds how many names are told apart.
    """

    def __init__(
        self,
        budget: float,
        *,
        operations: int = DEFAULT_OPERATIONS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._budget = Budget(budget, now=clock(), operations=operations)
        self._verdicts: dict[int, Kept] = {}

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
        """Keep a root if the budget allows; a child follows its parent."""
        randomness = trace_id & RANDOMNESS
        state = trace_state
        parent = incoming(parent_context)
        if parent is not None:
            state = parent.trace_state or trace_state
            if parent.is_valid:
                sampled = parent.trace_flags & _SAMPLED
                return SamplingResult(
                    Decision.RECORD_AND_SAMPLE if sampled else Decision.DROP,
                    attributes if sampled else None,
                    state,
                )
        if state:
            explicit = randomness_in(state)
            randomness = randomness if explicit is None else explicit
        threshold = self._budget.decide(name, randomness, self._clock())
        if threshold is None:
            return drop(state)
        verdict = self._verdicts.get(threshold)
        if verdict is None:
            verdict = self._remember(threshold)
        return verdict.answer(attributes, state)

    def get_description(self) -> str:
        """`AdaptiveSampler{10/s}`."""
        return f"AdaptiveSampler{{{self._budget.per_second:g}/s}}"

    def _remember(self, threshold: int) -> Kept:
        if len(self._verdicts) >= _MOST_VERDICTS:
            self._verdicts.clear()
        verdict = self._verdicts[threshold] = Kept(threshold)
        return verdict
