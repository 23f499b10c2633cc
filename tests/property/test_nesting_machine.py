"""Parents are right whatever else is current: other providers, remote parents, baggage, generators.

A machine takes one step at a time in several contexts, and a model says what each must then hold.
`test_nesting.py` has a smaller machine for blocks alone, and programs on a running loop.
"""

from __future__ import annotations

import contextvars
import itertools
from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import dataclass, field
from typing import Any, cast

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from opentelemetry import baggage, trace
from opentelemetry import context as context_api
from opentelemetry.context import Context
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from mapek_runtime import TracerProvider, traced
from mapek_runtime.trace import use_provider
from tests.unit.trace.traced import Traced

RESOURCE = Resource({"service.name": "tests"})
SCOPES = ("ours", "unsampled")
"""Kinds whose span stands in the context variable itself, and is passed over once it was left elsewhere."""
KINDS = (*SCOPES, "stock", "remote", "baggage", "nothing")

Command = Callable[[list[Any]], Any]


# The model


@dataclass(eq=False)
class Block:
    """A span, and what its context held before."""

    ids: SpanContext
    below: Place
    left: bool = False
    """Left in another context: no parent any more, wherever it is still current."""


@dataclass(frozen=True, eq=False)
class Place:
    """What a context holds: a span, baggage, and whether the span stands there itself."""

    block: Block | None = None
    baggage: int | None = None
    direct: bool = False


def parent_at(place: Place) -> Block | None:
    """The parent that a span started here by us must have."""
    while place.block is not None and place.block.left:
        place = place.block.below
    return place.block


def shown_at(place: Place) -> Block | None:
    """What the API calls the current span: a `Context` shows what it was made with."""
    while place.direct and place.block is not None and place.block.left:
        place = place.block.below
    return place.block


@dataclass(eq=False)
class Task:
    """A context, what it must hold, and how to leave what was opened in it."""

    context: contextvars.Context
    place: Place = field(default_factory=Place)
    opened: list[tuple[Block | None, Place, Callable[[], object]]] = field(default_factory=list)


@dataclass(eq=False)
class Body:
    """A traced generator that was stepped once, and the spans its body holds over a yield."""

    step: Callable[[Any], Any]
    close: Callable[[], object]
    block: Block
    held: list[Block] = field(default_factory=list)


# What is run


def generator() -> Generator[Any, Command, None]:
    scopes: list[Any] = []
    result = None
    try:
        while True:
            command = yield result
            result = command(scopes)
    finally:
        while scopes:
            scopes.pop().__exit__(None, None, None)


async def async_generator() -> AsyncGenerator[Any, Command]:
    scopes: list[Any] = []
    result = None
    try:
        while True:
            command = yield result
            result = command(scopes)
    finally:
        while scopes:
            scopes.pop().__exit__(None, None, None)


def at_once(awaitable: Any) -> Any:
    """The result of something that awaits nothing."""
    try:
        awaitable.__await__().send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it awaited something")


