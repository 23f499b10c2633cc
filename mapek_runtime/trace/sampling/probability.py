"""`ProbabilitySampler`: a share of all traces, the same traces wherever it is asked.

Specification: trace/sdk.md#probabilitysampler (status: Development). Nodes with different ratios keep
nested sets of traces, and what is kept says with which probability, so that counts can be set right.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import Sampler, SamplingResult
from opentelemetry.trace import Link, SpanKind, TraceState
from opentelemetry.util.types import Attributes

from .threshold import DIGITS, RANDOMNESS, threshold_of
from .verdict import Kept, drop, incoming, randomness_in

__all__ = ["ProbabilitySampler"]

logger = logging.getLogger(__name__)

_RANDOM_FLAG = 0x02


class ProbabilitySampler(Sampler):
    """Keeps `ratio` of all traces by their randomness and records the threshold as `ot=th:`.

    It ignores what the parent decided; as the root of a `ParentBased`, which lets children follow,
    it decides for whole traces. `digits` is how exact the threshold is. Raises ValueError for a ratio
    outside 2^-56 to 1: to keep nothing is not a probability, `ALWAYS_OFF` does it.
    """

    def __init__(self, ratio: float, *, digits: int = DIGITS) -> None:
        self._ratio = ratio
        self._threshold = threshold_of(ratio, digits)
        self._kept = Kept(self._threshold)
        self._warned = False

    @property
    def threshold(self) -> int:
        """The rejection threshold, of 2^56."""
        return self._threshold

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
        """Keep the span if the randomness of its trace is not below the threshold."""
        randomness = trace_id & RANDOMNESS
        state = trace_state
        parent = incoming(parent_context)
        if parent is not None:
            state = parent.trace_state or trace_state
            explicit = randomness_in(state)
            if explicit is not None:
                randomness = explicit
            elif parent.is_valid and not parent.trace_flags & _RANDOM_FLAG and not self._warned:
                self._warn()
        elif state:
            explicit = randomness_in(state)
            randomness = randomness if explicit is None else explicit
        if randomness >= self._threshold:
            return self._kept.answer(attributes, state)
        return drop(state)

    def get_description(self) -> str:
        """`ProbabilitySampler{0.01}`."""
        return f"ProbabilitySampler{{{self._ratio}}}"

    def _warn(self) -> None:
        self._warned = True
        logger.warning(
            "%s presumes that trace ids are random, and a caller did not confirm it with the Random flag; "
            "upgrade the callers to W3C Trace Context Level 2 (said once)",
            self.get_description(),
        )
