"""A task that nobody waits for: its parent, its context, its errors, its life."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import random
import weakref
from collections.abc import Iterator
from typing import Any, cast

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import StatusCode

from mapek_runtime import BatchSpanProcessor
from mapek_runtime.export.memory import MemorySpanExporter
from mapek_runtime.trace import use_provider
from mapek_runtime.trace.handover import PARENT_ENDED, Relation, spawn
from tests.unit.trace.lineage import context_of, is_child_of, is_root, linked, named
from tests.unit.trace.traced import Traced

pytestmark = pytest.mark.every_loop

RESOURCE = Resource({"service.name": "tests"})
request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="none")


@pytest.fixture
def traced() -> Iterator[Traced]:
    traced = Traced(resource=RESOURCE)
    with use_provider(traced.provider):
        yield traced


async def work_in(tracer: trace.Tracer) -> str:
    with tracer.start_as_current_span("inside"):
        await asyncio.sleep(0)
    return "done"


@pytest.mark.every_loop(eager=False)
@pytest.mark.parametrize("ended", [False, True], ids=["the parent is open", "the parent has ended"])
@pytest.mark.parametrize("relation", ["child", "link", "detached"])
async def test_a_spawned_task_stands_to_its_parent_as_asked(
    traced: Traced, relation: Relation, ended: bool
) -> None:
    with traced.tracer.start_as_current_span("parent"):
        task = spawn(work_in(traced.tracer), name="task", relation=relation)
        if not ended:
            await asyncio.sleep(0)
    assert await task == "done"

    span, parent = named(traced, "task"), named(traced, "parent")
    stays = relation == "child" and not ended
    assert is_child_of(span, parent) is stays
    assert is_root(span) is not stays
    assert linked(span) == ([] if stays or relation == "detached" else [context_of(parent).span_id])
    assert (span.attributes or {}).get(PARENT_ENDED) is (True if relation == "child" and ended else None)
    assert is_child_of(named(traced, "inside"), span)


async def test_no_span_starts_after_the_end_of_its_parent(
    traced: Traced, anyio_backend: tuple[str, dict[str, object]]
) -> None:
    async def part(depth: int) -> None:
        with traced.tracer.start_as_current_span("part"):
            for _ in range(choose.randrange(3)):
                await asyncio.sleep(0)
            if depth:
                start(depth - 1)
                start(depth - 1)
            for _ in range(choose.randrange(3)):
                await asyncio.sleep(0)

    def start(depth: int) -> None:
        # An eager task comes back to this list before it is in it.
        tasks.append(spawn(part(depth)))

    choose = random.Random(7)
    tasks: list[asyncio.Task[None]] = []
    for _ in range(4):
        start(5)
    for task in tasks:  # it grows meanwhile
        await task

    spans = {context_of(span).span_id: span for span in traced.spans}
    late = [span for span in spans.values() if (span.attributes or {}).get(PARENT_ENDED)]
    children = [span for span in spans.values() if span.parent is not None]
    assert len(spans) == 2 * 4 * (2**6 - 1)
    # An eager task takes its first step inside its parent.
    assert bool(late) is ("loop_factory" not in anyio_backend[1])
    assert all(is_root(span) and linked(span)[0] in spans for span in late)
    for span in children:
        assert span.parent is not None
        # Equal where the clock does not tell them apart.
        assert cast("int", span.start_time) <= cast("int", spans[span.parent.span_id].end_time)
    assert any(span.name != "part" for span in children)


@pytest.mark.parametrize("relation", ["child", "link", "detached"])
async def test_the_context_of_a_spawned_task_is_that_of_its_creation(
    traced: Traced, relation: Relation
) -> None:
    async def work() -> tuple[str, object]:
        return request_id.get(), baggage.get_baggage("tenant")

    token = context.attach(baggage.set_baggage("tenant", "blue"))
    request_id.set("first")
    task = spawn(work(), relation=relation)
    request_id.set("second")
    context.detach(token)

    assert await task == ("first", "blue")


async def test_without_a_provider_a_detached_task_is_detached_all_the_same() -> None:
    traced = Traced(resource=RESOURCE)  # used by its tracer alone, in force for nobody
    with traced.tracer.start_as_current_span("parent"):
        await spawn(work_in(traced.tracer), relation="detached")
        await spawn(work_in(traced.tracer), relation="child")

    parent = named(traced, "parent")
    assert [is_child_of(span, parent) for span in traced.spans] == [False, True, False]


@pytest.mark.every_loop(eager=False)
async def test_under_the_provider_of_the_sdk_a_late_child_is_a_linked_root() -> None:
    memory = MemorySpanExporter()
    processor = BatchSpanProcessor(memory)
    provider = sdk.TracerProvider(resource=RESOURCE, shutdown_on_exit=False)
    provider.add_span_processor(processor)
    with use_provider(provider):
        with provider.get_tracer("x").start_as_current_span("parent") as parent:
            task = spawn(asyncio.sleep(0), name="task")
        await task
    await processor.ashutdown(10)

    (span,) = (span for span in memory.finished_spans if span.name == "task")
    assert is_root(span)
    assert linked(span) == [parent.get_span_context().span_id]
    assert (span.attributes or {})[PARENT_ENDED] is True


async def test_a_child_of_an_unsampled_span_is_not_sampled_late_or_not() -> None:
    traced = Traced(sampler=ALWAYS_OFF, resource=RESOURCE)
    with use_provider(traced.provider):
        with traced.tracer.start_as_current_span("parent") as parent:
            task = spawn(_trace_id())
        assert await task == parent.get_span_context().trace_id

    assert traced.spans == ()


async def _trace_id() -> int:
    return trace.get_current_span().get_span_context().trace_id


async def test_a_spawned_task_is_held_until_it_is_done_and_no_longer(traced: Traced) -> None:
    async def wait() -> None:
        # Nobody else knows this future, so the two hold each other and nothing holds them.
        await asyncio.get_running_loop().create_future()

    spawned = weakref.ref(spawn(wait()))
    await asyncio.sleep(0)
    gc.collect()
    task = spawned()
    assert task is not None

    task.cancel()
    await asyncio.wait([task])
    del task
    await asyncio.sleep(0)
    gc.collect()
    assert spawned() is None


async def test_an_error_of_a_spawned_task_is_logged_once_and_recorded(
    traced: Traced, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail() -> None:
        raise LookupError("no such node")

    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, what: reported.append(what))
    with caplog.at_level(logging.DEBUG):
        task = spawn(fail(), name="refresh")
        await asyncio.wait([task])
        del task
        await asyncio.sleep(0)
        gc.collect()

    (record,) = (record for record in caplog.records if record.levelno >= logging.WARNING)
    assert record.getMessage() == "spawned task 'refresh' failed"
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], LookupError)
    assert reported == []
    assert traced.one().status.status_code is StatusCode.ERROR
    assert [event.name for event in traced.one().events] == ["exception"]


async def test_whoever_awaits_a_spawned_task_gets_its_error(traced: Traced) -> None:
    async def fail() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        await spawn(fail())


async def test_in_a_group_the_error_is_the_groups(traced: Traced, caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise LookupError

    with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012 - the group is what raises
        async with asyncio.TaskGroup() as group:
            other = spawn(asyncio.sleep(3600), name="other", group=group)
            _ = spawn(fail(), group=group)

    assert caught.group_contains(LookupError)
    assert other.cancelled()
    assert [r for r in caplog.records if r.name.startswith("mapek_runtime")] == []
    assert (named(traced, "other").attributes or {})["asyncio.cancelled"] is True


@pytest.mark.every_loop(eager=False)
async def test_a_task_cancelled_before_its_first_step_leaves_no_warning_and_no_span(traced: Traced) -> None:
    task = spawn(work_in(traced.tracer))
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    del task
    gc.collect()  # a coroutine that was never awaited would warn, and warnings are errors

    assert traced.spans == ()


def test_an_eager_task_is_a_child_and_leaves_its_parent_current(traced: Traced) -> None:
    factory = getattr(asyncio, "eager_task_factory", None)
    if factory is None:
        pytest.skip("eager tasks came with Python 3.12")

    async def main() -> trace.Span:
        asyncio.get_running_loop().set_task_factory(factory)
        with traced.tracer.start_as_current_span("parent") as parent:
            task = spawn(work_in(traced.tracer), name="task")
            assert trace.get_current_span() is parent
        assert await task == "done"
        return parent

    parent = asyncio.run(main())

    assert is_child_of(named(traced, "task"), cast("sdk.ReadableSpan", parent))
    assert is_child_of(named(traced, "inside"), named(traced, "task"))


async def test_wrong_arguments_of_spawn_are_named_and_leave_no_second_warning() -> None:
    group = asyncio.TaskGroup()

    with pytest.raises(TypeError, match=r"needs a coroutine, not .*; call the function: spawn\(work\(\)\)"):
        _ = spawn(cast("Any", work_in))
    with pytest.raises(
        ValueError, match="relation is 'parent'; it must be one of 'child', 'link', 'detached'"
    ):
        _ = spawn(asyncio.sleep(0), relation=cast("Any", "parent"))
    with pytest.raises(TypeError, match=r"group is 3; it must be an asyncio\.TaskGroup"):
        _ = spawn(asyncio.sleep(0), group=cast("Any", 3))
    with pytest.raises(RuntimeError, match="has not been entered"):
        _ = spawn(asyncio.sleep(0), group=group)
    gc.collect()


def test_without_a_running_loop_spawn_says_so() -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        _ = spawn(asyncio.sleep(0))
    gc.collect()
