"""A scope is current for one task, ends once, and never leaves the next span a wrong parent."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator

import pytest
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from mapek_runtime import TracerProvider, traced
from mapek_runtime.errors import SpanReused
from mapek_runtime.trace import use_provider

pytestmark = pytest.mark.every_loop

exporter = InMemorySpanExporter()
provider = TracerProvider(shutdown_on_exit=False)
provider.add_span_processor(SimpleSpanProcessor(exporter))
tracer = provider.get_tracer("tests")


@pytest.fixture(autouse=True)
def _clean() -> None:
    exporter.clear()


def finished() -> dict[str, sdk.ReadableSpan]:
    return {span.name: span for span in exporter.get_finished_spans()}


def parent_name(name: str) -> str | None:
    spans = finished()
    parent = spans[name].parent
    if parent is None:
        return None
    return next(s.name for s in spans.values() if s.context and s.context.span_id == parent.span_id)


async def test_one_scope_serves_as_async_with() -> None:
    async with tracer.start_as_current_span("outer"):  # type: ignore[attr-defined]
        await asyncio.sleep(0)
        with tracer.start_as_current_span("inner"):
            pass

    assert parent_name("inner") == "outer"


def test_a_scope_is_entered_once() -> None:
    scope = tracer.start_as_current_span("x")
    with scope:
        pass

    with pytest.raises(SpanReused, match=r"'x' was entered before"), scope:
        pass


async def test_tasks_inherit_the_span_they_were_born_in() -> None:
    async def child(name: str) -> None:
        with tracer.start_as_current_span(name):
            await asyncio.sleep(0)

    with tracer.start_as_current_span("outer"):
        async with asyncio.TaskGroup() as group:
            for number in range(10):
                group.create_task(child(f"child {number}"))

    assert {parent_name(f"child {n}") for n in range(10)} == {"outer"}


async def test_a_decorated_coroutine_is_measured_while_it_is_awaited() -> None:
    gate = asyncio.Event()

    @tracer.start_as_current_span("work")
    async def work() -> str:
        await gate.wait()
        with tracer.start_as_current_span("inside"):
            return "done"

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    assert "work" not in finished()
    gate.set()

    assert await task == "done"
    assert parent_name("inside") == "work"


async def test_each_call_of_a_decorated_function_is_a_span_of_its_own() -> None:
    @traced("work", attributes={"a": 1})
    async def work() -> int:
        await asyncio.sleep(0)
        return trace.get_current_span().get_span_context().span_id

    with use_provider(provider):
        ids = await asyncio.gather(*(work() for _ in range(20)))

    assert len(set(ids)) == 20
    assert all(dict(s.attributes or {}) == {"a": 1} for s in exporter.get_finished_spans())


def test_traced_keeps_the_functions_face() -> None:
    @traced
    def add(a: int, b: int = 2) -> int:
        "Adds."
        return a + b

    with use_provider(provider):
        assert add(1) == 3

    assert add.__doc__ == "Adds."
    assert "add" in next(iter(finished()))


async def test_a_cancelled_block_is_marked_and_cancellation_goes_on() -> None:
    async def work() -> None:
        with tracer.start_as_current_span("work"):
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel("enough")
    with pytest.raises(asyncio.CancelledError):
        await task

    done = finished()["work"]
    assert task.cancelled()
    assert dict(done.attributes or {}) == {"asyncio.cancelled": True, "asyncio.cancelled.message": "enough"}
    assert done.status.status_code is StatusCode.UNSET
    assert done.events == ()


async def test_a_generator_closed_by_another_task_leaves_no_wrong_parent(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def numbers() -> AsyncIterator[int]:
        with tracer.start_as_current_span("generator"):
            yield 1
            yield 2

    generator = numbers()

    async def read_one() -> None:
        await anext(generator)

    await asyncio.create_task(read_one())

    async def close() -> None:
        await generator.aclose()  # type: ignore[attr-defined]

    await asyncio.create_task(close())
    with tracer.start_as_current_span("after"):
        pass

    assert parent_name("after") is None
    assert "generator" in finished()
    assert caplog.records == []


def test_a_scope_left_in_another_context_is_passed_over_where_it_was_entered() -> None:
    here = contextvars.copy_context()
    elsewhere = contextvars.copy_context()
    scope = tracer.start_as_current_span("moved")
    here.run(scope.__enter__)

    elsewhere.run(scope.__exit__, None, None, None)

    assert "moved" in finished()
    assert here.run(trace.get_current_span) is trace.INVALID_SPAN
    after = here.run(lambda: tracer.start_span("after"))
    assert isinstance(after, sdk.Span)
    assert after.parent is None


def test_a_scope_can_be_put_under_another_context_and_linked() -> None:
    with tracer.start_as_current_span("first") as first:
        scope = tracer.start_as_current_span("second")
        scope.under(Context()).linked(first.get_span_context(), None)  # type: ignore[attr-defined]
        with scope:
            pass

    second = finished()["second"]
    assert second.parent is None
    assert [link.context for link in second.links] == [first.get_span_context()]


def test_a_span_that_is_not_ended_on_exit_stays_open() -> None:
    with tracer.start_as_current_span("x", end_on_exit=False) as span:
        pass

    assert span.is_recording()
    assert finished() == {}
    span.end()
    assert "x" in finished()
