"""A traced generator is stepped, closed and collected as it would be without its span."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import types
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from typing import Any

import pytest
from opentelemetry import baggage, trace
from opentelemetry import context as context_api
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import StatusCode

from mapek_runtime import TracerProvider, traced
from mapek_runtime.trace import use_provider
from tests.unit.trace.both import counted, one, ours, parents

pytestmark = [pytest.mark.usefixtures("tracer"), pytest.mark.every_loop]


def test_the_span_begins_at_the_first_step(tracer: trace.Tracer) -> None:
    @traced("generator")
    def numbers() -> Iterator[int]:
        yield 1

    unstarted = numbers()
    generator = numbers()
    with tracer.start_as_current_span("consumer"):
        assert list(generator) == [1]
    del unstarted

    assert counted() == {"generator": 1, "consumer": 1}
    assert parents("generator") == {"consumer"}


async def test_an_async_generator_gets_what_is_sent_and_thrown() -> None:
    heard: list[object] = []

    @traced("echo")
    async def echo() -> AsyncGenerator[object, object]:
        answer: object = "ready"
        while True:
            try:
                answer = yield answer
            except LookupError as error:
                answer = f"caught {error}"
            except GeneratorExit:
                heard.append("closed")
                raise

    generator = echo()

    assert await generator.asend(None) == "ready"
    assert await generator.asend(1) == 1
    assert await generator.athrow(LookupError("x")) == "caught x"
    await generator.aclose()
    assert heard == ["closed"]
    assert one("echo").events == ()


def test_a_generator_gets_what_is_sent_and_thrown_and_gives_back_its_value() -> None:
    @traced("echo")
    def echo() -> Generator[object, object, str]:
        answer: object = "ready"
        while answer != "stop":
            try:
                answer = yield answer
            except (LookupError, GeneratorExit) as error:
                answer = f"caught {error!r}"
        return "done"

    generator = echo()

    assert next(generator) == "ready"
    assert generator.send(1) == 1
    assert generator.throw(LookupError("x")) == "caught LookupError('x')"
    assert generator.throw(GeneratorExit()) == "caught GeneratorExit()"
    with pytest.raises(StopIteration) as stop:
        generator.send("stop")
    assert stop.value.value == "done"
    assert one("echo").status.status_code is StatusCode.UNSET


async def test_an_exception_is_recorded_once_on_the_generator_it_leaves() -> None:
    @traced("generator")
    async def numbers() -> AsyncIterator[int]:
        yield 1
        raise LookupError("lost")

    with pytest.raises(LookupError, match="lost"):
        [number async for number in numbers()]

    span = one("generator")
    assert [event.name for event in span.events] == ["exception"]
    assert span.status.status_code is StatusCode.ERROR


async def test_a_generator_cancelled_in_its_body_is_marked_and_no_error() -> None:
    with use_provider(ours):

        @traced("generator")
        async def numbers() -> AsyncIterator[int]:
            await asyncio.Event().wait()
            yield 1

        task = asyncio.ensure_future(anext(numbers()))
        await asyncio.sleep(0)
        task.cancel("enough")
        with pytest.raises(asyncio.CancelledError):
            await task

    span = one("generator")
    assert dict(span.attributes or {}) == {"asyncio.cancelled": True, "asyncio.cancelled.message": "enough"}
    assert span.status.status_code is StatusCode.UNSET
    assert span.events == ()


def test_an_unsampled_generator_is_current_in_its_body_and_not_between() -> None:
    provider = TracerProvider(ALWAYS_OFF, shutdown_on_exit=False)

    @traced("generator")
    def ids() -> Iterator[int]:
        for _ in range(2):
            yield trace.get_current_span().get_span_context().span_id

    with use_provider(provider):
        seen = [(inside, trace.get_current_span()) for inside in ids()]

    first, second = seen
    assert first == second
    assert first[0] != 0
    assert first[1] is trace.INVALID_SPAN
    assert counted() == {}


def test_an_exception_thrown_through_a_generator_leaves_no_cycle() -> None:
    @traced("generator")
    def numbers() -> Generator[int, None, None]:
        yield 1

    generator = numbers()
    next(generator)

    def throw() -> weakref.ref[LookupError]:
        class Lost(LookupError):
            pass

        error = Lost()
        known = weakref.ref[LookupError](error)
        try:
            generator.throw(error)
        except Lost:
            del error
        return known

    gc.disable()
    try:
        known = throw()
        # The span of the SDK keeps no exception, and the frame of the generator neither.
        assert known() is None
    finally:
        gc.enable()


async def test_a_body_that_will_not_close_ends_its_span_when_it_is_collected() -> None:
    @traced("stubborn")
    def stubborn() -> Iterator[int]:
        try:
            yield 1
        except GeneratorExit:
            yield 2

    generator = stubborn()
    next(generator)
    with pytest.raises(RuntimeError, match="ignored GeneratorExit"):
        generator.close()  # type: ignore[attr-defined]
    del generator
    gc.collect()

    assert counted() == {"stubborn": 1}


def test_an_item_belongs_to_the_consumer_alone() -> None:
    class Item:
        pass

    @traced("generator")
    def items() -> Iterator[Item]:
        yield Item()
        yield Item()

    generator = items()
    item = next(generator)
    known = weakref.ref(item)
    del item

    assert known() is None


async def test_a_span_that_a_body_holds_over_yields_stays_in_the_body(tracer: trace.Tracer) -> None:
    @traced("generator")
    async def numbers() -> AsyncIterator[int]:
        with tracer.start_as_current_span("held"):
            for number in range(3):
                yield number
                with tracer.start_as_current_span("inside"):
                    pass
        with tracer.start_as_current_span("later"):
            pass
        yield 3
        with tracer.start_as_current_span("later"):
            pass

    async for _ in numbers():
        with tracer.start_as_current_span("between"):
            pass

    assert counted()["inside"] == 3
    assert parents("held") == {"generator"}
    assert parents("inside") == {"held"}
    assert parents("later") == {"generator"}
    assert parents("between") == {None}


def test_the_body_sees_the_baggage_of_the_moment() -> None:
    seen: list[object] = []

    @traced("generator")
    def numbers() -> Iterator[int]:
        for number in range(3):
            seen.append(baggage.get_baggage("user"))
            seen.append(trace.get_current_span().get_span_context().span_id)
            yield number

    def consume() -> None:
        for number in numbers():
            context_api.attach(baggage.set_baggage("user", number))

    contextvars.copy_context().run(consume)

    context = one("generator").context
    assert context is not None
    assert seen == [None, context.span_id, 0, context.span_id, 1, context.span_id]


def test_the_body_sees_the_baggage_of_the_moment_again_after_it_held_a_span(tracer: trace.Tracer) -> None:
    seen: list[object] = []

    @traced("generator")
    def numbers() -> Iterator[int]:
        yield 0
        with tracer.start_as_current_span("held"):
            yield 1
            yield 2
        yield 3
        seen.append(baggage.get_baggage("user"))

    def consume() -> None:
        for number in numbers():
            context_api.attach(baggage.set_baggage("user", number))

    contextvars.copy_context().run(consume)

    assert seen == [3]


def test_a_step_that_is_resumed_in_another_context_leaves_no_wrong_parent(tracer: trace.Tracer) -> None:
    @types.coroutine
    def suspend() -> Iterator[None]:
        yield

    @traced("generator")
    async def numbers() -> AsyncIterator[int]:
        await suspend()
        yield 1

    here = contextvars.copy_context()
    generator = numbers()
    step: Any = anext(generator)
    here.run(step.send, None)
    elsewhere = here.copy()
    with pytest.raises(StopIteration):
        elsewhere.run(step.send, None)
    last: Any = anext(generator)
    with pytest.raises(StopAsyncIteration):
        elsewhere.run(last.send, None)

    assert elsewhere.run(trace.get_current_span) is trace.INVALID_SPAN
    assert counted() == {"generator": 1}
    if tracer is ours.get_tracer("tests"):
        # The stock SDK has no way to pass over an ended span.
        assert here.run(trace.get_current_span) is trace.INVALID_SPAN


def test_a_generator_that_outlives_its_loop_ends_its_span_when_it_is_collected() -> None:
    @traced("generator")
    async def numbers() -> AsyncGenerator[int, None]:
        yield 1

    async def step(generator: AsyncGenerator[int, None]) -> None:
        await anext(generator)

    generator = numbers()
    loop = asyncio.new_event_loop()
    loop.run_until_complete(step(generator))
    loop.close()
    del generator
    gc.collect()

    assert counted() == {"generator": 1}


async def test_the_loop_closes_what_is_left_at_its_end() -> None:
    closed: list[str] = []
    faults: list[dict[str, Any]] = []
    kept: list[object] = []

    @traced("generator")
    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            closed.append("closed")

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, fault: faults.append(fault))
        generator = numbers()
        kept.append(generator)
        await anext(generator)

    await asyncio.to_thread(asyncio.run, main())

    assert closed == ["closed"]
    assert faults == []
    assert counted() == {"generator": 1}
