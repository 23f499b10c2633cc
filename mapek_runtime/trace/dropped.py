"""A span that nobody samples: an identity to hand down, and nothing else."""

from __future__ import annotations

from typing import Any

from opentelemetry.context.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState

from .context import SPAN_KEY

__all__ = ["DroppedSpan"]


class DroppedSpan(NonRecordingSpan):
    """A span that nobody samples: it has an identity, and records nothing."""

    __slots__ = ("_base", "_flags", "_span_id", "_trace_id", "_trace_state")

    _outer: Any = None

    def __init__(self, trace_id: int, span_id: int, flags: int, trace_state: TraceState | None) -> None:
        self._trace_id = trace_id
        self._span_id = span_id
        self._flags = flags
        self._trace_state = trace_state
        self._base: Context | None = None

    @property
    def _context(self) -> SpanContext:  # type: ignore[override]
        return SpanContext(self._trace_id, self._span_id, False, TraceFlags(self._flags), self._trace_state)

    def get_span_context(self) -> SpanContext:
        """Ids, flags and trace state."""
        return self._context

    def as_context(self) -> Context:
        """The context in which this span is current."""
        context = dict(self._base or ())
        context[SPAN_KEY] = self
        return Context(context)

    def set(self, **values: Any) -> None:
        """Record nothing."""

    def failed(self, error: BaseException, *, record: bool = True, status: bool = True) -> None:
        """Record nothing."""

    def __repr__(self) -> str:
        return f"DroppedSpan({self._context!r})"
