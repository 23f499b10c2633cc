"""Open spans are seen without being held, and old ones are told of as long as they are open."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import weakref
from collections.abc import Sequence
from typing import Any, cast

import pytest
from opentelemetry import trace
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from mapek_runtime import BatchSpanProcessor, TracerProvider
from mapek_runtime.export.memory import MemorySpanExporter
from mapek_runtime.testing.clock import AutojumpClock
from mapek_runtime.trace.watching.live import LiveSpans, OpenSpan
from tests.unit.trace.watched import T, lines, watching

RESOURCE = Resource({"service.name": "tests"})


# The view


def test_the_view_shows_what_is_open_and_how_far_it_is(provider: sdk.TracerProvider) -> None:
    live = LiveSpans()
    provider.add_span_processor(live)
    tracer = provider.get_tracer("x")

    with tracer.start_as_current_span("outer") as outer:
        inner = tracer.start_span("inner", attributes={"tried": 1})
        tracer.start_span("over").end()
        inner.set_attribute("tried", 2)
        shown = live.open_spans()
        count = live.open_count
        inner.end()

    ids = outer.get_span_context()
    assert [(span.name, span.parent_id) for span in shown] == [("outer", None), ("inner", ids.span_id)]
    assert {span.trace_id for span in shown} == {ids.trace_id}
    assert shown[0].span_id == ids.span_id
    assert shown[1].attributes == {"tried": 2}
    assert all(0 <= span.age < 60 and span.born is None for span in shown)
    assert count == 2
    assert live.open_spans() == ()
    assert live.open_count == live.leaked == 0


async def test_the_age_is_told_by_the_clock_of_the_provider(autojump: AutojumpClock) -> None:
    live = LiveSpans()
    tracer = watching(live).get_tracer("x")

    span = tracer.start_span("first")
    await asyncio.sleep(100)
    other = tracer.start_span("second")
    await asyncio.sleep(7)

    assert [(seen.name, seen.age) for seen in live.open_spans()] == [("first", 107), ("second", 7)]
    assert [seen.name for seen in live.open_spans(older_than=8)] == ["first"]
    span.end()
    other.end()


def test_a_look_keeps_no_span_alive(provider: sdk.TracerProvider) -> None:
    live = LiveSpans()
    provider.add_span_processor(live)
    span = provider.get_tracer("x").start_span("x", attributes={"a": 1})
    known = weakref.ref(span)

    seen = live.open_spans()
    del span
    gc.collect()

    assert known() is None
    assert seen[0].attributes == {"a": 1}
    assert live.open_spans() == ()


def test_a_span_is_released_when_it_ends_in_another_thread(provider: sdk.TracerProvider) -> None:
    live = LiveSpans(leaks=True)
    provider.add_span_processor(live)
    spans = [provider.get_tracer("x").start_span("x") for _ in range(100)]

    def end_all() -> None:
        while spans:
            spans.pop().end()

    ending = threading.Thread(target=end_all)
    ending.start()
    ending.join()
    gc.collect()

    assert live.open_count == live.leaked == 0


def test_a_span_that_ended_while_somebody_looked_is_not_lost() -> None:
    live = LiveSpans()
    span = watching(live).get_tracer("x").start_span("x")
    (watch,) = live._open.values()

    span.end()
    del span

    assert watch() is None
    assert live.leaked == 0


def test_unsampled_spans_cost_the_view_nothing() -> None:
    live = LiveSpans()
    provider = TracerProvider(ALWAYS_OFF, resource=RESOURCE, shutdown_on_exit=False)
    provider.add_span_processor(live)

    span = provider.get_tracer("x").start_span("x")

    assert not span.is_recording()
    assert live.open_count == 0


# The heartbeat


async def test_a_span_open_three_periods_is_told_of_twice_and_exported_once(
    logged: pytest.LogCaptureFixture, autojump: AutojumpClock
) -> None:
    exporter = InMemorySpanExporter()
    memory = MemorySpanExporter()
    async with LiveSpans(older_than=T) as live:
        provider = watching(live)
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        provider.add_span_processor(BatchSpanProcessor(memory))
        await asyncio.sleep(T / 3)
        with provider.get_tracer("x").start_as_current_span("long") as span:
            await asyncio.sleep(3 * T)
        await asyncio.sleep(3 * T)
    await provider.ashutdown(5)

    beats = [vars(record) for record in logged.records]
    ids = span.get_span_context()
    assert len(beats) == 2
    assert {(beat["span_name"], beat["trace_id"], beat["span_id"]) for beat in beats} == {
        ("long", format(ids.trace_id, "032x"), format(ids.span_id, "016x"))
    }
    assert [beat["age"] for beat in beats] == [pytest.approx(T * 5 / 3), pytest.approx(T * 8 / 3)]
    assert lines(logged) == ["span 'long' has been open for 50.0 s", "span 'long' has been open for 80.0 s"]
    assert {beat["levelname"] for beat in beats} == {"INFO"}
    assert [each.name for each in exporter.get_finished_spans()] == ["long"]
    assert [each.name for each in memory.finished_spans] == ["long"]


async def test_a_beat_is_bounded_and_counts_the_others_in_one_line(
    logged: pytest.LogCaptureFixture, autojump: AutojumpClock
) -> None:
    beats: list[Sequence[OpenSpan]] = []
    async with LiveSpans(older_than=T, most=3, on_beat=beats.append) as live:
        tracer = watching(live).get_tracer("x")
        old = [tracer.start_span(f"old {number}") for number in range(2500)]
        await asyncio.sleep(T / 2)
        young = tracer.start_span("young")
        await asyncio.sleep(T / 2 + 1)

    assert [[span.name for span in beat] for beat in beats] == [["old 0", "old 1", "old 2"]]
    assert lines(logged)[3:] == ["2497 more spans have been open for 30 s or longer"]
    for span in (*old, young):
        span.end()


async def test_the_heartbeat_belongs_to_no_span_and_no_request(autojump: AutojumpClock) -> None:
    request: contextvars.ContextVar[str] = contextvars.ContextVar("request", default="none")
    seen: list[tuple[trace.Span, str]] = []
    live = LiveSpans(older_than=T, on_beat=lambda _: seen.append((trace.get_current_span(), request.get())))
    request.set("mine")
    with watching(live).get_tracer("x").start_as_current_span("request"):
        async with live:
            await asyncio.sleep(T + 1)

    assert seen == [(trace.INVALID_SPAN, "none")]


async def test_a_callback_that_fails_does_not_stop_the_heartbeat(
    logged: pytest.LogCaptureFixture, autojump: AutojumpClock
) -> None:
    def fail(_spans: Sequence[OpenSpan]) -> None:
        raise LookupError("no page")

    async with LiveSpans(older_than=T, on_beat=fail) as live:
        span = watching(live).get_tracer("x").start_span("x")
        await asyncio.sleep(2 * T + 1)
        span.end()

    failed = "a beat of the live spans failed; the next is due"
    assert lines(logged)[1::2] == [failed, failed]
    assert logged.records[1].exc_info is not None


async def test_the_heartbeat_is_one_task_however_often_it_is_started(autojump: AutojumpClock) -> None:
    beats: list[Sequence[OpenSpan]] = []
    live = LiveSpans(older_than=T, on_beat=beats.append)
    span = watching(live).get_tracer("x").start_span("x")

    live.start()
    live.start()
    await asyncio.sleep(T + 1)
    once = len(beats)
    await live.stop()
    await live.stop()
    await asyncio.sleep(5 * T)
    stopped = len(beats)
    live.start()
    await asyncio.sleep(T + 1)
    await live.stop()

    assert (once, stopped, len(beats)) == (1, 1, 2)
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "mapek-live-spans"]
    span.end()


def test_the_heartbeat_starts_again_on_another_loop() -> None:
    beats: list[Sequence[OpenSpan]] = []
    live = LiveSpans(older_than=T, on_beat=beats.append)
    span = watching(live).get_tracer("x").start_span("x")

    async def main() -> None:
        with AutojumpClock():
            live.start()
            await asyncio.sleep(T + 1)

    asyncio.run(main())
    asyncio.run(main())
    live.shutdown()

    assert len(beats) == 2
    span.end()


async def test_closing_the_provider_stops_the_heartbeat(autojump: AutojumpClock) -> None:
    live = LiveSpans(older_than=T)
    provider = watching(live)
    live.start()

    await provider.ashutdown(5)

    assert not [task for task in asyncio.all_tasks() if task.get_name() == "mapek-live-spans"]


async def test_a_shutdown_in_another_thread_stops_the_heartbeat() -> None:
    live = LiveSpans(older_than=T)
    live.start()
    task = live._task
    assert task is not None

    await asyncio.to_thread(live.shutdown)
    await asyncio.wait([task], timeout=10)

    assert task.cancelled()


async def test_the_heartbeat_can_be_stopped_from_another_loop() -> None:
    live = LiveSpans(older_than=T)
    live.start()
    task = live._task
    assert task is not None

    await asyncio.to_thread(asyncio.run, live.stop())
    await asyncio.wait([task], timeout=10)

    assert task.cancelled()


def test_wrong_arguments_are_named() -> None:
    async def beat(_spans: object) -> None: ...

    with pytest.raises(ValueError, match=r"older_than is 0; it must be more than 0 seconds"):
        LiveSpans(older_than=0)
    with pytest.raises(ValueError, match=r"older_than is nan"):
        LiveSpans(older_than=float("nan"))
    with pytest.raises(ValueError, match=r"most is 0; it must be at least 1 span a beat"):
        LiveSpans(most=0)
    with pytest.raises(TypeError, match=r"it must be a plain function"):
        LiveSpans(on_beat=cast("Any", beat))
