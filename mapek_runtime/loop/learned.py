"""What a node learns, and others may hear of: incidents, facts and goals."""

from __future__ import annotations

from dataclasses import dataclass

from opentelemetry.trace import SpanContext

from .model import Value

__all__ = ["Change", "Fact", "Goal", "Incident"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """One problem of one target, from the first finding to its end.

    Times are Unix seconds; `repair_seconds` runs until the metric recovered, not until the action
    returned. `trace_id` is the cycle that found it (32 hex digits), `node` the one that handled it;
    empty: this one.
    """

    target: str
    problem: str
    opened: float
    action: str = ""
    closed: float | None = None
    repair_seconds: float | None = None
    success: bool | None = None
    trace_id: str = ""
    node: str = ""


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that this node remembers now, and did not before or not so."""

    key: str
    value: Value


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What somebody wants the loops to reach, such as a slow loop of fast ones.

    Of two for one name the one with the higher `number` holds; 0 where whoever keeps it does not count.
    `span_context` is the span in which its `author` set it, for the cycle that follows it to be linked to.
    """

    name: str
    value: Value
    author: str = ""
    number: int = 0
    span_context: SpanContext | None = None

    @property
    def reason(self) -> str:
        """Why a cycle that follows it starts."""
        return f"goal {self.name}"

    def is_same_as(self, other: Goal | None) -> bool:
        """Whether both are one decision; the context of a span differs by having travelled."""
        if other is None or type(self.value) is not type(other.value):
            return False
        return self._decision == other._decision

    @property
    def _decision(self) -> tuple[object, ...]:
        span = self.span_context
        return self.name, self.value, self.author, None if span is None else (span.trace_id, span.span_id)


Change = Incident | Fact | Goal
"""What this node has learned by itself: an incident that was closed, a fact, a goal that was set."""
