"""Work handed to another thread or through a queue keeps its place in the trace."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import multiprocessing
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any, cast

import pytest
from opentelemetry import trace
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import StatusCode

from mapek_runtime import SpanGroup
from mapek_runtime.errors import SpanReused
from mapek_runtime.trace import use_provider
from mapek_runtime.trace.handover import TracedQueue, run_in_executor, thread
from tests.unit.trace.lineage import context_of, is_child_of, is_root, linked, named
from tests.unit.trace.traced import Traced

pytestmark = pytest.mark.every_loop

RESOURCE = Resource({"service.name": "tests"})
jobs = SpanGroup("handover_jobs")
request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="none")


@jobs.span
def process(job: str, size: int = 0) -> None:
    """A job was worked on."""


@pytest.fixture
def traced() -> Iterator[Traced]:
    traced = Traced(resource=RESOURCE)
    with use_provider(traced.provider):
        yield traced


# The six hand-overs


async def by_create_task(work: Callable[[], None]) -> None:
    async def task() -> None:
        work()

    await asyncio.create_task(task())


async def by_to_thread(work: Callable[[], None]) -> None:
    await asyncio.to_thread(work)


async def by_call_soon(work: Callable[[], None]) -> None:
    done = asyncio.Event()
    asyncio.get_running_loop().call_soon(work)
    asyncio.get_running_loop().call_soon(done.set)
    await done.wait()


async def by_run_in_executor(work: Callable[[], None]) -> None:
    with ThreadPoolExecutor(1) as pool:
        # The pool's thread exists before: what it was started in says nothing.
        await asyncio.get_running_loop().run_in_executor(pool, int)
        await run_in_executor(None, pool, work)


async def by_thread(work: Callable[[], None]) -> None:
    started = thread(work)
    started.start()
    await asyncio.to_thread(started.join)


async def by_queue(work: Callable[[], None]) -> None:
    queue = TracedQueue[Callable[[], None]]()

    async def worker() -> None:
        async with queue.consume("consume", relation="parent") as (item, _):
            item()

    running = asyncio.create_task(worker(), context=contextvars.Context())
    await queue.put(work)
    await running


@pytest.mark.parametrize(
    "hand_over", [by_create_task, by_to_thread, by_call_soon, by_run_in_executor, by_thread, by_queue]
)
async def test_a_hand_over_keeps_the_parent(
    traced: Traced, hand_over: Callable[[Callable[[], None]], Awaitable[None]]
) -> None:
    def work() -> None:
        with traced.tracer.start_as_current_span("work"):
            pass

    with traced.tracer.start_as_current_span("producer"):
        await hand_over(work)

    if hand_over is by_queue:
        assert is_child_of(named(traced, "work"), named(traced, "consume"))
        assert is_child_of(named(traced, "consume"), named(traced, "producer"))
    else:
        assert is_child_of(named(traced, "work"), named(traced, "producer"))


# Threads and executors


async def test_an_executor_gives_back_what_the_function_returns_and_raises(traced: Traced) -> None:
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1) as pool:
        assert await run_in_executor(loop, pool, divmod, 7, 2) == (3, 1)
        with pytest.raises(ZeroDivisionError):
            await run_in_executor(None, None, divmod, 7, 0)


async def test_calls_of_one_executor_have_a_context_each(traced: Traced) -> None:
    def work(number: int) -> str:
        barrier.wait(10)
        seen = request_id.get()
        request_id.set("changed")
        with traced.tracer.start_as_current_span(f"work {number}"):
            return seen

    barrier = threading.Barrier(4)
    waiting = []
    with ThreadPoolExecutor(4) as pool:
        for number in range(4):
            request_id.set(f"request {number}")
            with traced.tracer.start_as_current_span(f"caller {number}"):
                waiting.append(run_in_executor(None, pool, work, number))
        seen = await asyncio.gather(*waiting)

    assert seen == [f"request {number}" for number in range(4)]
    assert request_id.get() == "request 3"
    for number in range(4):
        assert is_child_of(named(traced, f"work {number}"), named(traced, f"caller {number}"))


def test_a_thread_has_the_context_of_its_creation_not_of_its_start(traced: Traced) -> None:
    def work(*numbers: int, name: str) -> None:
        with traced.tracer.start_as_current_span(f"{name} {sum(numbers)}"):
            pass

    with traced.tracer.start_as_current_span("creator"):
        made = thread(work, 1, 2, name="work")
    with traced.tracer.start_as_current_span("starter"):
        made.start()
        made.join()

    assert is_child_of(named(traced, "work 3"), named(traced, "creator"))


def test_a_thread_is_named_after_its_target_and_not_started() -> None:
    made = thread(divmod, 7, 2)

    assert "divmod" in made.name
    assert made.ident is None


async def test_what_a_context_cannot_reach_is_refused() -> None:
    async def coroutine() -> None: ...

    with (
        ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool,
        pytest.raises(TypeError, match=r"cannot carry the context to .*inject\(\)"),
    ):
        await run_in_executor(None, pool, int)
    with pytest.raises(TypeError, match=r"plain function; .* is a coroutine function"):
        await run_in_executor(None, None, cast("Any", coroutine))
    with pytest.raises(TypeError, match=r"plain function; .* is a coroutine function"):
        thread(cast("Any", coroutine))
    with pytest.raises(TypeError, match="thread needs a function, not 3"):
        thread(cast("Any", 3))


def test_partial_and_bound_functions_can_be_handed_over() -> None:
    seen: list[int] = []
    for function in (functools.partial(seen.append, 1), lambda: seen.append(2)):
        made = thread(function)
        made.start()
        made.join()

    assert seen == [1, 2]


# Queues


async def working(queue: TracedQueue[str], items: int, **options: Any) -> None:
    for _ in range(items):
        async with queue.consume("consume", **options) as (item, span):
            span.set_attribute("item", item)
            await asyncio.sleep(0)


def consumed(traced: Traced) -> dict[str, sdk.ReadableSpan]:
    return {str((s.attributes or {})["item"]): s for s in traced.spans if s.name == "consume"}


@pytest.mark.parametrize("relation", ["link", "parent"])
async def test_a_consumer_stands_to_the_producer_and_never_to_the_span_the_worker_was_born_in(
    traced: Traced, relation: str
) -> None:
    queue = TracedQueue[str](maxsize=2)
    with traced.tracer.start_as_current_span("startup"):
        worker = asyncio.create_task(working(queue, 6, relation=relation))
    for name in "abc":
        with traced.tracer.start_as_current_span(f"producer {name}"):
            await queue.put(f"{name}1")
            await queue.put(f"{name}2")
    await worker
    async with asyncio.timeout(10):
        await queue.join()

    spans = consumed(traced)
    assert len(spans) == 6
    for item, span in spans.items():
        producer = named(traced, f"producer {item[0]}")
        assert span.kind is trace.SpanKind.CONSUMER
        if relation == "parent":
            assert is_child_of(span, producer)
            assert linked(span) == []
        else:
            assert is_root(span)
            assert context_of(span).trace_id != context_of(producer).trace_id
            assert linked(span) == [context_of(producer).span_id]


async def test_linked_is_what_a_consumer_is_by_default(traced: Traced) -> None:
    queue = TracedQueue[str]()
    with traced.tracer.start_as_current_span("producer"):
        queue.put_nowait("a")

    await working(queue, 1)

    assert linked(traced.spans[-1]) == [context_of(named(traced, "producer")).span_id]


@pytest.mark.parametrize("relation", ["link", "parent"])
async def test_an_item_put_in_outside_any_span_has_a_root_without_link(traced: Traced, relation: str) -> None:
    queue = TracedQueue[str]()
    queue.put_nowait("a")
    with traced.tracer.start_as_current_span("worker"):
        await working(queue, 1, relation=relation)

    assert is_root(consumed(traced)["a"])
    assert linked(consumed(traced)["a"]) == []


async def test_a_producer_that_waits_for_room_keeps_its_span(traced: Traced) -> None:
    async def produce(name: str) -> None:
        with traced.tracer.start_as_current_span(f"producer {name}"):
            await queue.put(name)

    queue = TracedQueue[str](maxsize=1)
    async with asyncio.TaskGroup() as group:
        for number in range(20):
            group.create_task(produce(str(number)))
        group.create_task(working(queue, 10))
        group.create_task(working(queue, 10))

    for item, span in consumed(traced).items():
        assert linked(span) == [context_of(named(traced, f"producer {item}")).span_id]
    assert len(consumed(traced)) == 20


async def test_get_and_consume_of_one_queue_do_not_mix_up_producers(traced: Traced) -> None:
    queue = TracedQueue[str]()
    for name in "abc":
        with traced.tracer.start_as_current_span(f"producer {name}"):
            queue.put_nowait(name)

    assert await queue.get() == "a"
    await working(queue, 1)
    assert queue.get_nowait() == "c"

    assert linked(consumed(traced)["b"]) == [context_of(named(traced, "producer b")).span_id]
    assert queue.empty()


async def test_a_declared_span_serves_a_consumer(traced: Traced) -> None:
    queue = TracedQueue[str]()
    with traced.tracer.start_as_current_span("producer"):
        queue.put_nowait("a")

    async with queue.consume(process("first"), relation="parent") as (item, span):
        span.set(size=len(item))

    span = named(traced, "handover_jobs.process")
    assert span.attributes == {"job": "first", "size": 1}
    assert is_child_of(span, named(traced, "producer"))


async def test_a_consumer_that_fails_has_done_its_task_and_is_an_error(traced: Traced) -> None:
    queue = TracedQueue[str]()
    queue.put_nowait("a")

    with pytest.raises(LookupError):
        async with queue.consume("consume"):
            raise LookupError

    async with asyncio.timeout(10):
        await queue.join()
    assert traced.one().status.status_code is StatusCode.ERROR


async def test_a_consumer_cancelled_while_it_waits_takes_nothing_and_has_no_span(traced: Traced) -> None:
    queue = TracedQueue[str]()
    worker = asyncio.create_task(working(queue, 1))
    await asyncio.sleep(0)

    worker.cancel()
    with pytest.raises(asyncio.CancelledError):
        await worker
    queue.put_nowait("a")

    assert queue.qsize() == 1
    assert traced.spans == ()


async def test_a_wrong_consumer_is_refused_before_an_item_is_taken(traced: Traced) -> None:
    queue = TracedQueue[str]()
    queue.put_nowait("a")
    used = process("x")
    with used:
        pass

    with pytest.raises(ValueError, match="relation is 'child'; it must be one of 'link', 'parent'"):
        queue.consume("x", relation=cast("Any", "child"))
    with pytest.raises(TypeError, match="name of a span or a declared span, not 3"):
        queue.consume(cast("Any", 3))
    with pytest.raises(SpanReused, match="entered before"):
        queue.consume(used)

    assert queue.qsize() == 1
