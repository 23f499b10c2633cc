"""Parents are right for every program of nested, parallel and handed-over blocks."""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.resources import Resource

from mapek_runtime.trace import use_provider
from mapek_runtime.trace.handover import TracedQueue, run_in_executor, spawn
from tests.unit.trace.lineage import context_of
from tests.unit.trace.traced import Traced

RESOURCE = Resource({"service.name": "tests"})


# Blocks of several contexts, one step at a time, against a model


@dataclass(eq=False)
class Block:
    """What the model knows of a span."""

    number: int
    parent: Block | None
    below: Block | None
    """What the context held before; not the parent where the block was opened as a root."""
    link: Block | None = None
    left: bool = False
    """Left in another context: passed over wherever it is still current."""

    @property
    def root(self) -> int:
        return self.number if self.parent is None else self.parent.root


def resolve(block: Block | None) -> Block | None:
    while block is not None and block.left:
        block = block.below
    return block


@dataclass(eq=False)
class Task:
    """A context, what the model believes it holds, and the blocks that were opened in it."""

    context: contextvars.Context
    holds: Block | None = None
    opened: list[tuple[Block, Any]] = field(default_factory=list)


class Nesting(RuleBasedStateMachine):
    """Tasks open blocks, fork, and leave blocks: in order, and now and then in another task."""

    def __init__(self) -> None:
        super().__init__()
        self.traced = Traced(resource=RESOURCE)
        self.tasks = [Task(contextvars.Context())]
        self.blocks: list[Block] = []

    def pick(self, data: st.DataObject, *, open_only: bool = False) -> Task:
        return data.draw(st.sampled_from([t for t in self.tasks if t.opened or not open_only]))

    def open_block(self, task: Task, *, as_root: bool) -> None:
        current = resolve(task.holds)
        block = Block(
            len(self.blocks), None if as_root else current, task.holds, current if as_root else None
        )
        scope: Any = self.traced.tracer.start_as_current_span(str(block.number))
        if as_root:
            link = task.context.run(trace.get_current_span).get_span_context()
            scope.under(Context())
            if link.is_valid:
                scope.linked(link)
        task.context.run(scope.__enter__)
        self.blocks.append(block)
        task.holds = block
        task.opened.append((block, scope))

    @rule(data=st.data(), as_root=st.booleans())
    def opens(self, data: st.DataObject, as_root: bool) -> None:
        self.open_block(self.pick(data), as_root=as_root)

    @precondition(lambda self: any(task.opened for task in self.tasks))
    @rule(data=st.data())
    def leaves(self, data: st.DataObject) -> None:
        task = self.pick(data, open_only=True)
        self.leave(task)

    def leave(self, task: Task) -> None:
        block, scope = task.opened.pop()
        task.context.run(scope.__exit__, None, None, None)
        task.holds = block.below

    @precondition(lambda self: len(self.tasks) < 8)
    @rule(data=st.data())
    def forks(self, data: st.DataObject) -> None:
        task = self.pick(data)
        self.tasks.append(Task(task.context.copy(), task.holds))

    @precondition(lambda self: len(self.tasks) > 1 and any(task.opened for task in self.tasks))
    @rule(data=st.data())
    def leaves_in_another_task(self, data: st.DataObject) -> None:
        task = self.pick(data, open_only=True)
        other = data.draw(st.sampled_from([t for t in self.tasks if t is not task]))
        block, scope = task.opened.pop()
        other.context.run(scope.__exit__, None, None, None)
        if other.holds is block:
            other.holds = block.below
        block.left = True

    @invariant()
    def each_task_is_in_the_block_the_model_says(self) -> None:
        for task in self.tasks:
            current = task.context.run(trace.get_current_span)
            expected = resolve(task.holds)
            assert getattr(current, "name", None) == (None if expected is None else str(expected.number))

    def teardown(self) -> None:
        for task in self.tasks:
            while task.opened:
                self.leave(task)
        spans = {int(span.name): span for span in self.traced.spans}
        assert len(self.traced.spans) == len(spans) == len(self.blocks)
        for block in self.blocks:
            span = spans[block.number]
            assert trace_id(span) == trace_id(spans[block.root])
            assert parent_id(span) == (None if block.parent is None else span_id(spans[block.parent.number]))
            links = [] if block.link is None else [span_id(spans[block.link.number])]
            assert [link.context.span_id for link in span.links] == links


Nesting.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestNesting = Nesting.TestCase


def span_id(span: sdk.ReadableSpan) -> int:
    return int(context_of(span).span_id)


def trace_id(span: sdk.ReadableSpan) -> int:
    return int(context_of(span).trace_id)


