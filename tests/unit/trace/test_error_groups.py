"""A group of errors is what is in it: each recorded once, as many as there is room for."""

from __future__ import annotations

import asyncio
import gc
import traceback
import weakref
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from opentelemetry.sdk import trace as sdk
from opentelemetry.trace import StatusCode

from mapek_runtime import traced
from mapek_runtime.trace.told import Told
from tests.unit.trace.both import counted, one, traced_by
from tests.unit.trace.traced import Traced
from tests.unit.trace.ways import WAYS, Way, attributes, declared, typed, work


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Iterator[Way]:
    """Each way into a span, under each provider; whatever is logged fails the test."""
    name, way = request.param
    with traced_by(name):
        yield way
    assert caplog.records == []


class Own(Exception):
    """An error of a type that was written in Python."""


def leaves(span: sdk.ReadableSpan) -> list[tuple[object, ...]]:
    """Path, type and message of each recorded leaf."""
    told = [attributes(event) for event in span.events if "exception.group.path" in (event.attributes or {})]
    return [(t["exception.group.path"], t["exception.type"], t["exception.message"]) for t in told]


async def test_each_error_of_a_group_has_its_event(way: Way) -> None:
    async def fail() -> None:
        inner = ExceptionGroup("inner", [raised(LookupError("b")), ExceptionGroup("z", [OSError("c")])])
        raise ExceptionGroup("outer", [raised(ValueError("a")), inner])

    with pytest.raises(ExceptionGroup):
        await way(fail)

    span = work()
    assert leaves(span) == [("0", "ValueError", "a"), ("1.0", "LookupError", "b"), ("1.1.0", "OSError", "c")]
    first, second, *_ = (attributes(event) for event in span.events)
    assert first["exception.type"] == "ExceptionGroup"
    assert first["exception.message"] == "outer (2 sub-exceptions)"
    assert first["exception.group.leaves"] == 3
    assert "fail" in first["exception.stacktrace"]
    assert "raise error" in second["exception.stacktrace"]
    assert second["exception.escaped"] == "True"
    assert attributes(span) == typed(way, "ExceptionGroup")


def raised(error: Exception) -> Exception:
    try:
        raise error
    except Exception as caught:  # noqa: BLE001 - it is given back
        return caught


