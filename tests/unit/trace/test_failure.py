"""However a block ends, its span ends and says how; nothing is swallowed, under any provider."""

from __future__ import annotations

import asyncio
import contextvars
import traceback
from collections.abc import Generator, Iterator
from contextlib import suppress
from typing import Any

import anyio
import pytest
from opentelemetry.trace import StatusCode

from mapek_runtime import traced
from mapek_runtime.testing import AutojumpClock
from mapek_runtime.trace.failure import stacktrace_of
from tests.unit.trace.both import exporter, one, ours, stock, traced_by
from tests.unit.trace.traced import Traced
from tests.unit.trace.ways import WAYS, Way, attributes, declared, group, in_a_declared_coroutine, typed, work


@group.span("deed")
def deed(success: bool = True) -> None:
    """Something that may fail."""


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Iterator[Way]:
    """Each way into a span, under each provider; whatever is logged fails the test."""
    name, way = request.param
    with traced_by(name):
        yield way
    assert caplog.records == []


async def forever() -> None:
    await asyncio.Event().wait()


def assert_cancelled(message: str | None = None) -> None:
    span = work()
    marks = attributes(span)
    assert marks.pop("asyncio.cancelled") is True
    if message is not None:
        assert marks.pop("asyncio.cancelled.message") == message
        assert marks == {}
    assert span.status.status_code is StatusCode.UNSET
    assert span.events == ()
    assert span.end_time is not None


# Cancellation


async def test_a_cancelled_task_is_marked_and_stays_cancelled(way: Way) -> None:
    task = asyncio.ensure_future(way(forever))
    await asyncio.sleep(0)
    task.cancel("enough")
    asked = task.cancelling()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert task.cancelled()
    assert task.cancelling() == asked == 1
    assert_cancelled("enough")


async def test_a_timeout_of_ones_own_marks_what_it_cut(way: Way, autojump: AutojumpClock) -> None:
    task = asyncio.current_task()
    assert task is not None

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await way(forever)

    assert task.cancelling() == 0
    assert_cancelled()


async def test_wait_for_marks_what_it_cut(way: Way, autojump: AutojumpClock) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(way(forever), 1)

    assert_cancelled()


async def test_the_siblings_of_a_failed_task_are_marked(way: Way) -> None:
    async def fail() -> None:
        await asyncio.sleep(0)
        raise LookupError("lost")

    async def wait() -> None:
        await way(forever)

    siblings: list[asyncio.Task[None]] = []
    try:
        async with asyncio.TaskGroup() as tasks:
            siblings.append(tasks.create_task(wait()))
            tasks.create_task(fail())
    except* LookupError:
        pass

    assert siblings[0].cancelled()
    assert_cancelled()


async def test_the_scopes_of_anyio_mark_what_they_cut(way: Way, autojump: AutojumpClock) -> None:
    with anyio.move_on_after(1) as scope:
        await way(forever)
    assert scope.cancelled_caught
    assert_cancelled()

    exporter.clear()
    with pytest.raises(TimeoutError), anyio.fail_after(1):
        await way(forever)
    assert_cancelled()


async def test_cancellation_that_the_body_survives_is_no_mark(way: Way) -> None:
    async def stubborn() -> None:
        with suppress(asyncio.CancelledError):
            await forever()

    task = asyncio.ensure_future(way(stubborn))
    await asyncio.sleep(0)
    task.cancel()
    await task

    assert attributes(work()) == {}


@pytest.mark.parametrize("name", ["ours", "stock"])
async def test_a_policy_makes_cancellation_an_error(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    provider = ours if name == "ours" else stock
    with traced_by(name):
        tracer = provider.get_tracer("mapek.test")
        for holder in (provider, tracer):
            monkeypatch.setattr(holder, "cancelled_status", "error", raising=False)

        task = asyncio.create_task(in_a_declared_coroutine(forever))
        await asyncio.sleep(0)
        task.cancel("enough")
        with pytest.raises(asyncio.CancelledError):
            await task

    span = work()
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "CancelledError: enough")
    assert attributes(span) == {
        "asyncio.cancelled": True,
        "asyncio.cancelled.message": "enough",
        "error.type": "CancelledError",
    }
    assert span.events == ()
    assert task.cancelled()


@pytest.mark.parametrize("name", ["ours", "stock"])
async def test_what_was_cancelled_was_no_success(name: str) -> None:
    async def act() -> None:
        with deed():
            await forever()

    with traced_by(name):
        task = asyncio.create_task(act())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert attributes(one("test.deed")) == {"success": False, "asyncio.cancelled": True}


# Other exits


class Abort(BaseException):
    """What some frameworks raise to get out of everything."""