class Everything(RuleBasedStateMachine):
    """Tasks fork, open and leave spans of any kind, and step one another's generators."""

    def __init__(self) -> None:
        super().__init__()
        self.traced = Traced(resource=RESOURCE)
        self.exported = SimpleSpanProcessor(self.traced.exporter)
        silent = TracerProvider(ALWAYS_OFF, RESOURCE, shutdown_on_exit=False)
        other = sdk.TracerProvider(resource=RESOURCE, shutdown_on_exit=False)
        other.add_span_processor(self.exported)
        self.tracers = {
            "ours": self.traced.tracer,
            "unsampled": silent.get_tracer("silent"),
            "stock": other.get_tracer("stock"),
        }
        self.tasks = [Task(contextvars.Context())]
        self.bodies: list[Body] = []
        self.loose: list[trace.Span] = []
        self.recorded: dict[int, tuple[int, int | None]] = {}
        """Trace and parent of each span that must be exported, by its id."""
        self.numbers = itertools.count(1)

    def task(self, data: st.DataObject) -> Task:
        return data.draw(st.sampled_from(self.tasks))

    def born(self, span: trace.Span, parent: Block | None, below: Place) -> Block:
        """A span has started: it must be a child of `parent`."""
        ids = span.get_span_context()
        assert ids.is_valid
        if parent is None:
            assert ids.trace_id not in {trace_id for trace_id, _ in self.recorded.values()}
        else:
            assert ids.trace_id == parent.ids.trace_id
        if isinstance(span, sdk.ReadableSpan):
            found = span.parent
            assert (found and found.span_id) == (parent and parent.ids.span_id)
            self.recorded[ids.span_id] = (ids.trace_id, found and found.span_id)
        return Block(ids, below)

    # Tasks

    @precondition(lambda self: len(self.tasks) < 6)
    @rule(data=st.data())
    def forks(self, data: st.DataObject) -> None:
        task = self.task(data)
        self.tasks.append(Task(task.context.copy(), task.place))

    @rule(data=st.data(), kind=st.sampled_from(KINDS))
    def opens(self, data: st.DataObject, kind: str) -> None:
        task = self.task(data)
        before = task.place
        run = task.context.run
        if kind in self.tracers:
            scope = self.tracers[kind].start_as_current_span(kind)
            span = run(scope.__enter__)
            parent = parent_at(before) if kind in SCOPES else shown_at(before)
            block = self.born(span, parent, before)
            task.place = Place(block, before.baggage, kind in SCOPES)
            leave: Callable[[], object] = lambda: scope.__exit__(None, None, None)  # noqa: E731 - one a kind
            task.opened.append((block if kind in SCOPES else None, before, leave))
            return
        number = next(self.numbers)
        block_or_none = shown_at(before)
        if kind == "remote":
            ids = SpanContext(number, number, is_remote=True, trace_flags=TraceFlags(1))
            block_or_none = Block(ids, before)
            context = run(trace.set_span_in_context, NonRecordingSpan(ids))
            task.place = Place(block_or_none, before.baggage)
        elif kind == "baggage":
            context = run(baggage.set_baggage, "number", number)
            task.place = Place(block_or_none, number)
        else:
            context = Context()
            task.place = Place()
        token = run(context_api.attach, context)
        task.opened.append((None, before, lambda: context_api.detach(token)))

    @precondition(lambda self: any(task.opened for task in self.tasks))
    @rule(data=st.data())
    def leaves(self, data: st.DataObject) -> None:
        self.leave(data.draw(st.sampled_from([task for task in self.tasks if task.opened])))

    def leave(self, task: Task) -> None:
        _, before, leave = task.opened.pop()
        task.context.run(leave)
        task.place = before

    @precondition(lambda self: len(self.tasks) > 1 and any(task.opened for task in self.tasks))
    @rule(data=st.data())
    def leaves_in_another_task(self, data: st.DataObject) -> None:
        task = data.draw(st.sampled_from([task for task in self.tasks if task.opened]))
        other = data.draw(st.sampled_from([other for other in self.tasks if other is not task]))
        block, before, leave = task.opened.pop()
        other.context.run(leave)
        if block is None:
            return  # a token that is no good there restores nothing
        block.left = True
        if other.place.direct and other.place.block is block:
            other.place = before

    # Spans that are current nowhere

    @rule(data=st.data())
    def starts_a_span_that_is_not_current(self, data: st.DataObject) -> None:
        task = self.task(data)
        span = task.context.run(self.tracers["ours"].start_span, "loose")
        self.born(span, parent_at(task.place), task.place)
        self.loose.append(span)

    @precondition(lambda self: self.loose)
    @rule(data=st.data())
    def ends_one_anywhere(self, data: st.DataObject) -> None:
        self.task(data).context.run(self.loose.pop().end)

    # Generators

    @precondition(lambda self: len(self.bodies) < 4)
    @rule(data=st.data(), is_async=st.booleans())
    def takes_the_first_step_of_a_generator(self, data: st.DataObject, is_async: bool) -> None:
        task = self.task(data)
        step: Callable[[Any], Any]
        close: Callable[[], object]
        with use_provider(self.traced.provider):
            if is_async:
                agen = traced("generator")(async_generator)()
                step, close = lambda value: at_once(agen.asend(value)), lambda: at_once(agen.aclose())
            else:
                gen = traced("generator")(generator)()
                step, close = cast("Callable[[Any], Any]", gen.send), gen.close
            task.context.run(step, None)
            # The first step has no command; the second says in which span it was taken.
            span = task.context.run(step, lambda _: trace.get_current_span())
        body = Body(step, close, self.born(span, parent_at(task.place), task.place))
        self.bodies.append(body)

    @precondition(lambda self: self.bodies)
    @rule(data=st.data(), what=st.sampled_from(["look", "hold", "release"]))
    def steps_a_generator(self, data: st.DataObject, what: str) -> None:
        body = data.draw(st.sampled_from(self.bodies))
        task = self.task(data)
        tracer = self.tracers["ours"]
        top = body.held[-1] if body.held else body.block

        def look(_scopes: list[Any]) -> tuple[trace.Span, object]:
            with tracer.start_as_current_span("inside") as span:
                return span, baggage.get_baggage("number")

        def hold(scopes: list[Any]) -> trace.Span:
            scope: Any = tracer.start_as_current_span("held")
            scopes.append(scope)
            span: trace.Span = scope.__enter__()
            return span

        def release(scopes: list[Any]) -> None:
            scopes.pop().__exit__(None, None, None)

        if what == "look":
            span, seen = task.context.run(body.step, look)
            self.born(span, top, Place())
            if not body.held:
                assert seen == task.place.baggage
        elif what == "hold":
            body.held.append(self.born(task.context.run(body.step, hold), top, Place()))
        elif body.held:
            task.context.run(body.step, release)
            body.held.pop()

    @precondition(lambda self: self.bodies)
    @rule(data=st.data())
    def closes_a_generator(self, data: st.DataObject) -> None:
        self.task(data).context.run(self.bodies.pop().close)

    # What must hold

    @invariant()
    def each_task_holds_what_the_model_says(self) -> None:
        for task in self.tasks:
            run = task.context.run
            shown = shown_at(task.place)
            current = run(trace.get_current_span).get_span_context()
            assert current.span_id == (0 if shown is None else shown.ids.span_id)
            assert run(baggage.get_baggage, "number") == task.place.baggage
            parent = parent_at(task.place)
            probe = run(self.tracers["ours"].start_span, "probe")
            ids = probe.get_span_context()
            assert parent is None or ids.trace_id == parent.ids.trace_id
            if isinstance(probe, sdk.ReadableSpan):
                assert (probe.parent and probe.parent.span_id) == (parent and parent.ids.span_id)

    def teardown(self) -> None:
        for task in self.tasks:
            while task.opened:
                self.leave(task)
        for body in self.bodies:
            body.close()
        for span in self.loose:
            span.end()
        ended = self.traced.spans
        found = {
            span.context.span_id: (span.context.trace_id, span.parent and span.parent.span_id)
            for span in ended
            if span.context is not None
        }
        assert len(ended) == len(found)
        assert found == self.recorded


Everything.TestCase.settings = settings(max_examples=80, stateful_step_count=50, deadline=None)
TestEverything = Everything.TestCase
