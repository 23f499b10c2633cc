"""Hand-overs: work that goes on elsewhere keeps its place in the trace.

    await run_in_executor(None, pool, checksum, path)     a child, in the pool's thread
    thread(watch, path).start()                           a child, in a thread of its own
    spawn(refresh(cache), relation="link")                a task that nobody waits for
    async with queue.consume("job") as (job, span): ...   linked to whoever put the job in

asyncio hands the context on by itself in `create_task`, `to_thread` and `call_soon`; here is the rest.
Nothing is patched: who wants the context carried calls these.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import logging
import sys
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Literal, ParamSpec, TypeVar, TypeVarTuple, get_args

from opentelemetry import context as context_api
from opentelemetry import trace as trace_api
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, SpanKind

from mapek_runtime.errors import SpanReused

from .active import LateTracer
from .context import without_span
from .scope import SpanScope
from .spec import SpanSpec

__all__ = [
    "PARENT_ENDED",
    "ConsumerRelation",
    "Relation",
    "TracedQueue",
    "run_in_executor",
    "spawn",
    "thread",
]

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")

Relation = Literal["child", "link", "detached"]
"""How a spawned task stands to the span it was spawned in."""
ConsumerRelation = Literal["link", "parent"]
"""What the producer's span is to the consumer's."""

PARENT_ENDED = "parent.ended"
"""True on the root of a task that was to be a child of a span which had ended by its first step."""

_TRACER = LateTracer("mapek.handover")
# The loop refers to its tasks weakly: a task that nobody holds may vanish before it is done.
_spawned: set[asyncio.Task[Any]] = set()


def run_in_executor(
    loop: asyncio.AbstractEventLoop | None,
    executor: Executor | None,
    function: Callable[[*Ts], T],
    /,
    *args: *Ts,
) -> asyncio.Future[T]:
    """`loop.run_in_executor` with the caller's context: spans opened by `function` are children.

    `loop` None is the running one, `executor` None is the loop's own. Raises TypeError for a coroutine
    function, and for an executor of processes or interpreters: a context stays where it was made.
    """
    _require_function("run_in_executor", function)
    if isinstance(executor, _foreign_executors()):
        raise TypeError(
            f"run_in_executor cannot carry the context to {executor!r}: it stays in its interpreter; pass "
            "what opentelemetry.propagate.inject() wrote as an argument, and extract() it over there"
        )
    if loop is None:
        loop = asyncio.get_running_loop()
    context = contextvars.copy_context()
    return loop.run_in_executor(executor, functools.partial(context.run, function, *args))


def thread(target: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs) -> threading.Thread:
    """A thread, not yet started, that will call `target` in the context of this call.

    Raises TypeError for a coroutine function.
    """
    _require_function("thread", target)
    context = contextvars.copy_context()

    # Wrapped for the thread's name, which shows the target's.
    @functools.wraps(target)
    def run() -> None:
        context.run(target, *args, **kwargs)

    return threading.Thread(target=run)


def spawn(
    coro: Coroutine[Any, Any, T],
    *,
    name: str | None = None,
    relation: Relation = "child",
    group: asyncio.TaskGroup | None = None,
) -> asyncio.Task[T]:
    """Run `coro` as a task, in a span named `name` (the coroutine's own name unless given).

    The context is the one of this call, whenever the task takes its first step. The span is a `child`
    of the current span, a new root with a `link` to it, or a root that is `detached` from it. A child
    whose parent has ended by its first step becomes a linked root with the attribute `parent.ended`.
    Whether a parent that is not recorded here (unsampled, remote) has ended cannot be known: it counts
    as open.

    Without a `group` the task is held until it is done, and an error is logged once, with the task's
    span current; whoever awaits the task gets it too. With a group both are the group's business.
    """
    if not asyncio.iscoroutine(coro):
        raise TypeError(f"spawn needs a coroutine, not {coro!r}; call the function: spawn(work())")
    try:
        _require_one_of("relation", relation, get_args(Relation))
        if group is not None and not isinstance(group, asyncio.TaskGroup):
            raise TypeError(f"group is {group!r}; it must be an asyncio.TaskGroup")
        title = str(name or getattr(coro, "__qualname__", type(coro).__qualname__))
        runner = _run(coro, title, relation, trace_api.get_current_span(), log=group is None)
        try:
            start = asyncio.get_running_loop().create_task if group is None else group.create_task
            task: asyncio.Task[T] = start(runner, name=title, context=contextvars.copy_context())
        except Exception:
            runner.close()
            raise
    except Exception:
        # Or a warning that it was never awaited would stand in front of the real error.
        coro.close()
        raise
    if group is None:
        _spawned.add(task)
    task.add_done_callback(functools.partial(_done, coro), context=contextvars.Context())
    return task


class TracedQueue(asyncio.Queue[T]):
    """An `asyncio.Queue` that knows in which span each item was put in.

    `consume` opens the consumer's span. `get` and the rest are as in `asyncio.Queue`.
    """

    def consume(
        self, span: str | SpanScope, /, *, relation: ConsumerRelation = "link"
    ) -> AbstractAsyncContextManager[tuple[T, Any]]:
        """Wait for an item and work on it in a span; leaving the block calls `task_done`.

        `span` is a name or a declared span. It is a root with a link to the span in which the item was
        put in, or has that one as its parent; never the span in which the worker runs or was started.
        Raises SpanReused for a scope that was entered before; no item is taken then.
        """
        _require_one_of("relation", relation, get_args(ConsumerRelation))
        if isinstance(span, str):
            span = _scope(span, SpanKind.CONSUMER)
        elif not isinstance(span, SpanScope):
            raise TypeError(f"consume needs the name of a span or a declared span, not {span!r}")
        elif span.entered:
            raise SpanReused(f"span scope {span._name!r} was entered before; make a new one for each item")
        return self._consume(span, relation)

    @asynccontextmanager
    async def _consume(self, scope: SpanScope, relation: ConsumerRelation) -> AsyncIterator[tuple[T, Any]]:
        item = await self.get()
        # `get` ends with `_get`, and from there to here nothing else runs.
        producer = self._producer
        try:
            with _after(producer, scope, relation) as span:
                yield item, span
        finally:
            self.task_done()

    # The three methods that asyncio.Queue leaves to subclasses. Producers wait beside their items, so
    # that the queue holds items only.

    def _init(self, maxsize: int) -> None:
        super()._init(maxsize)
        self._producers: deque[SpanContext] = deque()
        self._producer = trace_api.INVALID_SPAN_CONTEXT

    def _put(self, item: T) -> None:
        super()._put(item)
        self._producers.append(trace_api.get_current_span().get_span_context())

    def _get(self) -> T:
        item = super()._get()
        self._producer = self._producers.popleft()
        return item


async def _run(
    coro: Coroutine[Any, Any, T], name: str, relation: Relation, parent: trace_api.Span, *, log: bool
) -> T:
    late = relation == "child" and isinstance(parent, ReadableSpan) and parent.end_time is not None
    scope = _scope(name, SpanKind.INTERNAL, {PARENT_ENDED: True} if late else {})
    if late or relation != "child":
        # The context is the task's own and ends with it: nothing is to be detached. Attached rather than
        # given to the scope, so that it also holds for other tracers while there is no provider.
        context_api.attach(without_span(context_api.get_current()))
    if (late or relation == "link") and parent.get_span_context().is_valid:
        scope.linked(parent.get_span_context())
    with scope:
        try:
            return await coro
        except Exception:
            if log:
                logger.exception("spawned task %r failed", name)
            raise


def _done(coro: Coroutine[Any, Any, Any], task: asyncio.Task[Any]) -> None:
    # A task that was cancelled before its first step never came to await it.
    coro.close()
    if task in _spawned:
        _spawned.discard(task)
        if not task.cancelled():
            # Looked at, so that asyncio does not report a second time what was logged.
            task.exception()


def _scope(name: str, kind: SpanKind, attributes: dict[str, Any] | None = None) -> SpanScope:
    return SpanSpec(name, "", _TRACER, {}, {}, {}, {}, None).scope(attributes, kind=kind)


def _after(producer: SpanContext, scope: SpanScope, relation: ConsumerRelation) -> SpanScope:
    context = without_span(context_api.get_current())
    if not producer.is_valid:
        return scope.under(context)
    if relation == "link":
        return scope.under(context).linked(producer)
    return scope.under(trace_api.set_span_in_context(trace_api.NonRecordingSpan(producer), context))


def _require_function(where: str, function: object) -> None:
    if not callable(function):
        raise TypeError(f"{where} needs a function, not {function!r}; pass its arguments after it")
    if inspect.iscoroutinefunction(function):
        raise TypeError(f"{where} needs a plain function; {function!r} is a coroutine function: spawn() it")


def _require_one_of(what: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{what} is {value!r}; it must be one of {', '.join(map(repr, allowed))}")


def _foreign_executors() -> tuple[type[Executor], ...]:
    # Looked up, not imported: whoever has such an executor has loaded its module, which is heavy.
    known = (
        ("concurrent.futures.process", "ProcessPoolExecutor"),
        ("concurrent.futures.interpreter", "InterpreterPoolExecutor"),
    )
    return tuple(getattr(sys.modules[module], name) for module, name in known if module in sys.modules)
