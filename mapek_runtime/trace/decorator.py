"""`traced`: a span around each call of a function of one's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar, overload

from opentelemetry.trace import SpanKind

from .active import LateTracer
from .scope import face_of
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
    """Run each call of a function in a span.

    `@traced` names the span after the function, `@traced("name", attributes=…, kind=…)` says more.
    Takes functions, coroutine functions, generator and async generator functions, methods of every
    kind (above or below `@staticmethod` and `@classmethod`), partials and callable objects; raises
    TypeError for anything else. The span covers the work: what is awaited, and the steps of a
    generator from the first to the last, between which it is not current. The tracer is looked up at
    each call, so decorating needs no provider.
    """
    if function is not None and not isinstance(function, str):
        return traced()(function)
    name = function

    def decorate(target: F) -> F:
        face = face_of(target)
        called = name or face.__qualname__
        module = getattr(face, "__module__", None) or type(target).__module__
        spec = SpanSpec(called, "", LateTracer(module), {}, {}, {}, {}, None)
        scope = spec.scope(dict(attributes or {}), kind=kind)
        if not record_exception:
            scope.without_exceptions()
        return scope(target)

    return decorate
