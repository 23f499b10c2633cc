"""A block whose span is most likely not sampled, as under a ratio of one in a hundred.

Most tracers in production say no to most traces. A block that guesses so is the dropped span itself,
one object instead of two; where it guessed wrong it starts a span of its own kind and stands aside.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

from opentelemetry.context.context import Context
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased

from .dropped import DroppedSpan
from .identity import RANDOM
from .ids import draw_bits
from .scope import LEFT
from .span import Span

__all__ = ["UnlikelySpan"]

_LIMIT = TraceIdRatioBased.TRACE_ID_LIMIT
_new = object.__new__


class UnlikelySpan(DroppedSpan):
    """A scope that is its own dropped span, unless the span turns out to be sampled.

    Made by tracers that follow the parent and decide a root by the ratio of its trace id.
    """

    __slots__ = ("_sampled",)

    _sampled: Span

    def __enter__(self) -> Any:
        if self._token is not None:
            return self._enter_again()
        tracer = self._tracer
        get, attach = tracer.get, tracer.set
        parent = get()
        kind = type(parent)
        if (kind is UnlikelySpan or kind is DroppedSpan) and self._plain and parent._plain:
            self._base = parent._base
            self._trace_id = parent._trace_id
            self._flags = parent._flags & RANDOM
        elif kind is Context and not parent and self._plain:
            trace_id = draw_bits(128)
            if trace_id & _LIMIT < (tracer.bound or 0):
                return self._sample(trace_id)
            self._base = parent
            self._trace_id = trace_id
            self._flags = tracer.random
        else:
            return self._sample(0)
        self._token = attach(self)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._plain:
            try:
                span = self._sampled
            except AttributeError:
                # Not sampled, and passed over.
                super().__exit__(exc_type, exc, traceback)
            else:
                self._token = LEFT
                span.__exit__(exc_type, exc, traceback)
            return
        # As in `DroppedSpan`: a call of `super()` would be an eighth of what this costs.
        token = self._token
        self._token = LEFT
        try:
            reset = self._tracer.reset
            reset(token)
        except (ValueError, TypeError, AttributeError):
            self._left_elsewhere(token)

    def _sample(self, trace_id: int) -> Any:
        """Leave it to a span, which is asked in full; 0 where its trace id is not decided."""
        span: Any = _new(Span)
        span._tracer = self._tracer
        span._name = self._name
        span._kind = self._kind
        span._attributes = self._attributes
        span._spec = self._spec
        span._token = None
        span._plain = self._plain and not trace_id
        if self._options is not None:
            span._options = self._options
        if trace_id:
            span._drawn_id = trace_id
        current = span.__enter__()
        self._sampled = span
        self._plain = False
        self._token = span._token
        return current
