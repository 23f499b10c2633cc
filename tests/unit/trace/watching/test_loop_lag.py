"""The histogram of the loop's delays, and who is named for one; without a loop and without real time."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Sampler

from mapek_runtime.trace import TracerProvider
from mapek_runtime.trace.watching.blame import BLOCKED_MS, Blockers, Delay
from mapek_runtime.trace.watching.histogram import LagHistogram
from mapek_runtime.trace.watching.lag import LoopLag
from mapek_runtime.trace.watching.sight import Step

SECONDS = st.floats(min_value=0.0, max_value=20_000.0)


# The histogram


@given(st.lists(SECONDS.filter(lambda x: x == 0 or x > 1e-5), min_size=1), st.floats(0.01, 1.0))
def test_a_quantile_is_within_five_percent_of_the_exact_one(delays: list[float], share: float) -> None:
    histogram = LagHistogram()
    for delay in delays:
        histogram.record(delay)

    exact = sorted(delays)[max(1, -int(-share * len(delays) // 1)) - 1]

    assert histogram.quantile(share) == pytest.approx(exact, rel=0.05)
    assert histogram.count == len(delays)
    assert histogram.maximum == max(delays)


@given(st.floats(min_value=0.001, max_value=50.0), st.floats(min_value=0.05, max_value=2.0))
def test_delays_that_nobody_could_look_for_are_counted_as_if_each_had_been(
    delay: float, every: float
) -> None:
    at_once, one_by_one = LagHistogram(), LagHistogram()

    at_once.record(delay, every=every)
    missed = delay
    while missed > 1e-9:
        one_by_one.record(missed)
        missed -= every

    got, wanted = at_once.as_dict(), one_by_one.as_dict()
    assert abs(got["count"] - wanted["count"]) <= 1
    assert got["sum"] == pytest.approx(wanted["sum"], rel=0.01, abs=1e-6)
    assert at_once.quantile(0.5) == pytest.approx(one_by_one.quantile(0.5), rel=0.2, abs=every)


@given(st.lists(st.floats(min_value=-10.0, max_value=1e9)))
def test_the_histogram_never_grows(delays: list[float]) -> None:
    histogram = LagHistogram()
    size = len(histogram._buckets)

    for delay in delays:
        histogram.record(delay, every=0.1)

    assert len(histogram._buckets) == size
    assert histogram.quantile(1.0) <= histogram.maximum


def test_a_bucket_holds_its_upper_bound_as_opentelemetry_has_it() -> None:
    histogram = LagHistogram()

    histogram.record(0.25)

    # 0.25 = 2**-2 is the upper bound of the bucket with index -2 * 8 - 1.
    assert histogram.as_dict()["positive"] == {"offset": -17, "bucketCounts": [1]}


def test_an_empty_histogram_says_zero() -> None:
    histogram = LagHistogram()

    assert histogram.milliseconds() == {"median": 0.0, "p99": 0.0, "max": 0.0}
    assert json.loads(json.dumps(histogram.as_dict()))["count"] == 0


# Who is named


def a_tracer(sampler: Sampler | None = None) -> Any:
    """Any, so that a span can be read and made older than it is."""
    return TracerProvider(sampler).get_tracer("test")


def here() -> FrameType:
    frame = sys._getframe(1)
    assert frame is not None
    return frame


def steps() -> Iterator[Step]:
    """The steps of a task, each in a frame of its own."""

    def one() -> Step:
        return Step((here(),), None)

    while True:
        yield one()


def test_the_innermost_span_is_marked_with_the_time_and_the_line() -> None:
    tracer = a_tracer()
    step, delay = next(steps()), Delay(100.0, 0.1)

    with tracer.start_as_current_span("outer") as outer, tracer.start_as_current_span("inner") as inner:
        # Spans are marked with no more than their age.
        inner._start_time -= 10**9
        delay.seen(step, 100.1)
        delay.read(step, 100.25)

    assert inner.attributes[BLOCKED_MS] == 250.0
    assert [event.name for event in inner.events] == ["asyncio.loop.blocked"]
    assert inner.events[0].attributes["code.file.path"] == __file__
    assert inner.events[0].attributes["code.function.name"].endswith("one")
    assert BLOCKED_MS not in outer.attributes


def test_a_span_is_not_marked_with_more_than_its_age() -> None:
    tracer = a_tracer()
    step, delay = next(steps()), Delay(100.0, 0.1)

    with tracer.start_as_current_span("young") as span:
        delay.seen(step, 160.0)
        delay.read(step, 160.0)

    assert 0 <= span.attributes[BLOCKED_MS] < 30_000


def test_delays_of_one_span_add_up() -> None:
    tracer = a_tracer()

    with tracer.start_as_current_span("long") as span:
        span._start_time -= 10**10
        for _ in range(3):
            step, delay = next(steps()), Delay(100.0, 0.1)
            delay.seen(step, 100.1)
            delay.read(step, 100.2)
            delay.end(100.25)

    assert span.attributes[BLOCKED_MS] == pytest.approx(750.0)
    assert len(span.events) == 3


def test_a_step_that_came_later_is_named_once_it_held_the_loop_long_enough_by_itself() -> None:
    first, short, long = (step for step, _ in zip(steps(), range(3), strict=False))
    delay = Delay(100.0, 0.1)

    for step, now in ((first, 100.125), (short, 100.15), (long, 100.2), (long, 100.5)):
        delay.seen(step, now)
        delay.read(step, now)
    delay.end(100.6)

    assert [round(holder.seconds, 3) for holder in delay.named()] == [0.125, 0.4]


def test_another_span_of_the_same_step_is_told_apart() -> None:
    tracer = a_tracer()
    step, delay = next(steps()), Delay(100.0, 0.1)

    for name, now in (("a", 100.2), ("b", 100.5)):
        with tracer.start_as_current_span(name) as span:
            span._start_time -= 10**10
            delay.seen(step, now)
            delay.read(step, now)
    delay.end(100.5)

    assert [(holder.span_name, round(holder.seconds, 3)) for holder in delay.named()] == [
        ("a", 0.2),
        ("b", 0.3),
    ]


def test_a_step_that_is_over_is_not_blamed_with_the_span_of_the_next() -> None:
    tracer = a_tracer()
    over, next_one = (step for step, _ in zip(steps(), range(2), strict=False))
    delay = Delay(100.0, 0.1)

    delay.seen(over, 100.2)
    with tracer.start_as_current_span("innocent") as span:
        delay.read(next_one, 100.2)
    delay.end(100.2)

    assert BLOCKED_MS not in span.attributes
    assert [holder.span_name for holder in delay.named()] == [None]


def test_an_unsampled_span_is_counted_by_its_function() -> None:
    tracer = a_tracer(ALWAYS_OFF)
    step, delay, blockers = next(steps()), Delay(100.0, 0.1), Blockers()

    with tracer.start_as_current_span("nobody samples it"):
        delay.seen(step, 100.2)
        delay.read(step, 100.2)
    delay.end(100.2)
    for holder in delay.named():
        blockers.count(holder)

    (blocker,) = blockers.by_time()
    assert (blocker.is_span, blocker.count) == (False, 1)
    assert blocker.name.endswith("one")


def test_nothing_of_the_program_is_kept_after_the_end() -> None:
    tracer = a_tracer()
    step, delay = next(steps()), Delay(100.0, 0.1)
    with tracer.start_as_current_span("a"):
        delay.seen(step, 100.2)
        delay.read(step, 100.2)

    delay.end(100.3)

    assert all(holder.root is None and holder.span is None for holder in delay.holders)


def test_a_span_whose_lock_is_held_is_left_alone() -> None:
    from opentelemetry.sdk import trace as sdk

    tracer = sdk.TracerProvider().get_tracer("test")
    step, delay = next(steps()), Delay(100.0, 0.1)

    with tracer.start_as_current_span("a") as span:
        assert isinstance(span, sdk.Span)
        delay.seen(step, 100.2)
        with span._lock:
            # Would wait for ever for the lock that this very thread holds.
            delay.read(step, 100.2)
        assert span.attributes is not None
        assert BLOCKED_MS not in span.attributes
        delay.read(step, 100.3)
        assert BLOCKED_MS in span.attributes


def test_the_names_are_bounded() -> None:
    blockers, step = Blockers(), next(steps())

    for number in range(1000):
        delay = Delay(100.0, 0.1)
        delay.seen(step, 100.2)
        delay.holders[0].span_name = f"span {number}"
        blockers.count(delay.holders[0])

    found = blockers.by_time()
    assert len(found) == 201
    assert found[0].name == "(others)"
    assert found[0].count == 800
    assert sum(blocker.count for blocker in found) == 1000


@pytest.mark.parametrize("wrong", [{"tick": 0}, {"tick": -1.0}, {"threshold": 0.001}, {"threshold": 1e9}])
def test_a_setting_out_of_range_is_refused_with_its_name_and_value(wrong: dict[str, float]) -> None:
    ((name, value),) = wrong.items()

    with pytest.raises(ValueError, match=f"{name} is {value!r}"):
        LoopLag(**wrong)
