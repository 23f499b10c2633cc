"""The span of a generator is current in its body and nowhere else, and ends once however it ends."""

from __future__ import annotations

import asyncio
import contextvars
import gc
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import Any

import pytest
from opentelemetry import trace

from mapek_runtime import traced
from mapek_runtime.trace import use_provider
from tests.unit.trace.both import counted, parents

pytestmark = [pytest.mark.usefixtures("tracer"), pytest.mark.every_loop]

setting: contextvars.ContextVar[int] = contextvars.ContextVar("setting", default=0)

Numbers = Callable[[], AsyncGenerator[int, Any]]
SyncNumbers = Callable[[], Generator[int, Any, None]]


class Scene:
    """Nested generators with a span at each step, and a consumer with one between the items."""

    def __init__(self, tracer: trace.Tracer, depth: int) -> None:
        self.tracer = tracer
        self.depth = depth
        self.gate = asyncio.Event()
        self.stale: list[int] = []
        self._items = 0

    def between(self) -> None:
        self._items += 1
        setting.set(self._items)
        self.span("between")

    def span(self, name: str) -> None:
        with self.tracer.start_as_current_span(name):
            pass

    def body(self, depth: int) -> None:
        self.span(f"body {depth}")
        if setting.get() != self._items:
            self.stale.append(setting.get())

    def numbers(self, depth: int | None = None, *, wait: bool = False) -> Numbers:
        level = self.depth if depth is None else depth

        @traced(f"generator {level}")
        async def numbers() -> AsyncGenerator[int, Any]:
            if level > 1:
                async for number in self.numbers(level - 1, wait=wait)():
                    self.body(level)
                    yield number
                    self.body(level)
                return
            for number in range(3):
                self.body(level)
                await asyncio.sleep(0)
                if wait and number == 1:
                    await self.gate.wait()
                yield number
                self.body(level)

        return numbers

    def sync_numbers(self, depth: int | None = None) -> SyncNumbers:
        level = self.depth if depth is None else depth

        @traced(f"generator {level}")
        def numbers() -> Generator[int, Any, None]:
            inner = self.sync_numbers(level - 1)() if level > 1 else range(3)
            for number in inner:
                self.body(level)
                yield number
                self.body(level)

        return numbers

    def check(self) -> None:
        """Every span ended once, where it belongs, and no ContextVar was frozen."""
        levels = range(1, self.depth + 1)
        assert {f"generator {n}": counted()[f"generator {n}"] for n in levels} == {
            f"generator {n}": 1 for n in levels
        }
        outer = {n: f"generator {n + 1}" for n in levels} | {self.depth: "consumer"}
        assert {n: parents(f"generator {n}") for n in levels} == {n: {outer[n]} for n in levels}
        assert {n: parents(f"body {n}") for n in levels} == {n: {f"generator {n}"} for n in levels}
        assert parents("between") == {"consumer"}
        assert parents("after") == {"consumer"}
        assert self.stale == []


async def exhausted(scene: Scene) -> None:
    async for _ in scene.numbers()():
        scene.between()


async def left_by_break(scene: Scene) -> None:
    async for _ in scene.numbers()():
        scene.between()
        break


async def left_by_return(scene: Scene) -> None:
    async def first() -> int | None:
        async for number in scene.numbers()():
            scene.between()
            return number
        return None

    assert await first() == 0


async def left_by_an_exception(scene: Scene) -> None:
    async def fail() -> None:
        async for _ in scene.numbers()():
            scene.between()
            raise LookupError

    with pytest.raises(LookupError):
        await fail()


async def closed_by_another_task(scene: Scene) -> None:
    generator = scene.numbers()()
    await anext(generator)
    scene.between()
    await asyncio.create_task(_close(generator))


async def stepped_by_a_task_each(scene: Scene) -> None:
    generator = scene.numbers()()

    async def step() -> None:
        await anext(generator)

    for _ in range(3):
        await asyncio.create_task(step())
        scene.between()
    with pytest.raises(StopAsyncIteration):
        await anext(generator)


async def collected(scene: Scene) -> None:
    generator = scene.numbers()()
    await anext(generator)
    scene.between()
    del generator


async def cancelled(scene: Scene) -> None:
    async def read() -> None:
        async for _ in scene.numbers(wait=True)():
            scene.between()

    # The consumer's context is its task's own: what it sets is not seen here.
    task = asyncio.create_task(read())
    for _ in range(10):
        await asyncio.sleep(0)
    task.cancel("enough")
    with pytest.raises(asyncio.CancelledError, match="enough"):
        await task
    assert task.cancelled()


async def _close(generator: AsyncGenerator[int, Any]) -> None:
    await generator.aclose()


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize(
    "ending",
    [
        exhausted,
        left_by_break,
        left_by_return,
        left_by_an_exception,
        closed_by_another_task,
        stepped_by_a_task_each,
        collected,
        cancelled,
    ],
)
async def test_an_async_generator_is_traced_rightly_however_it_ends(
    tracer: trace.Tracer, ending: Callable[[Scene], Awaitable[None]], depth: int
) -> None:
    scene = Scene(tracer, depth)

    with tracer.start_as_current_span("consumer"):
        await ending(scene)
        scene.span("after")
        gc.collect()
        for _ in range(3 * depth):
            await asyncio.sleep(0)
        gc.collect()
        scene.span("after")

    scene.check()


def sync_exhausted(scene: Scene) -> None:
    for _ in scene.sync_numbers()():
        scene.between()


def sync_left_by_break(scene: Scene) -> None:
    for _ in scene.sync_numbers()():
        scene.between()
        break


def sync_left_by_return(scene: Scene) -> None:
    def first() -> int | None:
        for number in scene.sync_numbers()():
            scene.between()
            return number
        return None

    assert first() == 0


def sync_left_by_an_exception(scene: Scene) -> None:
    def fail() -> None:
        for _ in scene.sync_numbers()():
            scene.between()
            raise LookupError

    with pytest.raises(LookupError):
        fail()


def sync_closed_in_another_context(scene: Scene) -> None:
    generator = scene.sync_numbers()()
    next(generator)
    scene.between()
    contextvars.Context().run(generator.close)


def sync_stepped_in_a_context_each(scene: Scene) -> None:
    generator = scene.sync_numbers()()
    for _ in range(3):
        contextvars.copy_context().run(next, generator)
        scene.between()
    assert contextvars.copy_context().run(next, generator, None) is None


def sync_collected(scene: Scene) -> None:
    generator = scene.sync_numbers()()
    next(generator)
    scene.between()
    del generator


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize(
    "ending",
    [
        sync_exhausted,
        sync_left_by_break,
        sync_left_by_return,
        sync_left_by_an_exception,
        sync_closed_in_another_context,
        sync_stepped_in_a_context_each,
        sync_collected,
    ],
)
def test_a_generator_is_traced_rightly_however_it_ends(
    tracer: trace.Tracer, ending: Callable[[Scene], None], depth: int
) -> None:
    scene = Scene(tracer, depth)

    def consume() -> None:
        with tracer.start_as_current_span("consumer"):
            ending(scene)
            gc.collect()
            scene.span("after")

    contextvars.copy_context().run(consume)

    scene.check()


@pytest.mark.parametrize("depth", [1, 3])
async def test_without_a_provider_a_traced_generator_is_the_generator(depth: int) -> None:
    with use_provider(trace.NoOpTracerProvider()):
        scene = Scene(trace.NoOpTracer(), depth)
        await exhausted(scene)
        sync_exhausted(scene)

    assert counted() == {}
    assert scene.stale == []
