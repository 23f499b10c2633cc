"""The span of a generator: current while the body runs, and only then.

A generator shares its caller's context. A span that stays attached over a `yield` becomes the parent
of whatever the consumer does next, and its token is worthless when another task takes the next step.
So the span is attached before each step and detached before the item is handed on. No part of the
body runs in a copied context: the application's own ContextVars stay live.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextvars import ContextVar, Token, copy_context
from typing import TYPE_CHECKING, Any

from opentelemetry import context as context_api
from opentelemetry.context.context import Context
from opentelemetry.trace import get_current_span, set_span_in_context

from .context import SPAN_KEY, LeanRuntimeContext, without_span
from .foreign import NO_SPAN

if TYPE_CHECKING:
    from .scope import SpanScope

__all__ = ["GeneratorSpan", "traced_async_generator", "traced_generator"]


def traced_generator(
    function: Callable[..., Generator[Any, Any, Any]], scope: Callable[[], SpanScope]
) -> Callable[..., Generator[Any, Any, Any]]:
    """A generator function that takes each step of `function` with the span of a new scope attached.

    What the consumer sends and throws reaches the body, `close()` as the GeneratorExit that it is.
    Wrong arguments are found at the first step, not at the call.
    """

    def generator(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        body = function(*args, **kwargs)
        del args, kwargs
        span = GeneratorSpan(scope())
        step: Callable[[Any], Any] = body.send
        value: Any = None
        while True:
            span.attach()
            try:
                # In a list that lets go of it: between the steps an item is the consumer's alone.
                items = [step(value)]
            except StopIteration as stop:
                span.finish(None)
                return stop.value
            except BaseException as error:
                span.finish(error)
                raise
            finally:
                # An exception kept here would keep this frame, until the collector comes.
                value = None
            span.detach()
            try:
                value = yield items.pop()
            except BaseException as error:  # noqa: BLE001 - the body decides, whatever it is
                step, value = body.throw, error
            else:
                step = body.send

    return generator


def traced_async_generator(
    function: Callable[..., AsyncGenerator[Any, Any]], scope: Callable[[], SpanScope]
) -> Callable[..., AsyncGenerator[Any, Any]]:
    """The same for an async generator function."""

    async def generator(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        body = function(*args, **kwargs)
        del args, kwargs
        span = GeneratorSpan(scope())
        step: Callable[[Any], Awaitable[Any]] = _first_step(body)
        value: Any = None
        while True:
            span.attach()
            try:
                items = [await step(value)]
            except StopAsyncIteration:
                span.finish(None)
                return
            except BaseException as error:
                span.finish(error)
                raise
            finally:
                value = None
            span.detach()
            try:
                value = yield items.pop()
            except BaseException as error:  # noqa: BLE001 - the body decides, whatever it is
                step, value = body.athrow, error
            else:
                step = body.asend

    return generator


def _first_step(body: AsyncGenerator[Any, Any]) -> Callable[[Any], Awaitable[Any]]:
    """`body.asend` for the first step, taken so that the event loop does not hear of the body.

    The loop hears of the generator around it. Knowing both, it would close both at its shutdown, and
    the second to come would find the body running.
    """

    def asend(value: Any) -> Awaitable[Any]:
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(None, None)
        try:
            return body.asend(value)
        finally:
            sys.set_asyncgen_hooks(*hooks)

    return asend


class GeneratorSpan:
    """A span that begins now and is attached and detached as often as its generator steps.

    Each step may happen in another task, thread or context.
    """

    __slots__ = (
        "_attach",
        "_detach",
        "_home",
        "_inside",
        "_kept",
        "_lean",
        "_open",
        "_own",
        "_read",
        "_scope",
        "_span",
        "_strayed",
        "_token",
    )

    def __init__(self, scope: SpanScope) -> None:
        self._open = False
        self._scope = scope
        # The scope is entered and left in a context of its own: its tokens are good there always.
        self._home = copy_context()
        self._span: Any = self._home.run(scope.__enter__)
        self._open = True
        storage = context_api._RUNTIME_CONTEXT
        self._lean = isinstance(storage, LeanRuntimeContext) and type(scope._token) is Token
        if not self._lean and self._span is not NO_SPAN:
            self._span = self._home.run(get_current_span)
        self._kept: Any = None
        self._strayed: Any = None
        # What was attached, and what of it is the generator's own and not what its body made current.
        self._inside: Any = None
        self._own: Any = None
        self._token: Any = None
        self._read: Callable[[], Any] = storage.get_current
        self._attach: Callable[[Any], Any] | None = storage.attach
        self._detach: Callable[[Any], None] = storage.detach
        if isinstance(storage, LeanRuntimeContext):
            variable: ContextVar[Any] = storage.variable
            self._read, self._attach, self._detach = variable.get, variable.set, variable.reset
        if self._span is NO_SPAN:
            # There is no provider.
            self._attach = None

    def attach(self) -> None:
        """Make the span current for one step, or what the body had made current in the last one."""
        if self._attach is None:
            return
        if self._kept is None:
            self._own = self._over(self._read())
        self._inside = self._own if self._kept is None else self._kept
        self._token = self._attach(self._inside)

    def detach(self) -> None:
        """Give the consumer back what was current before the step."""
        if self._attach is None:
            return
        now = self._read()
        # A body may yield inside a span of its own; that span is current again in the next step.
        self._kept = None if now is self._own else now
        token, self._token = self._token, None
        try:
            self._detach(token)
        except ValueError:
            # The step began in another context, where the span stays current: once it has ended,
            # whoever looks there passes it over. This context may be a copy of that one.
            outer = token.old_value
            self._strayed = Context() if outer is Token.MISSING else outer
            if now is self._inside:
                self._attach(self._strayed)

    def finish(self, error: BaseException | None) -> None:
        """Detach and end the span; `error` is what left the body."""
        self.detach()
        self._end(error)

    def _end(self, error: BaseException | None) -> None:
        self._open = False
        traceback = None if error is None else error.__traceback__
        self._home.run(self._scope.__exit__, None if error is None else type(error), error, traceback)
        if self._lean and self._strayed is not None:
            self._span.pass_over(self._strayed)

    def _over(self, outer: Any) -> Any:
        """What is current in the body: the span, over the baggage that the consumer has now."""
        if not self._lean:
            return set_span_in_context(self._span, context_api.get_current())
        base = without_span(outer) if isinstance(outer, Context) else outer._base
        if _is_same(base, self._span._base):
            return self._span
        # Not by changing the span's base: tasks that the body has started see the span too.
        return Context({**(base or {}), SPAN_KEY: self._span})

    def __del__(self) -> None:
        # A generator that ignored its close, or whose loop was gone, never came to its end.
        if self._open:
            self._end(None)


def _is_same(one: Context, other: Context) -> bool:
    """Whether two contexts hold the same objects."""
    # Not by `==`, which is a method of whatever is in them.
    return one is other or (
        len(one) == len(other) and all(key in other and other[key] is value for key, value in one.items())
    )
