"""A scope: the block in which a span is current.

One object serves as `with`, as `async with` (it awaits nothing) and as a decorator (a fresh span at
each call, so it is safe under `gather`). Attach and detach belong to one task; a scope that is left
in another context still ends its span, and the span is passed over where it stayed current.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from contextvars import Token
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, cast

from opentelemetry.context.context import Context
from opentelemetry.trace import Link, SpanContext, SpanKind, use_span
from opentelemetry.trace import Tracer as ApiTracer

from mapek_runtime.errors import SpanReused

from .dropped import DroppedSpan
from .foreign import NO_SPAN, ForeignSpan
from .generators import traced_async_generator, traced_generator
from .span import Span

if TYPE_CHECKING:
    from .spec import SpanSpec
    from .tracer import Tracer

__all__ = ["SpanScope", "face_of"]

F = TypeVar("F", bound=Callable[..., Any])


class SpanScope:
    """A span about to be made current; entering it starts the span, leaving it ends the span."""

    __slots__ = (
        "_attributes",
        "_context",
        "_end_on_exit",
        "_kind",
        "_links",
        "_name",
        "_record_exception",
        "_set_status",
        "_span",
        "_spec",
        "_start_time",
        "_token",
        "_tracer",
    )

    def __init__(
        self,
        tracer: Tracer | None,
        spec: SpanSpec | None,
        name: str,
        attributes: Mapping[str, Any] | None = None,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        links: Sequence[Link] | None = (),
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
        end_on_exit: bool = True,
    ) -> None:
        self._tracer = tracer
        self._spec = spec
        self._name = name
        self._attributes = attributes
        self._context = context
        self._kind = kind
        self._links = links
        self._start_time = start_time
        self._record_exception = record_exception
        self._set_status = set_status_on_exception
        self._end_on_exit = end_on_exit
        self._span: Any = None
        self._token: Any = None

    def under(self, context: Context) -> SpanScope:
        """The same scope with its parent taken from `context`; an empty one makes a root."""
        self._context = context
        return self

    def linked(self, *contexts: SpanContext | None) -> SpanScope:
        """The same scope with links to other spans; None is passed over."""
        self._links = (*(self._links or ()), *(Link(context) for context in contexts if context is not None))
        return self

    def __enter__(self) -> Any:
        if self._span is not None:
            raise SpanReused(f"span scope {self._name!r} was entered before; make a new one for each block")
        spec = self._spec
        tracer: Any = self._tracer if self._tracer is not None else spec.tracer.get()  # type: ignore[union-attr]
        try:
            variable = tracer.variable
        except AttributeError:
            variable = None
        if variable is None:
            return self._enter_through_the_api(tracer)
        value = variable.get()
        context = self._context
        span = tracer.begin(
            self._name,
            value if context is None else context,
            self._kind,
            self._attributes,
            self._links,
            self._start_time,
            spec,
        )
        span._base = value if isinstance(value, dict) else value._base
        self._span = span
        self._token = variable.set(span)
        return span

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        span = self._span
        token = self._token
        self._token = None
        if type(token) is not Token:
            self._exit_through_the_api(token, exc_type, exc, traceback)
            return
        try:
            token.var.reset(token)
        except ValueError:
            self._left_elsewhere(span, token)
        if exc is not None:
            span.failed(exc, record=self._record_exception, status=self._set_status)
        if self._end_on_exit:
            if self._spec is not None and self._spec.elapsed is not None:
                self._spec.finish(span)
            span.end()

    async def __aenter__(self) -> Any:
        return self.__enter__()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(exc_type, exc, traceback)

    def __call__(self, function: F) -> F:
        """Decorate a function of any kind: each call runs in a span of its own.

        The span of a coroutine covers what is awaited; that of a generator begins at the first step
        and is current while the body runs. Raises TypeError for what is no function.
        """
        target: Any = function
        if isinstance(target, staticmethod | classmethod):
            return cast("F", type(target)(self(target.__func__)))
        if isinstance(target, functools.partialmethod):
            rebound: Any = functools.partialmethod(self(target.func), *target.args, **target.keywords)
            return cast("F", rebound)
        face: Any = face_of(target)
        wrapper: Any
        if inspect.isasyncgenfunction(face):
            wrapper = traced_async_generator(target, self._fresh)
        elif inspect.isgeneratorfunction(face):
            wrapper = traced_generator(target, self._fresh)
            if getattr(face, "__code__", wrapper.__code__).co_flags & inspect.CO_ITERABLE_COROUTINE:
                wrapper = types.coroutine(wrapper)
        elif inspect.iscoroutinefunction(face) or inspect.iscoroutinefunction(target):

            async def traced_coroutine(*args: Any, **kwargs: Any) -> Any:
                with self._fresh():
                    return await target(*args, **kwargs)

            wrapper = traced_coroutine
        else:

            def traced_function(*args: Any, **kwargs: Any) -> Any:
                with self._fresh():
                    return target(*args, **kwargs)

            wrapper = traced_function
        functools.update_wrapper(wrapper, face)
        wrapper.__wrapped__ = target
        return cast("F", wrapper)

    def _fresh(self) -> SpanScope:
        attributes = dict(self._attributes) if self._attributes else self._attributes
        return SpanScope(
            self._tracer, self._spec, self._name, attributes, self._context, self._kind, self._links,
            self._start_time, self._record_exception, self._set_status, self._end_on_exit,
        )  # fmt: skip

    def _left_elsewhere(self, span: Span | DroppedSpan, token: Token[Any]) -> None:
        variable = token.var
        outer = token.old_value
        if outer is Token.MISSING:
            outer = Context()
        if variable.get() is span:
            # This context is a copy of the one that was entered: restore it by value.
            variable.set(outer)
        # Where the scope was entered the span stays current for ever; whoever looks passes it over.
        span._outer = outer

    def _enter_through_the_api(self, tracer: ApiTracer | None) -> Any:
        if tracer is None:
            self._span = NO_SPAN
            return NO_SPAN
        attributes = {key: value for key, value in (self._attributes or {}).items() if value is not None}
        span = tracer.start_span(
            self._name, self._context, self._kind, attributes, self._links, self._start_time
        )
        manager: AbstractContextManager[Any] = use_span(
            span,
            end_on_exit=self._end_on_exit,
            record_exception=self._record_exception,
            set_status_on_exception=self._set_status,
        )
        self._token = manager
        manager.__enter__()
        self._span = ForeignSpan(span, self._spec, attributes) if self._spec is not None else span
        return self._span

    def _exit_through_the_api(
        self,
        manager: AbstractContextManager[Any] | None,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if manager is None:
            return
        if self._spec is not None:
            self._span.finish(exc)
        manager.__exit__(exc_type, exc, traceback)


def face_of(target: Any) -> Any:
    """The function whose name, kind and documentation a decorated `target` shows.

    Raises TypeError for what cannot be decorated.
    """
    face = target
    while True:
        if isinstance(face, functools.partial | functools.partialmethod):
            face = face.func
        elif isinstance(face, staticmethod | classmethod):
            face = face.__func__
        else:
            break
    if isinstance(face, type):
        raise TypeError(f"{face.__qualname__!r} is a class: decorate its methods")
    if isinstance(face, property | functools.cached_property):
        raise TypeError("a property cannot be decorated: decorate the function under it")
    if inspect.isawaitable(face) or inspect.isgenerator(face) or inspect.isasyncgen(face):
        name = getattr(face, "__qualname__", type(face).__qualname__)
        raise TypeError(f"{name!r} was called already: decorate the function, not what its call returned")
    if not callable(face):
        raise TypeError(f"{face!r} is no function, method, partial or callable object")
    return face if hasattr(face, "__qualname__") else type(face).__call__
