"""The hold: spans that wait, in bounded memory, across threads, a shutdown and a fork."""

from __future__ import annotations

import gc
import multiprocessing
import os
import threading
from collections import deque
from typing import Any

import pytest
from opentelemetry.context import Context
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.sampling import DEFAULT_ON
from opentelemetry.trace import StatusCode, set_span_in_context

from mapek_runtime import BatchSpanProcessor, TracerProvider
from mapek_runtime.export.memory import MemorySpanExporter
from mapek_runtime.trace.sampling import CycleSampler
from tests.unit.trace.sampling.held import Held


def reason(span: sdk.ReadableSpan) -> Any:
    return (span.attributes or {})["sampling.reason"]


def test_spans_come_out_in_the_order_in_which_they_ended() -> None:
    held = Held()
    root = held.root()
    for number in range(5):
        held.child(root, f"child-{number}").end()
    root.set_status(StatusCode.ERROR)

    root.end()

    assert held.names == [*(f"child-{number}" for number in range(5)), "mape_k.cycle"]


def test_a_child_that_outlives_its_cycle_goes_the_same_way_at_once() -> None:
    held = Held()
    kept, dropped = held.root(success=False), held.root()
    late = [held.child(kept, "late of kept"), held.child(dropped, "late of dropped")]
    kept.end()
    dropped.end()
    later = held.child(kept, "later")

    for span in (*late, later):
        span.end()

    assert held.names == ["mape_k.cycle", "late of kept", "later"]
    assert not held.child(dropped, "nobody's").is_recording()
    assert (held.holds.held, held.holds.sampled_out) == (0, 2)


def test_a_child_that_never_ends_keeps_nobody_waiting() -> None:
    held = Held()
    root = held.root()
    held.child(root, "ended").end()
    held.child(root, "open")

    root.set_status(StatusCode.ERROR)
    root.end()

    assert held.names == ["ended", "mape_k.cycle"]
    assert held.holds.held == 0


@pytest.mark.parametrize("lucky", [True, False], ids=["head yes", "head no"])
def test_a_cycle_with_too_many_spans_follows_its_head_decision_at_once(lucky: bool) -> None:
    held = Held(most_spans_per_cycle=10)
    held.luck.lucky = lucky
    root = held.root()

    for _ in range(10):
        held.child(root).end()
    assert (held.holds.held, len(held.names)) == (10, 0)
    for _ in range(5):
        held.child(root).end()

    assert held.holds.held == 0
    assert len(held.names) == (15 if lucky else 0)
    root.set_status(StatusCode.ERROR)
    root.end()
    assert held.names[15:] == (["mape_k.cycle"] if lucky else [])
    if lucky:
        assert reason(held.spans[-1]) == "limit"


def test_a_cycle_that_was_found_too_large_records_nothing_more() -> None:
    held = Held(most_spans_per_cycle=1)
    root = held.root()
    for _ in range(2):
        held.child(root).end()

    assert not held.child(root).is_recording()
    assert held.holds.sampled_out == 2


def test_when_too_many_spans_wait_the_oldest_cycles_follow_their_head_decision() -> None:
    held = Held(most_held_spans=16)
    roots = [held.root() for _ in range(4)]
    for root in roots:
        for _ in range(4):
            held.child(root).end()
    assert held.holds.held == 16

    held.child(roots[3]).end()

    # The oldest alone would leave thirteen, which is room for a sixteenth at least.
    assert held.holds.held == 13
    for root in roots:
        root.set_status(StatusCode.ERROR)
        root.end()
    assert held.names == [*["work"] * 4, "mape_k.cycle"] * 2 + [*["work"] * 5, "mape_k.cycle"]


def test_cycles_that_never_end_are_held_in_bounded_memory() -> None:
    held = Held(most_held_spans=100)

    for _ in range(1_000):
        held.child(held.root()).end()
        assert held.holds.held <= 100

    gc.collect()
    assert held.holds.held + held.holds.sampled_out == 1_000
    assert len(held.holds._open) == held.holds.held


def test_an_account_of_open_cycles_keeps_no_cycle_that_was_decided() -> None:
    held = Held()

    for _ in range(100):
        held.cycle()

    assert len(held.holds._open) == 0