@pytest.mark.parametrize("name", ["ours", "stock"])
def test_a_huge_group_is_bounded_in_events_and_in_work(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    formatted = 0
    init = traceback.TracebackException.__init__

    def counting(self: Any, *args: Any, **kwargs: Any) -> None:
        nonlocal formatted
        formatted += 1
        init(self, *args, **kwargs)

    monkeypatch.setattr(traceback.TracebackException, "__init__", counting)
    with traced_by(name), suppress(ExceptionGroup), declared():
        raise ExceptionGroup("many", [ValueError(str(number)) for number in range(10_000)])

    span = work()
    assert [path for path, *_ in leaves(span)] == [str(number) for number in range(127)]
    assert len(span.events) + span.dropped_events == 10_001
    assert attributes(span.events[0])["exception.group.leaves"] == 10_000
    assert formatted <= 128


def test_a_group_pushes_out_the_older_half_of_the_events_at_most() -> None:
    traced = Traced(span_limits=sdk.SpanLimits(max_events=8))

    with suppress(ExceptionGroup), traced.tracer.start_as_current_span("x") as span:
        for number in range(8):
            span.add_event(str(number))
        raise ExceptionGroup("many", [ValueError(str(number)) for number in range(9)])

    done = traced.one()
    assert [event.name for event in done.events] == ["4", "5", "6", "7", *["exception"] * 4]
    assert done.dropped_events == 4 + 6


def test_a_span_without_room_for_events_counts_them_and_formats_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    traced = Traced(span_limits=sdk.SpanLimits(max_events=0))
    monkeypatch.setattr(traceback, "TracebackException", None)

    with suppress(ExceptionGroup), traced.tracer.start_as_current_span("x"):
        raise ExceptionGroup("two", [ValueError(), LookupError()])

    assert traced.one().dropped_events == 3
    assert traced.one().status.status_code is StatusCode.ERROR


def test_an_error_that_is_in_a_group_twice_is_recorded_once() -> None:
    traced = Traced()
    twice = ValueError("twice")
    inner = ExceptionGroup("inner", [twice])

    with suppress(ExceptionGroup), traced.tracer.start_as_current_span("x"):
        raise ExceptionGroup("outer", [twice, inner, inner, twice])

    assert leaves(traced.one()) == [("0", "ValueError", "twice")]
    assert attributes(traced.one().events[0])["exception.group.leaves"] == 1


class Odd(ExceptionGroup[Exception]):
    """A group that misleads whoever asks it."""

    def derive(self, excs: Any) -> Any:
        raise RuntimeError("no derivatives")

    @property
    def exceptions(self) -> Any:
        raise RuntimeError("none of your business")


def test_cycles_and_odd_groups_do_no_harm() -> None:
    traced = Traced()
    one, two = ValueError("one"), LookupError("two")
    one.__context__, two.__context__ = two, one
    one.__cause__, two.__cause__ = two, one
    odd = Odd("odd", [one, two])
    one.__cause__ = odd
    deep: Exception = OSError("deep")
    for _ in range(2_000):
        deep = ExceptionGroup("deeper", [deep])

    with pytest.raises(Odd) as raised, traced.tracer.start_as_current_span("odd"):
        raise odd
    with suppress(ExceptionGroup), traced.tracer.start_as_current_span("deep"):
        raise deep

    assert raised.value is odd
    first, second = traced.spans
    assert leaves(first) == [("0", "ValueError", "one"), ("1", "LookupError", "two")]
    assert len(second.events) == 2


def test_an_error_caused_by_a_huge_group_is_shown_without_it() -> None:
    traced = Traced()

    with suppress(ValueError), traced.tracer.start_as_current_span("x"):
        raise ValueError("in short") from ExceptionGroup("many", [OSError()] * 1000)

    (event,) = traced.one().events
    shown = attributes(event)["exception.stacktrace"]
    assert "sub-exceptions" not in shown
    assert shown.endswith("ValueError: in short\n")


@pytest.mark.parametrize("name", ["ours", "stock"])
@pytest.mark.parametrize("kind", [ValueError, Own], ids=["a built-in type", "a type of one's own"])
async def test_what_a_child_recorded_is_not_repeated_by_its_parent(name: str, kind: type[Exception]) -> None:
    @traced("child")
    async def child() -> None:
        raise kind("in the child")

    async def bare() -> None:
        raise LookupError("outside of spans")

    with traced_by(name), suppress(ExceptionGroup):
        async with declared(), asyncio.TaskGroup() as tasks:
            tasks.create_task(child())
            tasks.create_task(bare())

    (event,) = one("child").events
    assert attributes(event)["exception.type"].endswith(kind.__name__)
    assert leaves(work()) == [("1", "LookupError", "outside of spans")]
    assert attributes(work().events[0])["exception.group.leaves"] == 2
    assert counted() == {"child": 1, "test.work": 1}


def test_another_trace_tells_of_it_again() -> None:
    traced = Traced()
    error = ValueError("shared")

    for name in ("first", "second"):
        with suppress(ExceptionGroup), traced.tracer.start_as_current_span(name):
            raise ExceptionGroup("group", [error])

    assert [leaves(span) for span in traced.spans] == [[("0", "ValueError", "shared")]] * 2


def test_nothing_is_kept_alive_or_written_on_the_error() -> None:
    traced = Traced()

    def fail() -> weakref.ref[Own]:
        error = Own("x")
        with suppress(Own), traced.tracer.start_as_current_span("x"):
            raise error
        assert vars(error) == {}
        return weakref.ref(error)

    seen = fail()
    gc.collect()

    assert seen() is None


def test_an_address_that_is_used_again_is_told_apart() -> None:
    told = Told()
    first = raised(ValueError("one"))
    told.add(first, 1)
    assert told.knows(first, 1)
    assert not told.knows(first, 2)

    # Another error at the same address, as the allocator may have it.
    second = raised(ValueError("two"))
    told._young[id(second)] = told._young[id(first)]

    assert not told.knows(second, 1)


def test_what_is_remembered_is_bounded() -> None:
    told = Told(most=10)
    errors = [ValueError(str(number)) for number in range(100)]
    for error in errors:
        told.add(error, 1)

    assert len(told) <= 20
    assert all(told.knows(error, 1) for error in errors[-10:])


@pytest.mark.parametrize("name", ["ours", "stock"])
def test_a_group_of_errors_and_exits_is_both(name: str) -> None:
    with traced_by(name), suppress(BaseExceptionGroup), declared():
        raise BaseExceptionGroup("mixed", [asyncio.CancelledError("enough"), ValueError("no"), SystemExit(2)])

    assert attributes(work()) == {
        "asyncio.cancelled": True,
        "asyncio.cancelled.message": "enough",
        "exit.type": "SystemExit",
        "process.exit.code": 2,
        "error.type": "BaseExceptionGroup",
    }
    assert leaves(work()) == [("1", "ValueError", "no")]


@pytest.mark.parametrize("name", ["ours", "stock"])
def test_a_group_of_cancellations_is_a_cancellation(name: str) -> None:
    with traced_by(name), suppress(BaseExceptionGroup), declared():
        raise BaseExceptionGroup("all", [asyncio.CancelledError(), asyncio.CancelledError()])

    assert attributes(work()) == {"asyncio.cancelled": True}
    assert work().status.status_code is StatusCode.UNSET
    assert work().events == ()


def test_record_exception_takes_a_group_too_and_keeps_what_it_was_given() -> None:
    traced = Traced()

    with traced.tracer.start_as_current_span("x") as span:
        span.record_exception(ExceptionGroup("two", [ValueError("a"), OSError("b")]), {"plugin": "p"}, 7)

    events = traced.one().events
    assert [(event.timestamp, attributes(event)["plugin"]) for event in events] == [(7, "p")] * 3
    assert [attributes(event)["exception.escaped"] for event in events] == ["False"] * 3