def parent_id(span: sdk.ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


# Programs on a running loop: every block says how it is run and who its parent is to be

WAYS = ("awaited", "task", "executor", "queue", "spawned", "detached")


@dataclass(frozen=True)
class Part:
    """A block: how it is reached from the one around it, the turns it waits, the blocks in it."""

    way: str
    turns: int
    parts: tuple[Part, ...] = ()


parts = st.recursive(
    st.builds(Part, st.sampled_from(WAYS), st.integers(0, 3)),
    lambda inner: st.builds(
        Part, st.sampled_from(WAYS), st.integers(0, 3), st.lists(inner, max_size=4).map(tuple)
    ),
    max_leaves=12,
)


def count(part: Part, way: str) -> int:
    return (part.way == way) + sum(count(inner, way) for inner in part.parts)


class Program:
    """Runs parts, and notes for each span who its parent must be."""

    def __init__(self, tracer: trace.Tracer, pool: ThreadPoolExecutor) -> None:
        self.tracer = tracer
        self.pool = pool
        self.expected: dict[str, str | None] = {}
        self.queue: TracedQueue[tuple[Part, str, asyncio.Event]] = TracedQueue()

    async def run(self, part: Part) -> None:
        # The workers are there before the first item, born in a span that is none of their business.
        with self.tracer.start_as_current_span(self.note(None)):
            workers = [asyncio.create_task(self.work()) for _ in range(count(part, "queue"))]
        await self.start(part, None)
        await asyncio.gather(*workers)

    def note(self, parent: str | None) -> str:
        name = str(len(self.expected))
        self.expected[name] = parent
        return name

    async def work(self) -> None:
        async with self.queue.consume("queue", relation="parent") as ((part, name, done), span):
            span.update_name(name)
            await self.inside(part, name)
        done.set()

    async def start(self, part: Part, parent: str | None) -> None:
        name = self.note(None if part.way == "detached" else parent)
        if part.way == "queue":
            done = asyncio.Event()
            self.queue.put_nowait((part, name, done))
            await done.wait()
        elif part.way == "spawned":
            await spawn(self.inside(part, name), name=name)
        elif part.way == "detached":
            await spawn(self.inside(part, name), name=name, relation="detached")
        else:
            with self.tracer.start_as_current_span(name):
                await self.inside(part, name)

    async def inside(self, part: Part, name: str) -> None:
        for _ in range(part.turns):
            await asyncio.sleep(0)
        tasks = [asyncio.create_task(self.start(inner, name)) for inner in part.parts if inner.way == "task"]
        for inner in part.parts:
            if inner.way == "executor":
                await run_in_executor(None, self.pool, self.block, self.note(name))
                for further in inner.parts:
                    await self.start(further, name)
            elif inner.way != "task":
                await self.start(inner, name)
        await asyncio.gather(*tasks)

    def block(self, name: str) -> None:
        with self.tracer.start_as_current_span(name):
            pass


@pytest.mark.every_loop
@settings(max_examples=60, deadline=None)
@given(part=parts)
async def test_each_block_of_a_program_has_the_parent_it_was_written_in(part: Part) -> None:
    traced = Traced(resource=RESOURCE)
    with ThreadPoolExecutor(2) as pool, use_provider(traced.provider):
        program = Program(traced.tracer, pool)
        async with asyncio.timeout(30):
            await program.run(part)

    names = {span_id(span): span.name for span in traced.spans}
    parents = {
        span.name: None if span.parent is None else names[span.parent.span_id] for span in traced.spans
    }
    assert len(traced.spans) == len(program.expected)
    assert parents == program.expected


# Many at once


async def family(tracer: trace.Tracer, name: str, children: int, choose: random.Random) -> None:
    async def turns() -> None:
        for _ in range(choose.randrange(3)):
            await asyncio.sleep(0)

    async def child(number: int) -> None:
        await turns()
        with tracer.start_as_current_span(f"{name}.{number}.0"):
            await turns()
            with tracer.start_as_current_span(f"{name}.{number}.1"):
                await turns()
                with tracer.start_as_current_span(f"{name}.{number}.2"):
                    await turns()
                await turns()
            await turns()

    with tracer.start_as_current_span(name):
        await asyncio.gather(*map(child, range(children)))


async def families(seed: int, roots: int, children: int) -> tuple[sdk.ReadableSpan, ...]:
    traced = Traced(resource=RESOURCE)
    choose = random.Random(seed)
    await asyncio.gather(*(family(traced.tracer, f"r{root}", children, choose) for root in range(roots)))
    return traced.spans


def crossed(spans: tuple[sdk.ReadableSpan, ...]) -> list[str]:
    """The spans that are not in the trace and under the parent that their names say."""
    by_name = {span.name: span for span in spans}
    wrong = []
    for span in spans:
        root, *rest = span.name.split(".")
        expected = None
        if rest:
            number, depth = rest[0], int(rest[1])
            expected = span_id(by_name[f"{root}.{number}.{depth - 1}" if depth else root])
        if parent_id(span) != expected or trace_id(span) != trace_id(by_name[root]):
            wrong.append(span.name)
    return wrong


@pytest.mark.every_loop
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("roots", "children"), [(1, 1000), (10, 100)])
async def test_each_of_a_thousand_siblings_has_its_own_parent(seed: int, roots: int, children: int) -> None:
    spans = await families(seed, roots, children)

    assert len({span.name for span in spans}) == len(spans) == roots * (1 + 3 * children)
    assert crossed(spans) == []
    of = Counter(parent_id(span) for span in spans)
    assert [of[span_id(span)] for span in spans if span.parent is None] == [children] * roots


@pytest.mark.slow
async def test_no_parent_is_crossed_with_two_hundred_seeds() -> None:
    for seed in range(200):
        spans = await families(seed, 1, 1000)

        assert len(spans) == 3001
        assert crossed(spans) == []