@pytest.mark.parametrize("lucky", [True, False], ids=["head yes", "head no"])
async def test_a_shutdown_decides_the_open_cycles_and_a_flush_does_not(lucky: bool) -> None:
    sampler = CycleSampler(DEFAULT_ON, quiet_ratio=1.0 if lucky else 0.0)
    memory = MemorySpanExporter()
    processor = BatchSpanProcessor(memory, holds=sampler.holds)
    provider = TracerProvider(sampler, Resource({}), shutdown_on_exit=False)
    provider.add_span_processor(processor)
    tracer = provider.get_tracer("tests")
    root = tracer.start_span("mape_k.cycle", Context())
    below = set_span_in_context(root, Context())
    tracer.start_span("ended", below).end()
    still_open = tracer.start_span("open", below)
    untouched = tracer.start_span("mape_k.cycle", Context())

    assert await processor.aforce_flush(5)
    assert processor.statistics()[:6] == (1, 0, 0, {}, 1, 0)
    await processor.ashutdown(5)

    names = [span.name for span in memory.finished_spans]
    assert names == (["ended"] if lucky else [])
    for span in (still_open, root, tracer.start_span("work", set_span_in_context(untouched, Context()))):
        span.end()
    statistics = processor.statistics()
    assert statistics.balanced
    assert statistics.held == 0
    assert statistics.dropped == ({"already_shutdown": 3} if lucky else {"sampled_out": 4})


@pytest.mark.blocking
def test_what_is_held_when_the_process_ends_is_decided_and_sent() -> None:
    sampler = CycleSampler(DEFAULT_ON, quiet_ratio=1.0)
    memory = MemorySpanExporter()
    processor = BatchSpanProcessor(memory, holds=sampler.holds)
    provider = TracerProvider(sampler, Resource({}), shutdown_on_exit=False)
    provider.add_span_processor(processor)
    tracer = provider.get_tracer("tests")
    root = tracer.start_span("mape_k.cycle", Context())
    tracer.start_span("ended", set_span_in_context(root, Context())).end()

    processor._at_exit()

    assert [span.name for span in memory.finished_spans] == ["ended"]
    assert processor.statistics().held == 0


async def test_the_account_of_a_processor_counts_what_is_held_from_it() -> None:
    sampler = CycleSampler(DEFAULT_ON, quiet_ratio=0.0)
    processor = BatchSpanProcessor(MemorySpanExporter(), holds=sampler.holds)
    provider = TracerProvider(sampler, Resource({}), shutdown_on_exit=False)
    provider.add_span_processor(processor)
    tracer = provider.get_tracer("tests")
    for found in ({}, {"anomalies_detected": 1}):
        root = tracer.start_span("mape_k.cycle", Context(), attributes=found)
        for _ in range(3):
            tracer.start_span("work", set_span_in_context(root, Context())).end()
        assert processor.statistics().held == 3
        root.end()
        assert processor.statistics().held == 0
    tracer.start_span("other", Context()).end()

    await provider.ashutdown(5)

    statistics = processor.statistics()
    assert statistics.balanced
    assert (statistics.ended, statistics.exported) == (9, 5)
    assert statistics.dropped == {"sampled_out": 4}


