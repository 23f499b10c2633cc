"""The cycle decides: spans of a cycle are held until it ends, and only then kept or dropped.

Kept is every cycle with a cause: an anomaly, an action, an error, or an unusual duration. Of the quiet
ones a set share is kept, the same ones that `ProbabilitySampler` would keep. Causes are read from what
is recorded anyway (`cause.cause_of`), when a phase ends, so that a cycle is sampled downstream too from
the moment its Analyze has found something.

The share is decided at the head, when the cycle begins, by the randomness of its trace id. Until
there is a verdict this head decision is what the spans' sampled flag says, so it is what goes with a
context that leaves the process (`trace.leaving`); and then it is binding, whatever is found later.
Each cycle so has one probability of being kept, 1 with a cause and the share without one or once it
has left. A kept root says it (`sampling.adjusted_count`, and why in `sampling.reason`), and so does
`ot=th:` on every span: counts of cycles that are estimated from what was kept are not biased.

A link from a kept cycle may lead to one that was dropped, most often the one before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from operator import eq
from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import (
    DEFAULT_ON,
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
)
from opentelemetry.trace import Link, SpanKind, TraceState
from opentelemetry.util.types import Attributes

from .hold import DROPPED, Hold, Holds, Verdict
from .shortcut import shortcut
from .threshold import RANDOMNESS, adjusted_count, encode_threshold, threshold_of
from .verdict import incoming

__all__ = ["CycleSampler"]


class CycleSampler(Sampler):
    """Holds back the traces whose root is a cycle; every other span is decided by `head`.

    `cycle` says which roots are cycles: a name, or a function of it. `quiet_ratio` of those without a
    cause are kept; 0 keeps none. `slow` is how many times the usual duration is unusual
    (`duration.Usual`). At most `most_held_spans` wait, and `most_spans_per_cycle` of one cycle.

    It may stand at the root of a `ParentBased`, whose answers for spans with a parent our tracer knows
    in advance; `over` does so where that changes nothing else. Only tracers of ours hold spans; the
    stock SDK's follow the head decision. Raises ValueError for a number out of range.
    """

    def __init__(
        self,
        head: Sampler = DEFAULT_ON,
        *,
        quiet_ratio: float = 0.01,
        slow: float = 2.0,
        cycle: str | Callable[[str], bool] = "mape_k.cycle",
        most_spans_per_cycle: int = 4096,
        most_held_spans: int = 65_536,
    ) -> None:
        if not 0 <= quiet_ratio <= 1:
            raise ValueError(f"quiet_ratio is {quiet_ratio!r}; it must be from 0 to 1")
        self.head = head
        self.holds = Holds(most_per_cycle=most_spans_per_cycle, most_held=most_held_spans, slow=slow)
        """What is held; give it to `BatchSpanProcessor(holds=...)`, or its account will not know."""
        self._is_cycle = partial(eq, cycle) if isinstance(cycle, str) else cycle
        self._quiet_ratio = quiet_ratio
        self._quiet = DROPPED
        self._threshold = RANDOMNESS + 1
        if quiet_ratio:
            self._threshold = threshold_of(quiet_ratio)
            # A threshold has four significant digits; what is said of it has no more.
            count = float(f"{adjusted_count(self._threshold):.4g}")
            state = TraceState([("ot", f"th:{encode_threshold(self._threshold)}")])
            self._quiet = Verdict(True, "quiet", count, state)

    @classmethod
    def over(cls, head: Sampler, **options: Any) -> tuple[Sampler, Holds]:
        """A sampler that lets cycles decide and leaves the rest to `head`, and what it holds."""
        cycles = cls(head, **options)
        # Where children follow their parents anyway, say so, and the tracer need not ask.
        return (ParentBased(cycles) if shortcut(head).follow else cycles), cycles.holds

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
        """Hold a root that is a cycle; ask `head` about anything else."""
        parent = incoming(parent_context)
        if parent is None or not parent.is_valid:
            if self._is_cycle(name):
                kept = (trace_id & RANDOMNESS) >= self._threshold
                return _Held(Hold(self.holds, self._quiet if kept else DROPPED), attributes)
        elif not parent.is_remote and not parent.trace_flags.sampled:
            # Below a cycle that was dropped: whatever `head` thinks of it, it would have no parent.
            return _NOTHING
        return self.head.should_sample(
            parent_context, trace_id, name, kind, attributes, links, trace_state=trace_state
        )

    def get_description(self) -> str:
        """`CycleSampler{0.01,...}` with the description of the head sampler."""
        return f"CycleSampler{{{self._quiet_ratio},{self.head.get_description()}}}"


_NOTHING = SamplingResult(Decision.DROP)


class _Held(SamplingResult):
    """The answer for a cycle's root: recorded, sampled as the head decided, and held."""

    def __init__(self, hold: Hold, attributes: Attributes) -> None:
        head = hold.head
        self.decision = Decision.RECORD_AND_SAMPLE if head.kept else Decision.RECORD_ONLY
        # As they came: a declaration's own dictionary becomes the span's.
        self.attributes: Any = {} if attributes is None else attributes
        self.trace_state = head.trace_state
        self.hold = hold
