"""What is unusual on the way of a span: scopes used again, what raises while one starts, odd arguments.

A fault of tracing shows the application nothing that the stock SDK would not, and leaves nothing attached.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from opentelemetry import context as context_api
from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Decision, Sampler, SamplingResult
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, TraceFlags, TraceState

from mapek_runtime.errors import SpanReused
from tests.unit.trace.lineage import is_child_of, is_root, named
from tests.unit.trace.traced import Traced

REMOTE = SpanContext(0xA, 0xB, is_remote=True, trace_flags=TraceFlags(1))


@pytest.fixture
def traced() -> Iterator[Traced]:
    before = trace.get_current_span()
    yield Traced()
    assert trace.get_current_span() is before


class Deciding(Sampler):
    """Gives the result it was made with, or raises it."""

    def __init__(self, result: SamplingResult | Exception) -> None:
        self.result = result

    def should_sample(self, *args: Any, **kwargs: Any) -> SamplingResult:
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    def get_description(self) -> str:
        return "Deciding"


class Faulty(sdk.SpanProcessor):
    """Raises where it is told to."""

    def __init__(self, where: str) -> None:
        self.where = where

    def on_start(self, span: sdk.Span, parent_context: Context | None = None) -> None:
        if self.where == "start":
            raise RuntimeError("the processor cannot start")

    def on_end(self, span: sdk.ReadableSpan) -> None:
        if self.where == "end":
            raise RuntimeError("the processor cannot end")


# Used again


def test_a_span_is_taken_with_with_as_often_as_one_likes(caplog: pytest.LogCaptureFixture) -> None:
    def use(tracer: trace.Tracer) -> tuple[list[bool], list[str]]:
        span = tracer.start_span("x")
        seen = []
        for _ in range(2):
            with span as inside:
                seen.append(inside is span and inside.is_recording())
        span.end()
        with span as inside:
            seen.append(inside is span)
        said = [record.getMessage() for record in caplog.records]
        caplog.clear()
        return seen, said

    ours = use(Traced().tracer)
    assert ours == use(sdk.TracerProvider(shutdown_on_exit=False).get_tracer("stock"))
    assert ours[0] == [True, False, True]


def test_a_span_nobody_samples_is_taken_with_with_as_often_as_one_likes() -> None:
    span = Traced(sampler=ALWAYS_OFF).tracer.start_span("x")

    for _ in range(2):
        with span as inside:
            assert inside is span


async def test_a_scope_entered_in_two_tasks_is_refused_to_the_second(traced: Traced) -> None:
    scope = traced.tracer.start_as_current_span("x")
    gate = asyncio.Event()

    async def hold() -> None:
        with scope:
            await gate.wait()

    async def intrude() -> None:
        with pytest.raises(SpanReused), scope:
            pass
        gate.set()

    await asyncio.gather(hold(), intrude())

    assert [span.name for span in traced.spans] == ["x"]


def test_a_scope_decorates_and_is_entered_without_mixing_the_two(traced: Traced) -> None:
    scope: Any = traced.tracer.start_as_current_span("x", attributes={"a": 1}, links=[Link(REMOTE)])

    def nothing() -> None: ...

    before = scope(nothing)
    with scope as span:
        span.set_attribute("b", 2)
        before()
    before()
    inner, outer, after = traced.spans

    assert (dict(inner.attributes or {}), len(inner.links)) == ({"a": 1}, 1)
    assert (dict(after.attributes or {}), len(after.links)) == ({"a": 1}, 1)
    assert dict(outer.attributes or {}) == {"a": 1, "b": 2}


def test_a_decorated_function_may_call_itself(traced: Traced) -> None:
    @traced.tracer.start_as_current_span("x")
    def down(depth: int) -> int:
        return depth and down(depth - 1)

    assert down(3) == 0
    innermost_first = traced.spans
    assert len(innermost_first) == 4
    assert all(is_child_of(a, b) for a, b in itertools.pairwise(innermost_first))


# What raises while a span starts or ends


@pytest.mark.parametrize("sampled", [True, False])
def test_a_sampler_that_raises_leaves_nothing_attached(sampled: bool, traced: Traced) -> None:
    sampler = Deciding(RuntimeError("no answer"))
    provider = Traced(sampler=sampler)
    scope = provider.tracer.start_as_current_span("x")
    with traced.tracer.start_as_current_span("outer") as outer:
        with pytest.raises(RuntimeError, match="no answer"), scope:
            pytest.fail("entered")
        assert trace.get_current_span() is outer
        sampler.result = SamplingResult(Decision.RECORD_AND_SAMPLE if sampled else Decision.DROP)
        with scope as span:
            assert trace.get_current_span() is span

    assert len(provider.spans) == sampled


def test_a_processor_that_raises_at_the_start_leaves_nothing_attached(traced: Traced) -> None:
    faulty = Faulty("start")
    traced.provider.add_span_processor(faulty)
    with pytest.raises(RuntimeError, match="cannot start"), traced.tracer.start_as_current_span("x"):
        pytest.fail("entered")
    with pytest.raises(RuntimeError, match="cannot start"):
        traced.tracer.start_span("x")

    assert trace.get_current_span() is trace.INVALID_SPAN


def test_a_processor_that_raises_at_the_end_leaves_nothing_attached(traced: Traced) -> None:
    traced.provider.add_span_processor(Faulty("end"))
    with pytest.raises(RuntimeError, match="cannot end"), traced.tracer.start_as_current_span("x"):
        pass

    assert trace.get_current_span() is trace.INVALID_SPAN
    assert traced.one().name == "x"


def test_a_mapping_that_raises_and_a_clock_that_raises_leave_nothing_attached() -> None:
    class Broken(Mapping[str, Any]):
        def __getitem__(self, key: str) -> Any:
            raise RuntimeError("no item")

        def __iter__(self) -> Iterator[str]:
            return iter("a")

        def __len__(self) -> int:
            return 1

    def clock() -> int:
        raise RuntimeError("no time")

    for traced, attributes in ((Traced(), Broken()), (Traced(clock=clock), None)):
        tracer = traced.tracer
        with (
            pytest.raises(RuntimeError, match="no "),
            tracer.start_as_current_span("x", attributes=attributes),
        ):
            pytest.fail("entered")
        assert trace.get_current_span() is trace.INVALID_SPAN


# What was given to a span


def test_times_of_zero_are_times(traced: Traced) -> None:
    span = traced.tracer.start_span("x", start_time=0)
    span.end(0)

    assert (traced.one().start_time, traced.one().end_time) == (0, 0)


class ReadOnly(Mapping[str, Any]):
    """A mapping that is no dictionary."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.given = given

    def __getitem__(self, key: str) -> Any:
        return self.given[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.given)

    def __len__(self) -> int:
        return len(self.given)