def test_spans_that_end_in_many_threads_are_each_counted_once() -> None:
    held = Held(most_held_spans=10_000)
    each, rounds = 50, 40
    for turn in range(rounds):
        root = held.root(success=bool(turn % 2))
        children = [[held.child(root) for _ in range(each)] for _ in range(4)]
        start = threading.Barrier(5)

        def end(mine: list[Any], start: threading.Barrier = start) -> None:
            start.wait()
            for span in mine:
                span.end()

        threads = [threading.Thread(target=end, args=(mine,)) for mine in children]
        for thread in threads:
            thread.start()
        start.wait()
        root.end()
        for thread in threads:
            thread.join()

    everything = rounds * (4 * each + 1)
    assert len(held.spans) == everything // 2
    assert len({span._span_id for span in held.spans}) == everything // 2  # type: ignore[attr-defined]
    assert (held.holds.held, held.holds.sampled_out) == (0, everything // 2)


@pytest.mark.blocking
def test_the_law_holds_for_whoever_looks_while_threads_end_spans() -> None:
    sampler = CycleSampler(DEFAULT_ON, quiet_ratio=0.5, most_held_spans=50)
    processor = BatchSpanProcessor(MemorySpanExporter(), holds=sampler.holds)
    provider = TracerProvider(sampler, Resource({}), shutdown_on_exit=False)
    provider.add_span_processor(processor)
    tracer = provider.get_tracer("tests")
    done = threading.Event()
    wrong: list[Any] = []

    def work() -> None:
        for number in range(100):
            root = tracer.start_span("mape_k.cycle", Context(), attributes={"success": number % 3 > 0})
            children = [tracer.start_span("work", set_span_in_context(root, Context())) for _ in range(5)]
            for span in (*children, root):
                span.end()

    def look() -> None:
        while not done.is_set():
            statistics = processor.statistics()
            if not statistics.balanced or statistics.held < 0:
                wrong.append(statistics)

    looking = threading.Thread(target=look)
    looking.start()
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    looking.join()

    statistics = processor.statistics()
    assert wrong == []
    assert statistics.held == 0
    # A cycle that made room for others records nothing more, so not all were recorded.
    assert statistics.ended <= 4 * 100 * 6
    assert statistics.ended == statistics.queued + statistics.exported + statistics.dropped["sampled_out"]
    processor.shutdown()


def test_the_first_verdict_stands_whoever_comes_later() -> None:
    held = Held()
    root = held.root()
    hold = root._hold

    first = hold.keep("anomaly")

    assert hold.follow_head("limit") is first
    assert hold.keep("error") is first
    assert (hold.verdict, hold.sampled, hold.recording) == (first, 1, True)


@pytest.mark.parametrize("lucky", [True, False], ids=["head yes", "head no"])
def test_a_span_that_ends_while_another_thread_decides_is_not_forgotten(lucky: bool) -> None:
    held = Held()
    held.luck.lucky = lucky
    root = held.root()
    hold = root._hold

    class DecidedMeanwhile(deque[Any]):
        def append(self, span: Any) -> None:
            hold.follow_head("left")
            super().append(span)

    hold._spans = DecidedMeanwhile()

    held.child(root).end()

    assert held.names == ["work"] * lucky
    assert (held.holds.held, held.holds.sampled_out) == (0, int(not lucky))


def test_a_processor_that_fails_costs_neither_the_cycle_nor_the_other_spans(
    caplog: pytest.LogCaptureFixture,
) -> None:
    held = Held()

    class Broken(sdk.SpanProcessor):
        def on_end(self, span: sdk.ReadableSpan) -> None:
            if span.name == "bad":
                raise RuntimeError("broken")

    held.provider.add_span_processor(Broken())
    root = held.root(success=False)
    for name in ("good", "bad", "better"):
        held.child(root, name).end()

    root.end()

    assert held.names == ["good", "bad", "better", "mape_k.cycle"]
    assert [record.message for record in caplog.records] == ["a span processor failed on span 'bad'"]


def test_a_verdict_respects_the_limit_of_attributes() -> None:
    held = Held()
    limited = TracerProvider(
        held.sampler, shutdown_on_exit=False, span_limits=sdk.SpanLimits(max_span_attributes=2)
    )
    root: Any = limited.get_tracer("tests").start_span("mape_k.cycle", attributes={"a": 1, "success": False})

    root.end()

    assert dict(root.attributes) == {"sampling.adjusted_count": 1.0, "sampling.reason": "error"}
    assert root.dropped_attributes == 2


@pytest.mark.blocking
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_the_child_of_a_fork_forgets_the_spans_of_its_parent() -> None:
    held = Held()
    held.luck.lucky = True
    lucky = held.root()
    held.child(lucky, "of the lucky parent").end()
    held.luck.lucky = False
    root, begun = held.root(), held.root()
    held.child(root, "of the parent").end()
    context = multiprocessing.get_context("fork")
    reader, writer = context.Pipe(duplex=False)

    def child() -> None:
        before = held.holds.held
        # Its cycle has two halves now: no cause found here may keep this one alone.
        held.child(root, "of the child", success=False).end()
        held.child(begun, "mape_k.analyze", anomalies_detected=1).end()
        root.set_status(StatusCode.ERROR)
        root.end()
        held.child(lucky, "of the lucky child").end()
        lucky.end()
        mine = held.root(success=False)
        held.child(mine, "mine").end()
        mine.end()
        writer.send((before, held.holds.held, held.names))

    process = context.Process(target=child)
    process.start()
    # The child's end is the last: one that dies is seen, and not waited for.
    writer.close()
    process.join(10)

    assert process.exitcode == 0
    assert reader.recv() == (0, 0, ["of the lucky child", "mape_k.cycle", "mine", "mape_k.cycle"])
    assert held.holds.held == 2
    root.set_status(StatusCode.ERROR)
    root.end()
    assert held.names == ["of the parent", "mape_k.cycle"]
