"""An ended span keeps nothing alive: no parent, no context, no token, no frame; and leaves no garbage.

Ended spans wait in queues, and stay current in the tasks that were born in them: whatever each keeps
of the one before it would add up for as long as the program runs.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import types
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from opentelemetry import baggage, trace
from opentelemetry import context as context_api
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import Link

from mapek_runtime import SpanGroup, TracerProvider
from mapek_runtime.trace import use_provider
from tests.unit.trace.traced import Traced

provider = TracerProvider(shutdown_on_exit=False)
tracer = provider.get_tracer("tests")
group = SpanGroup("test")


@group.span("work", elapsed="duration_ms")
def declared() -> None:
    """Some work."""


def _fail() -> None:
    raise ValueError("no")


def in_a_block() -> Any:
    with tracer.start_as_current_span("x", attributes={"a": 1}) as span:
        pass
    return span


def by_hand() -> Any:
    span = tracer.start_span("x")
    span.end()
    return span


def by_hand_in_a_block() -> Any:
    with tracer.start_span("x") as span:
        pass
    return span


def under_a_context_that_was_given() -> Any:
    span = tracer.start_span("x", context=context_api.get_current(), links=[Link(_link())])
    span.end()
    return span


def in_a_block_under_a_context() -> Any:
    with tracer.start_as_current_span("x", context=context_api.get_current()) as span:
        span.end()
    return span


def with_an_error() -> Any:
    with suppress(ValueError), tracer.start_as_current_span("x") as span:
        _fail()
    return span


def with_a_late_end() -> Any:
    with tracer.start_as_current_span("x", end_on_exit=False) as span:
        pass
    span.end()
    return span


def used() -> Any:
    span = tracer.start_span("x")
    with trace.use_span(span, end_on_exit=True):
        pass
    return span


def in_a_declared_block() -> Any:
    with use_provider(provider), declared() as span:
        pass
    return span


def in_another_context() -> Any:
    scope = tracer.start_as_current_span("x")
    contextvars.copy_context().run(scope.__enter__)
    scope.__exit__(None, None, None)
    return scope


WAYS: list[Callable[[], Any]] = [
    in_a_block,
    by_hand,
    by_hand_in_a_block,
    under_a_context_that_was_given,
    in_a_block_under_a_context,
    with_an_error,
    with_a_late_end,
    used,
    in_a_declared_block,
]
PARENTS = ["in its block", "through a context", "with baggage"]


def _link() -> trace.SpanContext:
    return trace.get_current_span().get_span_context()


def beneath(parent: str, make: Callable[[], Any]) -> tuple[Any, weakref.ref[Any]]:
    """What `make` gives, run beneath a span; and a reference to that span."""
    if parent == "in its block":
        with tracer.start_as_current_span("parent") as above:
            return make(), weakref.ref(above)
    above = tracer.start_span("parent")
    context = trace.set_span_in_context(above)
    token = context_api.attach(baggage.set_baggage("a", "b", context) if "baggage" in parent else context)
    try:
        return make(), weakref.ref(above)
    finally:
        context_api.detach(token)
        above.end()


@pytest.fixture(autouse=True)
def _nothing_is_left_to_the_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("parent", PARENTS)
@pytest.mark.parametrize("make", WAYS, ids=lambda way: str(way.__name__).replace("_", " "))
def test_an_ended_span_does_not_keep_its_parent(make: Callable[[], Any], parent: str) -> None:
    span, above = beneath(parent, make)

    assert above() is None, gc.get_referrers(above())
    assert not span.is_recording()


@pytest.mark.parametrize(
    "make", [*WAYS, in_another_context], ids=lambda way: str(way.__name__).replace("_", " ")
)
def test_an_ended_span_refers_to_no_token_context_of_python_traceback_or_frame(
    make: Callable[[], Any],
) -> None:
    span = make()
    kinds = (contextvars.Token, contextvars.Context, types.TracebackType, types.FrameType, BaseException)

    assert [held for held in gc.get_referents(span) if isinstance(held, kinds)] == []
    assert [held for held in span.__dict__.values() if isinstance(held, kinds)] == []


@pytest.mark.parametrize("make", WAYS, ids=lambda way: str(way.__name__).replace("_", " "))
def test_a_span_that_has_ended_leaves_no_garbage(make: Callable[[], Any]) -> None:
    make()
    gc.collect()
    for _ in range(3):
        make()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        assert gc.garbage == []
    finally:
        gc.set_debug(0)
        gc.garbage.clear()


def test_a_span_that_nobody_samples_leaves_no_garbage_and_keeps_no_parent() -> None:
    off = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False).get_tracer("tests")
    with off.start_as_current_span("outer") as outer, off.start_as_current_span("inner") as inner:
        pass
    above = weakref.ref(outer)
    del outer

    assert above() is None
    assert not inner.is_recording()


def _alive() -> int:
    return sum(type(each).__name__ in ("Span", "DroppedSpan") for each in gc.get_objects())


async def _generation(left: int, begin: Callable[[], Any], last: asyncio.Future[int]) -> None:
    with begin():
        if left:
            asyncio.get_running_loop().call_soon(_next, left - 1, begin, last)
        else:
            gc.collect()
            last.set_result(_alive())


def _next(left: int, begin: Callable[[], Any], last: asyncio.Future[int]) -> None:
    _running.add(task := asyncio.get_running_loop().create_task(_generation(left, begin, last)))
    task.add_done_callback(_running.discard)


async def _alive_after(generations: int, begin: Callable[[], Any]) -> int:
    """How many spans there are in the last of so many generations, each begun by the one before."""
    last: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    _next(generations, begin, last)
    return await last


_running: set[asyncio.Task[None]] = set()


def _block() -> Any:
    return tracer.start_as_current_span("x")


def _current() -> Any:
    return trace.use_span(tracer.start_span("x"), end_on_exit=True)


def _given() -> Any:
    return trace.use_span(tracer.start_span("x", context=context_api.get_current()), end_on_exit=True)


def _given_block() -> Any:
    return tracer.start_as_current_span("x", context=context_api.get_current())


class _Moved:
    """Entered in the task's context, and left in another."""

    def __enter__(self) -> None:
        self.scope = tracer.start_as_current_span("x")
        self.scope.__enter__()

    def __exit__(self, *error: object) -> None:
        contextvars.copy_context().run(self.scope.__exit__, None, None, None)