@pytest.mark.parametrize("given", [{}, {"a": 1}, {"a": [1, 2], "b": None}, {"": 1, "c": 2}])
def test_any_mapping_is_copied_when_the_span_starts(given: dict[str, Any], traced: Traced) -> None:
    mine = ReadOnly(given)
    stock = sdk.TracerProvider(shutdown_on_exit=False).get_tracer("stock")
    theirs: Any = stock.start_span("x", attributes=mine)
    expected = {key: value for key, value in theirs.attributes.items() if value is not None}
    with traced.tracer.start_as_current_span("x", attributes=mine):
        given["late"] = 1

    assert dict(traced.one().attributes or {}) == expected


@pytest.mark.parametrize("decision", list(Decision))
@pytest.mark.parametrize("state", [None, TraceState([("v", "1")])])
@pytest.mark.parametrize("attributes", [None, {"s": (1, 2)}])
def test_what_a_sampler_says_is_what_the_sdk_makes_of_it(
    decision: Decision, state: TraceState | None, attributes: Any
) -> None:
    sampler = Deciding(SamplingResult(decision, attributes, state))

    def look(provider: sdk.TracerProvider) -> list[tuple[Any, ...]]:
        seen = []
        tracer = provider.get_tracer("tests")
        given = {"given": 1}
        with (
            tracer.start_as_current_span("a", attributes=given) as outer,
            tracer.start_as_current_span("b") as inner,
            tracer.start_as_current_span("c", trace.set_span_in_context(NonRecordingSpan(REMOTE))) as far,
        ):
            for span in (outer, inner, far):
                context = span.get_span_context()
                said = (span.is_recording(), context.trace_flags & 1, context.trace_state)
                seen.append((*said, dict(getattr(span, "attributes", None) or {})))
            assert outer.get_span_context().trace_id == inner.get_span_context().trace_id
            assert far.get_span_context().trace_id == REMOTE.trace_id
        return seen

    ours = look(Traced(sampler=sampler).provider)
    assert ours == look(sdk.TracerProvider(sampler, shutdown_on_exit=False))


