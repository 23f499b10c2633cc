"""`traced`: a span around each call of a function of one's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar, overload

from opentelemetry.trace import SpanKind

from .active import LateTracer
from .scope import SpanScope
from .spec import SpanSpec

__all__ = ["traced"]

F = TypeVar("F", bound=Callable[..., Any])


@overload
def traced(function: F, /) -> F: ...


@overload
def traced(
    name: str | None = None,
    /,
    *,
    attributes: Mapping[str, Any] | None = None,
    kind: SpanKind = SpanKind.INTERNAL,
    record_exception: bool = True,
) -> Callable[[F], F]: ...


def traced(
    function: Callable[..., Any] | str | None = None,
    /,
    *,
    attributes: Mapping[str, Any] | None = None,
    kind: SpanKind = SpanKind.INTERNAL,
    record_exception: bool = True,
) -> Any:
    """Run each call of a function or coroutine function in a span.

    `@traced` names the span after the function, `@traced("name", attributes=…, kind=…)` says more.
    The span covers the awaited work. The tracer is looked up at each call, so decorating needs no
    provider. Raises TypeError for a generator function.
    """
    if callable(function):
        return traced()(function)
    name = function

    def decorate(target: F) -> F:
        called = name or target.__qualname__
        spec = SpanSpec(called, "", LateTracer(target.__module__), {}, {}, {}, {}, None)
        scope = SpanScope(None, spec, called, dict(attributes or {}), None, kind, (), None, record_exception)
        return scope(target)

    return decorate
