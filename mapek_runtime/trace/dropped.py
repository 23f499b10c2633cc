"""A span that nobody samples: an identity to hand down, and nothing else."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from opentelemetry.context.context import Context
from opentelemetry.trace import (
    INVALID_SPAN_CONTEXT,
    NonRecordingSpan,
    SpanContext,
    TraceFlags,
    TraceState,
)

from .context import SPAN_KEY
from .identity import RANDOM
from .ids import draw_bits
from .scope import LEFT, STARTED, SpanScope

__all__ = ["DroppedSpan"]


class DroppedSpan(SpanScope, NonRecordingSpan):
    """A span that nobody samples: it has an identity, and records nothing.

    Where a tracer samples nothing at all, and its ids are ours, it is its own scope too.
    """

    __slots__ = (
        "_attributes",
        "_base",
        "_flags",
        "_kind",
        "_name",
        "_own_id",
        "_plain",
        "_spec",
        "_token",
        "_trace_id",
        "_tracer",
    )

    _trace_state: TraceState | None = None
    _built_context: SpanContext | None = None
    _hold: Any = None
    _passed_on: SpanContext | None = None
    _drawn_id: int = 0
    """Whose identity this is, when it is not its own."""

    def __init__(self, trace_id: int, span_id: int, flags: int, trace_state: TraceState | None) -> None:
        self._trace_id = trace_id
        self._own_id = span_id
        self._flags = flags
        self._base: Context | None = None
        self._token: Any = STARTED
        self._spec = None
        self._plain = trace_state is None
        if trace_state is not None:
            self._trace_state = trace_state

    def __enter__(self) -> Any:
        if self._token is not None:
            return self._enter_again()
        tracer = self._tracer
        # As in `Span`: taken to a name before they are called.
        get, attach = tracer.get, tracer.set
        parent = get()
        if self._plain and type(parent) is not Context and parent._plain:
            self._base = parent._base
            self._trace_id = parent._trace_id
            self._flags = parent._flags & RANDOM
        elif self._plain and not parent:
            self._base = parent
            self._trace_id = draw_bits(128)
            self._flags = tracer.random
        else:
            self._become(tracer.place(self, parent))
        self._token = attach(self)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        token = self._token
        self._token = LEFT
        try:
            reset = self._tracer.reset
            reset(token)
        except (ValueError, TypeError, AttributeError):
            self._left_elsewhere(token)

    def _become(self, other: DroppedSpan) -> None:
        self._base = other._base
        self._trace_id = other._trace_id
        self._own_id = other._span_id
        self._flags = other._flags
        if other._trace_state is not None:
            self._trace_state = other._trace_state
            self._plain = False
        if other._passed_on is not None:
            self._passed_on = self._built_context = other._passed_on
            self._plain = False

    @property
    def _context(self) -> SpanContext:  # type: ignore[override]
        if self._built_context is None:
            try:
                self._built_context = SpanContext(
                    self._trace_id, self._span_id, False, TraceFlags(self._flags), self._trace_state
                )
            except AttributeError:
                # A scope that was not entered.
                return INVALID_SPAN_CONTEXT
        return self._built_context

    @property
    def _span_id(self) -> int:
        try:
            return self._own_id
        except AttributeError:
            # Drawn when somebody asks: hardly anybody does.
            self._own_id = draw_bits(64)
        return self._own_id

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