@pytest.mark.parametrize(
    ("exit_", "marks"),
    [
        (KeyboardInterrupt(), {"exit.type": "KeyboardInterrupt"}),
        (SystemExit(3), {"exit.type": "SystemExit", "process.exit.code": 3}),
        (SystemExit(), {"exit.type": "SystemExit", "process.exit.code": 0}),
        (SystemExit("no"), {"exit.type": "SystemExit", "process.exit.code": 1}),
        (Abort(), {"exit.type": f"{__name__}.Abort"}),
    ],
    ids=["interrupt", "exit 3", "exit", "exit with a text", "a base exception"],
)
def test_an_exit_is_marked_and_no_error(way: Way, exit_: BaseException, marks: dict[str, object]) -> None:
    async def leave() -> None:
        raise exit_

    with pytest.raises(type(exit_)) as raised:
        way(leave).__await__().send(None)

    assert raised.value is exit_
    span = work()
    assert attributes(span) == marks
    assert span.status.status_code is StatusCode.UNSET
    assert span.events == ()


def test_a_closed_coroutine_ends_as_usual(way: Way) -> None:
    @traced("outer")
    async def pause() -> None:
        await Pause()

    class Pause:
        def __await__(self) -> Generator[None, None, None]:
            yield

    def start_and_close() -> None:
        coroutine: Any = way(pause)
        coroutine.send(None)
        coroutine.close()

    # In a context of its own, as a task has.
    contextvars.copy_context().run(start_and_close)

    for span in (work(), one("outer")):
        assert attributes(span) == {"generator.closed": True}
        assert span.status.status_code is StatusCode.UNSET
        assert span.events == ()


@pytest.mark.parametrize("name", ["ours", "stock"])
@pytest.mark.parametrize("error", [LookupError("x"), KeyboardInterrupt()], ids=["error", "interrupt"])
@pytest.mark.parametrize("kind", ["function", "generator"])
def test_plain_functions_and_generators_end_alike(name: str, error: BaseException, kind: str) -> None:
    @traced("test.work")
    def function() -> None:
        raise error

    @traced("test.work")
    def generator() -> Iterator[int]:
        yield 1
        raise error

    with traced_by(name), pytest.raises(type(error)) as raised:
        function() if kind == "function" else list(generator())

    assert raised.value is error
    key = "error.type" if isinstance(error, Exception) else "exit.type"
    assert attributes(work()) == {key: type(error).__name__}


# Errors


async def test_an_error_is_recorded_as_the_sdk_does_with_its_type(way: Way) -> None:
    error = asyncio.IncompleteReadError(b"", 3)

    async def fail() -> None:
        raise error

    with pytest.raises(asyncio.IncompleteReadError) as raised:
        await way(fail)

    assert raised.value is error
    span = work()
    assert (span.status.status_code, span.status.description) == (
        StatusCode.ERROR,
        f"IncompleteReadError: {error}",
    )
    assert attributes(span) == typed(way, "IncompleteReadError")
    (event,) = span.events
    told = attributes(event)
    assert told.pop("exception.stacktrace").endswith(f"asyncio.exceptions.IncompleteReadError: {error}\n")
    assert told == {
        "exception.type": "asyncio.exceptions.IncompleteReadError",
        "exception.message": str(error),
        "exception.escaped": "True",
    }


def test_the_stack_trace_is_the_sdks() -> None:
    def raised() -> Exception:
        try:
            try:
                raise ValueError("one")
            except ValueError as error:
                error.add_note("a note")
                raise LookupError("two") from error
        except LookupError as error:
            return error

    for error in (raised(), SyntaxError("x", ("file", 1, 2, "text"))):
        assert stacktrace_of(error) == "".join(traceback.format_exception(error))


def test_a_program_that_said_ok_or_the_type_keeps_its_word() -> None:
    traced = Traced()

    with suppress(ValueError), traced.tracer.start_as_current_span("ok") as span:
        span.set_status(StatusCode.OK)
        raise ValueError("expected")
    with suppress(ValueError), traced.tracer.start_as_current_span("typed") as span:
        span.set_attribute("error.type", "503")
        raise ValueError("no")

    ok, typed = traced.spans
    assert (ok.status.status_code, attributes(ok)) == (StatusCode.OK, {})
    assert attributes(typed) == {"error.type": "503"}


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize("name", ["ours", "stock"])
@pytest.mark.parametrize("error", [Mute(), ValueError("lone \udc80")], ids=["mute", "surrogate"])
def test_an_error_without_a_proper_text_is_recorded_and_raised_unchanged(name: str, error: Exception) -> None:
    with traced_by(name), pytest.raises(type(error)) as raised, declared():
        raise error

    assert raised.value is error
    (event,) = work().events
    for text in (work().status.description or "", *map(str, attributes(event).values())):
        assert text.encode()
