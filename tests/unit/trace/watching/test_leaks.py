"""Spans that are never ended are counted, each once, and told of by where they were born."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk import trace as sdk

from mapek_runtime.testing.clock import AutojumpClock
from mapek_runtime.trace import traced, use_provider
from mapek_runtime.trace.watching import birth
from mapek_runtime.trace.watching.live import LiveSpans
from tests.unit.trace.watched import T, lines, watching


def abandon(tracer: trace.Tracer) -> None:
    tracer.start_span("left")


def test_a_span_that_is_never_ended_is_counted_by_where_it_was_born(provider: sdk.TracerProvider) -> None:
    live = LiveSpans(leaks=True)
    provider.add_span_processor(live)
    tracer = provider.get_tracer("x")

    for _ in range(3):
        abandon(tracer)
    with tracer.start_as_current_span("kept"):
        (kept,) = live.open_spans()
    gc.collect()

    here = f"{__file__}:{abandon.__code__.co_firstlineno + 1} abandon"
    assert live.leaks() == {here: 3}
    assert live.leaked == 3
    assert (kept.born or "").endswith(" test_a_span_that_is_never_ended_is_counted_by_where_it_was_born")


def test_without_places_the_count_is_the_same(provider: sdk.TracerProvider) -> None:
    live = LiveSpans()
    provider.add_span_processor(live)

    for _ in range(3):
        abandon(provider.get_tracer("x"))
    gc.collect()

    assert live.leaked == 3
    assert live.leaks() == {}


def test_the_place_of_birth_is_that_of_the_caller_of_a_traced_function() -> None:
    live = LiveSpans(leaks=True)
    born: list[str | None] = []

    @traced
    def work() -> None:
        born.append(live.open_spans()[0].born)

    @traced
    def numbers() -> Iterator[int]:
        born.append(live.open_spans()[0].born)
        yield 1

    def caller() -> None:
        work()
        list(numbers())

    with use_provider(watching(live)):
        caller()

    first = caller.__code__.co_firstlineno
    where = caller.__qualname__
    assert born == [f"{__file__}:{first + 1} {where}", f"{__file__}:{first + 2} {where}"]


def scopes_left_open(tracer: trace.Tracer) -> None:
    contextvars.copy_context().run(tracer.start_as_current_span("scope").__enter__)


def spans_in_cycles(tracer: trace.Tracer) -> None:
    holder: list[object] = [tracer.start_span("cycle")]
    holder.append(holder)


@pytest.mark.parametrize("leave", [abandon, scopes_left_open, spans_in_cycles])
def test_each_of_ten_thousand_lost_spans_is_counted_once(leave: Callable[[trace.Tracer], None]) -> None:
    live = LiveSpans(leaks=True)
    tracer = watching(live).get_tracer("x")

    for _ in range(10_000):
        leave(tracer)
    gc.collect()

    assert live.leaked == 10_000
    assert live.open_count == 0
    assert len(live.leaks()) == 1


def test_counts_are_exact_while_threads_lose_spans_and_the_collector_runs_all_the_time() -> None:
    live = LiveSpans(leaks=True)
    tracer = watching(live).get_tracer("x")
    looks: list[int] = []

    def work() -> None:
        for number in range(500):
            spans_in_cycles(tracer)
            tracer.start_span("ended").end()
            if not number % 20:
                looks.append(len(live.open_spans()) + len(live.leaks()) + live.leaked)

    threshold = gc.get_threshold()
    gc.set_threshold(2)
    try:
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        gc.set_threshold(*threshold)
    gc.collect()

    assert live.leaked == sum(live.leaks().values()) == 4000
    assert live.open_count == 0
    assert len(looks) == 8 * 25


def test_the_places_told_apart_are_bounded_and_none_is_left_out_of_the_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(birth, "MOST", 10)
    live = LiveSpans(leaks=True)
    tracer = watching(live).get_tracer("x")

    for number in range(30):
        scope: dict[str, Any] = {"__name__": f"generated_{number}"}
        exec(f"def leave(tracer):\n    tracer.start_span('x')\nnumber = {number}", scope)
        scope["leave"].__code__ = scope["leave"].__code__.replace(co_filename=f"generated_{number}")
        scope["leave"](tracer)

    assert len(live.leaks()) == 11
    assert live.leaks()[birth.NOWHERE] == 20
    assert live.leaked == 30


@pytest.mark.parametrize("name", [None, 3, []], ids=repr)
def test_code_without_a_module_of_its_own_may_start_spans(name: object) -> None:
    live = LiveSpans(leaks=True)
    scope: dict[str, Any] = {"__name__": name}
    exec("def leave(tracer):\n    tracer.start_span('x')", scope)
    scope["leave"](watching(live).get_tracer("x"))

    assert live.leaks() == {"<string>:2 leave": 1}


async def test_lost_spans_are_told_of_in_one_line_a_beat_and_only_when_there_are_new_ones(
    logged: pytest.LogCaptureFixture, autojump: AutojumpClock
) -> None:
    async with LiveSpans(older_than=T, leaks=True) as live:
        tracer = watching(live).get_tracer("x")
        for _ in range(50):
            abandon(tracer)
        await asyncio.sleep(3 * T + 1)
        abandon(tracer)

    here = f"{__file__}:{abandon.__code__.co_firstlineno + 1} abandon"
    assert lines(logged) == [
        f"spans were collected without end(): 50 now, 50 in all; most at {here} (50)",
        f"spans were collected without end(): 1 now, 51 in all; most at {here} (51)",
    ]


def test_a_program_without_a_loop_is_told_at_the_shutdown(logged: pytest.LogCaptureFixture) -> None:
    live = LiveSpans()
    provider = watching(live)
    abandon(provider.get_tracer("x"))

    provider.shutdown()

    assert lines(logged) == [
        "spans were collected without end(): 1 now, 1 in all; leaks=True tells where they began"
    ]


async def test_a_span_still_open_at_the_shutdown_is_not_called_lost() -> None:
    live = LiveSpans(leaks=True)
    provider = watching(live)
    span = provider.get_tracer("x").start_span("open")

    await provider.ashutdown(5)
    span.end()
    del span

    assert live.open_count == live.leaked == 0
