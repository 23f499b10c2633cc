"""A scope: the block in which a span is current.

One object serves as `with`, as `async with` (it awaits nothing) and as a decorator (a fresh span at
each call, so it is safe under `gather`). The object that a tracer of ours gives for a block is the
span itself, not yet started: a second object would be a tenth of what a span costs. Attach and detach
belong to one task; a scope that is left in another context still ends its span, and the span is
passed over where it stayed current.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Sequence
from contextvars import Token
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from opentelemetry import context as context_api
from opentelemetry.context.context import Context
from opentelemetry.trace import Link, SpanContext, get_current_span

from mapek_runtime.errors import SpanReused

from .context import TOKENS, Attached
from .generators import traced_async_generator, traced_generator

if TYPE_CHECKING:
    from .tracer import Tracer

__all__ = ["ENDED", "LEFT", "STARTED", "Options", "SpanScope", "face_of", "new_options"]

F = TypeVar("F", bound=Callable[..., Any])

STARTED = "started"
ENDED = "ended"
LEFT = "left"
"""What stands in `_token` where there is nothing to restore: `start_span` starts the span; that span has
ended; the block of a scope is over."""


class Options:
    """What few spans are started with; made only when one differs from its default."""

    __slots__ = ("context", "end_on_exit", "links", "record_exception", "set_status", "start_time")

    context: Context | None
    links: Sequence[Link]
    start_time: int | None
    record_exception: bool
    set_status: bool
    end_on_exit: bool

    @property
    def are_for_the_start(self) -> bool:
        """Whether nothing here is for the end."""
        return self.record_exception and self.set_status and self.end_on_exit


def new_options(
    context: Context | None = None,
    links: Sequence[Link] | None = (),
    start_time: int | None = None,
    record_exception: bool = True,
    set_status: bool = True,
    end_on_exit: bool = True,
) -> Options:
    """The options, filled."""
    options = Options()
    options.context = context
    options.links = links or ()
    options.start_time = start_time
    options.record_exception = record_exception
    options.set_status = set_status
    options.end_on_exit = end_on_exit
    return options


class SpanScope:
    """A span about to be made current; entering it starts the span, leaving it ends the span."""

    if not TYPE_CHECKING:
        # Its heirs have the slots; a dictionary here would make each of them slower to create.
        __slots__ = ()

    _tracer: Tracer
    _name: str
    _kind: Any
    _attributes: Any
    _spec: Any
    _token: Any
    """None until the block is entered, then what restores the context. A span of `start_span` has
    what was current at its start instead."""
    _options: Options | None = None
    _plain: bool
    """Whether nothing about the span needs care: no options, no trace state, nobody who holds it, no
    elapsed time to fill in, and a block that was left where it was entered."""
    _outer: Any = None
    """What was current before this span, when its block was left in another context."""
    _stand_in: Any = None
    """What became current in the block because the span is not recorded."""

    if TYPE_CHECKING:

        def end(self, end_time: int | None = None) -> None: ...

    def under(self, context: Context) -> Self:
        """The same scope with its parent taken from `context`; an empty one makes a root."""
        self._own_options().context = context
        return self

    def linked(self, *contexts: SpanContext | None) -> Self:
        """The same scope with links to other spans; None is passed over."""
        options = self._own_options()
        options.links = (*options.links, *(Link(context) for context in contexts if context is not None))
        return self

    @property
    def entered(self) -> bool:
        """Whether the span was started."""
        return self._token is not None

    def __enter__(self) -> Any:
        """Start the span and make it current."""
        raise NotImplementedError

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Restore what was current and end the span."""
        raise NotImplementedError

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
        # A declaration outlives the provider of this moment. Else a likeness, because the scope itself
        # becomes a span when it is entered.
        fresh = (self._fresh() if self._spec is None else self._late())._fresh
        wrapper: Any
        if inspect.isasyncgenfunction(face):
            wrapper = traced_async_generator(target, fresh)
        elif inspect.isgeneratorfunction(face):
            wrapper = traced_generator(target, fresh)
            if getattr(face, "__code__", wrapper.__code__).co_flags & inspect.CO_ITERABLE_COROUTINE:
                wrapper = types.coroutine(wrapper)
        elif inspect.iscoroutinefunction(face) or inspect.iscoroutinefunction(target):

            async def traced_coroutine(*args: Any, **kwargs: Any) -> Any:
                with fresh():
                    return await target(*args, **kwargs)

            wrapper = traced_coroutine
        else:

            def traced_function(*args: Any, **kwargs: Any) -> Any:
                with fresh():
                    return target(*args, **kwargs)

            wrapper = traced_function
        functools.update_wrapper(wrapper, face)
        wrapper.__wrapped__ = target
        return cast("F", wrapper)

    def _fresh(self) -> SpanScope:
        """Another scope like this one, for one call of a decorated function."""
        tracer = self._tracer
        scope: SpanScope = _new(tracer.scope_class or tracer.likely_class())
        scope._tracer = tracer
        scope._name = self._name
        scope._kind = self._kind
        scope._attributes = self._attributes
        scope._spec = None
        scope._token = None
        scope._plain = self._options is None
        if self._options is not None:
            scope._options = self._options
        return scope

    def _late(self) -> SpanScope:
        # A declared span keeps its dictionary as its own.
        late: SpanScope = self._spec.scope(dict(self._attributes or ()), name=self._name, kind=self._kind)
        if self._options is not None:
            late._options = self._options
        return late

    def _own_options(self) -> Options:
        if self._options is None:
            self._options = new_options()
            self._plain = False
        return self._options

    def _enter_again(self) -> Any:
        if self._token is not LEFT and type(self._token) not in TOKENS:
            # A span of `start_span`: its block ends it, and makes nothing current. As with the SDK's it
            # may be taken again, and then has ended.
            return self
        raise SpanReused(f"span scope {self._name!r} was entered before; make a new one for each block")

    def _finish_with_care(self, exc: BaseException | None) -> None:
        options = self._options
        if options is None and self._stand_in is not None:
            # There is nothing to end.
            return
        span: Any = self if self._stand_in is None else self._stand_in
        if exc is not None:
            if options is None:
                span.failed(exc)
            else:
                span.failed(exc, record=options.record_exception, status=options.set_status)
        if options is None or options.end_on_exit:
            if self._spec is not None and self._spec.elapsed is not None:
                self._spec.finish(span)
            span.end()
        # They may hold a context, and with it the spans above.
        self._options = None

    def _left_elsewhere(self, token: Any) -> None:
        span: Any = self if self._stand_in is None else self._stand_in
        if type(token) is not Token:
            if type(token) is not Attached:
                self._token = LEFT if token is LEFT else ENDED
            elif get_current_span() is span:
                context_api.attach(token.outer)
            return
        variable = token.var
        outer = token.old_value
        if outer is Token.MISSING:
            outer = Context()
        if variable.get() is span:
            # This context is a copy of the one that was entered: restore it by value.
            variable.set(outer)
        span.pass_over(outer)

    def pass_over(self, outer: Any) -> None:
        """Let whoever still finds this span current look at `outer` instead.

        Where the scope was entered the span stays current for ever.
        """
        while not isinstance(outer, dict) and outer._outer is not None:
            # Or those that were passed over before would never be let go.
            outer = outer._outer
        self._outer = outer
        self._plain = False


_new = object.__new__


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
