"""Under a small ratio a block guesses that it is not sampled; whatever it guesses, it is right in the end."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Iterator

import pytest
from opentelemetry import context as context_api
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    Decision,
    ParentBased,
    Sampler,
    TraceIdRatioBased,
)

from mapek_runtime import Cycle, Runtime, SpanGroup, TracerProvider, traced
from mapek_runtime.errors import SpanReused
from mapek_runtime.trace import DroppedSpan, Span, use_provider
from mapek_runtime.trace.unlikely import UnlikelySpan

RATIO = 0.1
SAMPLED = trace.TraceFlags(trace.TraceFlags.SAMPLED)

group = SpanGroup("unlikely")


@group.span(elapsed="took_ms")
def timed(number: int) -> None:
    """Something that takes time."""


@group.span
def counted(number: int) -> None:
    """Something."""


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracer(exporter: InMemorySpanExporter) -> Iterator[trace.Tracer]:
    provider = TracerProvider(sampler=ParentBased(TraceIdRatioBased(RATIO)), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with use_provider(provider):
        yield provider.get_tracer("tests")


def under(sampled: bool, *, remote: bool) -> trace.SpanContext:
    flags = SAMPLED if sampled else trace.TraceFlags()
    return trace.SpanContext(0x1234, 0x5678, remote, flags)


def test_each_trace_is_whole_and_decided_as_the_sdk_decides_it(
    tracer: trace.Tracer, exporter: InMemorySpanExporter
) -> None:
    sampler = TraceIdRatioBased(RATIO)
    roots = []
    for _ in range(2000):
        with (
            tracer.start_as_current_span("root", attributes={"a": 1}) as root,
            tracer.start_as_current_span("child") as child,
        ):
            assert trace.get_current_span() is child
            loose = tracer.start_span("loose")
            loose.end()
        roots.append(root.get_span_context())
        for span in (root, child, loose):
            context = span.get_span_context()
            assert context.is_valid
            assert context.trace_id == roots[-1].trace_id
            assert context.trace_flags == roots[-1].trace_flags
    assert trace.get_current_span() is trace.INVALID_SPAN

    for context in roots:
        expected = (
            sampler.should_sample(None, context.trace_id, "root").decision is Decision.RECORD_AND_SAMPLE
        )
        assert context.trace_flags.sampled is expected
    kept = {context.trace_id: context.span_id for context in roots if context.trace_flags.sampled}
    assert 100 < len(kept) < 320
    ended = exporter.get_finished_spans()
    assert [each.name for each in ended] == ["loose", "child", "root"] * len(kept)
    for each in ended:
        assert each.context is not None
        if each.name == "root":
            assert each.parent is None
            assert each.context.span_id == kept[each.context.trace_id]
            assert dict(each.attributes or {}) == {"a": 1}
        elif each.name == "child":
            assert each.parent is not None
            assert each.parent.span_id == kept[each.context.trace_id]


@pytest.mark.parametrize("remote", [True, False], ids=["remote", "local"])
@pytest.mark.parametrize("sampled", [True, False], ids=["sampled", "not sampled"])
def test_a_block_follows_a_parent_of_any_kind(tracer: trace.Tracer, sampled: bool, remote: bool) -> None:
    parent = under(sampled, remote=remote)
    token = context_api.attach(trace.set_span_in_context(trace.NonRecordingSpan(parent)))
    try:
        with tracer.start_as_current_span("block") as span:
            assert span.is_recording() is sampled
            assert span.get_span_context().trace_id == parent.trace_id
            if sampled:
                assert getattr(span, "parent", None) == parent
    finally:
        context_api.detach(token)


@pytest.mark.parametrize("sampled", [True, False], ids=["sampled", "not sampled"])
def test_a_block_is_decided_where_it_is_entered_and_not_where_it_was_made(
    tracer: trace.Tracer, sampled: bool
) -> None:
    def current(sampled: bool) -> object:
        parent = trace.NonRecordingSpan(under(sampled, remote=True))
        return context_api.attach(trace.set_span_in_context(parent))

    def make() -> object:
        current(not sampled)
        with tracer.start_as_current_span("above"):
            return tracer.start_as_current_span("block")

    block = contextvars.copy_context().run(make)
    token = current(sampled)
    try:
        with tracer.start_as_current_span("above") as above, block as span:  # type: ignore[attr-defined]
            assert type(span) is (
                Span if sampled else UnlikelySpan if type(block) is UnlikelySpan else DroppedSpan
            )
            assert span.is_recording() is sampled
            assert trace.get_current_span() is span
            if sampled:
                assert getattr(span, "parent", None) == above.get_span_context()
        assert trace.get_current_span().get_span_context().span_id == 0x5678
    finally:
        context_api.detach(token)  # type: ignore[arg-type]


async def test_decorated_functions_and_declared_spans_are_sampled_at_the_same_share(
    tracer: trace.Tracer, exporter: InMemorySpanExporter
) -> None:
    @traced
    async def work() -> None:
        with counted(1), timed(2):
            await asyncio.sleep(0)

    @tracer.start_as_current_span("by hand")
    def by_hand() -> None:
        pass

    for _ in range(500):
        await work()
        by_hand()

    names = [span.name for span in exporter.get_finished_spans()]
    whole = names.count(work.__qualname__)
    assert names.count("unlikely.counted") == names.count("unlikely.timed") == whole
    assert 15 < whole < 110
    assert 15 < names.count("by hand") < 110
    took = [(span.attributes or {}).get("took_ms") for span in exporter.get_finished_spans()]
    assert sum(isinstance(value, float) and value > 0 for value in took) == whole


def test_an_error_passes_and_stands_on_the_sampled_spans_alone(
    tracer: trace.Tracer, exporter: InMemorySpanExporter
) -> None:
    for _ in range(300):
        with (
            pytest.raises(ValueError, match="no"),
            tracer.start_as_current_span("fails", attributes={"key": "value"}),
        ):
            raise ValueError("no")

    spans = exporter.get_finished_spans()
    assert 8 < len(spans) < 70
    assert all(span.status.status_code is trace.StatusCode.ERROR for span in spans)
    assert all([event.name for event in span.events] == ["exception"] for span in spans)


def test_a_scope_is_entered_once_whether_it_is_sampled_or_not(tracer: trace.Tracer) -> None:
    kinds = set()
    for _ in range(200):
        scope = tracer.start_as_current_span("once")
        with scope as span:
            kinds.add(span.is_recording())
            with pytest.raises(SpanReused), scope:
                pass
        with pytest.raises(SpanReused), scope:
            pass
    assert kinds == {True, False}


def test_a_scope_left_in_another_context_is_passed_over_where_it_was_entered(tracer: trace.Tracer) -> None:
    for _ in range(200):
        here, there = contextvars.copy_context(), contextvars.copy_context()
        scope = tracer.start_as_current_span("left elsewhere")
        span = here.run(scope.__enter__)
        there.run(scope.__exit__, None, None, None)

        assert here.run(trace.get_current_span) is trace.INVALID_SPAN
        after = here.run(tracer.start_span, "after").get_span_context()
        assert after.trace_id != span.get_span_context().trace_id


@pytest.mark.parametrize(
    "sampler",
    [ALWAYS_OFF, ParentBased(ALWAYS_OFF), ParentBased(TraceIdRatioBased(0.001)), TraceIdRatioBased(0.001)],
    ids=lambda sampler: sampler.get_description(),
)
async def test_roots_on_purpose_and_what_is_below_them_have_ids_under_a_sampler_that_says_no(
    sampler: Sampler,
) -> None:
    # With a resource: asking for it blocks.
    provider = TracerProvider(sampler, Resource.get_empty(), shutdown_on_exit=False)
    tracer = provider.get_tracer("tests")
    with use_provider(provider), tracer.start_as_current_span("outer") as outer:
        for scope in (
            tracer.start_as_current_span("root", context=Context()),
            counted(1).under(Context()).linked(outer.get_span_context()),
            timed(2).under(Context()),
        ):
            with scope as root, tracer.start_as_current_span("child") as child:
                ids = [span.get_span_context() for span in (outer, root, child)]
                assert all(context.is_valid for context in ids)
                assert ids[1].trace_id == ids[2].trace_id != ids[0].trace_id
                assert len({context.span_id for context in ids}) == 3
            assert trace.get_current_span() is outer

        cycles: list[Cycle] = []
        async with Runtime(interval=0.001, on_cycle=cycles.append) as runtime:
            await runtime.wait(cycles=3)
        assert all(cycle.success for cycle in cycles)
