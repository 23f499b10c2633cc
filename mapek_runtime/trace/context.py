"""Where the current span lives.

OpenTelemetry's context is the only context, but its stock storage builds a new `Context` dictionary
for every span that becomes current. `LeanRuntimeContext` keeps the span itself in the ContextVar and
builds a `Context` only when somebody asks for one, which is what makes spans cheap (design B of the
measurements in `docs/design.md`).

The storage is put in place by the first `TracerProvider`, and only while the stock one is there. It
takes over the stock storage's own ContextVar, so every context that is attached at that moment stays
attached and every open token stays good. Where somebody else's storage is in place (by
`OTEL_PYTHON_CONTEXT`), spans go through the API like everyone's.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar, Token
from typing import Any, NamedTuple, Protocol, cast

from opentelemetry import context as context_api
from opentelemetry.context.context import Context, _RuntimeContext
from opentelemetry.context.contextvars_context import ContextVarsRuntimeContext
from opentelemetry.trace.propagation import _SPAN_KEY

__all__ = [
    "SPAN_KEY",
    "TOKENS",
    "Attached",
    "CurrentSpan",
    "LeanRuntimeContext",
    "install",
    "reach",
    "without_span",
]

SPAN_KEY = _SPAN_KEY


_EMPTY = Context()  # a Context is immutable


def without_span(context: Context) -> Context:
    """`context` with no span in it."""
    if SPAN_KEY not in context:
        return context
    if len(context) == 1:
        return _EMPTY
    return Context({key: value for key, value in context.items() if key != SPAN_KEY})


class CurrentSpan(Protocol):
    """A span that can stand in the ContextVar: it knows the `Context` it was made current over.

    `_outer` is what was current before it, once its scope was left in another context (a generator
    closed by another task): the span is then passed over, here and when a parent is sought.
    """

    _outer: Any

    def as_context(self) -> Context:
        """That context with the span in it."""


class LeanRuntimeContext(_RuntimeContext):
    """A context storage whose variable holds a `Context` or a span that stands for one."""

    def __init__(self, variable: ContextVar[Any] | None = None) -> None:
        self.variable: ContextVar[Any] = (
            ContextVar("current_context", default=_EMPTY) if variable is None else variable
        )

    def attach(self, context: Context) -> Token[Context]:
        """Make `context` current; the token restores what was before."""
        if type(context) is not Context:
            # Nobody checks what is attached, and a plain dictionary would be taken for a span.
            context = Context(context)
        return self.variable.set(context)

    def get_current(self) -> Context:
        """The current context, built now when a span stands for it."""
        value = self.variable.get()
        while not isinstance(value, dict):
            if value._outer is None:
                return cast("CurrentSpan", value).as_context()
            value = value._outer
        return cast("Context", value)

    def detach(self, token: Token[Context]) -> None:
        """Restore what was current before `attach`.

        A token made in another context (a generator closed by another task) has nothing to restore
        here: it is ignored, where the stock storage logs an error.
        """
        try:
            self.variable.reset(token)
        except ValueError:
            if token.var is not self.variable:
                raise


def install() -> ContextVar[Any] | None:
    """Put the lean storage in place, once; None where somebody else's storage must stay."""
    present = context_api._RUNTIME_CONTEXT
    if isinstance(present, LeanRuntimeContext):
        return present.variable
    if type(present) is not ContextVarsRuntimeContext:
        return None
    lean = LeanRuntimeContext(present._current_context)
    context_api._RUNTIME_CONTEXT = lean
    return lean.variable


class _Way(NamedTuple):
    """How a tracer reads what is current, makes a span current, and restores what was before."""

    get: Callable[[], Any]
    set: Callable[[Any], Any]
    reset: Callable[[Any], None]


def reach(variable: ContextVar[Any] | None) -> _Way:
    """The way to the current span: the variable's own methods, or the API where another storage is."""
    if variable is not None:
        return _Way(variable.get, variable.set, variable.reset)
    return _Way(context_api.get_current, _attach, _detach)


class Attached:
    """The token of another storage, so that it is not taken for anything else."""

    __slots__ = ("outer", "token")

    def __init__(self, token: object, outer: Context) -> None:
        self.token = token
        self.outer = outer
        """What was current before."""


TOKENS = frozenset((Token, Attached))
"""The types of what restores a context."""


def _attach(span: CurrentSpan) -> Attached:
    outer = context_api.get_current()
    return Attached(context_api.attach(span.as_context()), outer)


def _detach(token: object) -> None:
    if type(token) is not Attached:
        raise TypeError(f"{token!r} is no token of this storage")
    context_api._RUNTIME_CONTEXT.detach(cast("Token[Context]", token.token))
