"""Who a span is: ids, flags, parent, and who made it.

The `SpanContext` and the `Context` are built when somebody asks.
"""

from __future__ import annotations

from contextvars import Token
from typing import TYPE_CHECKING, Any

from opentelemetry.context.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Span, SpanLimits, SpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import INVALID_SPAN_CONTEXT, SpanContext, TraceFlags, TraceState

from .context import SPAN_KEY

if TYPE_CHECKING:
    from .tracer import Tracer

__all__ = ["RANDOM", "SAMPLED", "Identity"]

SAMPLED = 0x01
RANDOM = 0x02
"""The flags of W3C Trace Context: the trace is sampled; its id is random."""


class Identity(Span):
    """The identity of a recording span behind the SDK's interface."""

    if not TYPE_CHECKING:
        __slots__ = ()

    _tracer: Tracer
    _trace_id: int
    _span_id: int
    _parent_id: int
    _flags: int
    _base: Context | None
    _token: Any

    # Set on the instance only when it differs.
    _trace_state: TraceState | None = None
    _parent_context: SpanContext | None = None
    """Where it is remote, or has other flags or another state; else built from this span's own."""
    _parent_remote: bool = False
    _built_context: SpanContext | None = None

    @property
    def _context(self) -> SpanContext:  # type: ignore[override]
        built = self._built_context
        if built is None:
            try:
                built = self._built_context = SpanContext(
                    self._trace_id, self._span_id, False, TraceFlags(self._flags), self._trace_state
                )
            except AttributeError:
                # A scope that was not entered.
                return INVALID_SPAN_CONTEXT
        return built

    def get_span_context(self) -> SpanContext:
        """Ids, flags and trace state."""
        return self._context

    @property
    def context(self) -> SpanContext:
        """The same as `get_span_context()`."""
        return self._context

    @property
    def _parent(self) -> SpanContext | None:  # type: ignore[override]
        if not self._parent_id:
            return None
        if self._parent_context is None:
            # While the span is open its parent is at hand; later there is what they had in common.
            token = self._token
            above = token.old_value if type(token) is Token else token
            if isinstance(above, Identity) and above._span_id == self._parent_id:
                self._parent_context = above._context
            else:
                self._parent_context = SpanContext(
                    self._trace_id, self._parent_id, False, TraceFlags(self._flags), self._trace_state
                )
        return self._parent_context

    @property
    def parent(self) -> SpanContext | None:
        """The parent's context; None for a root."""
        return self._parent

    @property
    def resource(self) -> Resource:
        """Who made the span."""
        return self._tracer.resource

    @property
    def _resource(self) -> Resource:  # type: ignore[override]
        return self._tracer.resource

    @property
    def instrumentation_scope(self) -> InstrumentationScope:
        """Which instrumentation made the span."""
        return self._tracer.scope

    @property
    def _instrumentation_scope(self) -> InstrumentationScope:  # type: ignore[override]
        return self._tracer.scope

    @property
    def _instrumentation_info(self) -> Any:  # type: ignore[override]
        return self._tracer.instrumentation_info

    @property
    def _span_processor(self) -> SpanProcessor:  # type: ignore[override]
        return self._tracer.span_processor

    @property
    def _limits(self) -> SpanLimits:
        return self._tracer.limits

    def as_context(self) -> Context:
        """The context in which this span is current."""
        context = dict(self._base or ())
        context[SPAN_KEY] = self
        return Context(context)