def test_ids_of_zero_are_replaced_and_a_generator_may_raise() -> None:
    class Zeros(IdGenerator):
        fails = False

        def generate_span_id(self) -> int:
            if self.fails:
                raise RuntimeError("no id")
            return 0

        def generate_trace_id(self) -> int:
            return 0

    generator = Zeros()
    traced = Traced(id_generator=generator)
    with traced.tracer.start_as_current_span("outer"), traced.tracer.start_as_current_span("inner"):
        pass
    inner, outer = traced.spans
    assert inner.context is not None
    assert inner.context.is_valid
    assert is_child_of(inner, outer)
    generator.fails = True
    with pytest.raises(RuntimeError, match="no id"), traced.tracer.start_as_current_span("x"):
        pytest.fail("entered")
    assert trace.get_current_span() is trace.INVALID_SPAN


# Parents of all kinds


def test_a_tracer_that_drops_all_is_silent_under_recorded_spans_and_hands_the_trace_on(
    traced: Traced,
) -> None:
    off = Traced(sampler=ALWAYS_OFF)
    stock = sdk.TracerProvider(shutdown_on_exit=False).get_tracer("stock")
    with (
        traced.tracer.start_as_current_span("outer") as outer,
        off.tracer.start_as_current_span("dropped") as dropped,
        stock.start_as_current_span("theirs") as theirs,
        off.tracer.start_as_current_span("dropped again") as again,
        traced.tracer.start_as_current_span("inner"),
    ):
        spans = [span.get_span_context() for span in (outer, dropped, theirs, again)]
        assert len({context.trace_id for context in spans}) == 1
        assert [context.trace_flags.sampled for context in spans] == [True, False, False, False]

    assert [span.name for span in traced.spans] == ["outer"]
    assert off.spans == ()


def test_two_providers_of_ours_nest_in_one_another(traced: Traced) -> None:
    other = Traced()
    with (
        traced.tracer.start_as_current_span("a"),
        other.tracer.start_as_current_span("b"),
        traced.tracer.start_as_current_span("c"),
    ):
        pass

    assert is_child_of(named(other, "b"), named(traced, "a"))
    assert is_child_of(named(traced, "c"), named(other, "b"))
    assert len(traced.spans) == 2


def test_a_context_that_is_a_plain_dictionary_is_taken_like_any(traced: Traced) -> None:
    plain: Any = dict(trace.set_span_in_context(NonRecordingSpan(REMOTE)))
    token = context_api.attach(plain)
    try:
        with traced.tracer.start_as_current_span("x"):
            pass
    finally:
        context_api.detach(token)

    assert traced.one().parent == REMOTE


@pytest.mark.parametrize("sampler", [None, ALWAYS_OFF], ids=["recorded", "dropped"])
def test_a_scope_that_was_not_entered_is_no_span_yet(sampler: Sampler | None, traced: Traced) -> None:
    scope: Any = Traced(sampler=sampler).tracer.start_as_current_span("not yet")
    context = trace.set_span_in_context(scope)
    carrier: dict[str, str] = {}
    propagate.inject(carrier, context)
    with traced.tracer.start_as_current_span("x", context=context) as span:
        pass

    assert carrier == {}
    assert is_root(traced.one())
    assert "0x0000" in repr(scope)
    assert scope.get_span_context() == trace.INVALID_SPAN_CONTEXT
    assert not scope.is_recording()
    with scope as entered:
        assert entered.get_span_context().is_valid
    assert span is not scope


# Threads


def test_a_span_that_two_threads_end_at_once_is_exported_once() -> None:
    def clock() -> int:
        if rivals and threading.current_thread() is threading.main_thread():
            rival = threading.Thread(target=rivals.pop().end)
            rival.start()
            rival.join()
        return next(times)

    rivals: list[Any] = []
    times = itertools.count(1)
    traced = Traced(clock=clock)
    span = traced.tracer.start_span("by hand")
    rivals.append(span)
    span.end()
    with traced.tracer.start_as_current_span("in a block") as span:
        rivals.append(span)

    assert [span.name for span in traced.spans] == ["by hand", "in a block"]


def test_a_scope_entered_in_one_thread_may_be_left_in_another(traced: Traced) -> None:
    scope = traced.tracer.start_as_current_span("moved")
    entering = threading.Thread(target=scope.__enter__)
    entering.start()
    entering.join()
    scope.__exit__(None, None, None)
    with traced.tracer.start_as_current_span("after"):
        pass

    assert [span.name for span in traced.spans] == ["moved", "after"]
    assert is_root(named(traced, "after"))