@pytest.mark.parametrize("begin", [_block, _current, _given, _given_block, _Moved])
async def test_generations_that_beget_one_another_do_not_add_up(begin: Callable[[], Any]) -> None:
    gc.enable()

    assert await _alive_after(2000, begin) <= await _alive_after(20, begin) + 10


@pytest.mark.slow
async def test_a_million_generations_do_not_grow() -> None:
    gc.enable()

    assert await _alive_after(1_000_000, _current) <= await _alive_after(20, _current) + 10


def test_an_attribute_that_comes_as_the_span_ends_changes_nothing_any_more() -> None:
    """Which would break whoever encodes it at that moment."""

    class Key:
        """A key whose text takes so long that the span ends meanwhile."""

        def __str__(self) -> str:
            other = threading.Thread(target=spans[-1].end)
            other.start()
            other.join()
            return "late"

    spans: list[Any] = []
    traced = Traced()
    spans.append(traced.tracer.start_span("x"))
    odd: Any = {Key(): 1}
    spans[-1].set_attributes(odd)

    assert dict(traced.one().attributes or {}) == {}


def test_what_was_read_of_an_ended_span_is_not_changed_by_anybody() -> None:
    span: Any = tracer.start_span("x", attributes={"a": 1})
    span.end()
    read = span.attributes
    # As a thread does that found the span open a moment ago.
    span._attributes["late"] = 1

    assert dict(read) == {"a": 1}
