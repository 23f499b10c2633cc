"""A SIGTERM cancels the task of the block, unless somebody else handles it; afterwards all is as before."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

import pytest

from mapek_runtime.service.signals import Ending, stand_in

pytestmark = pytest.mark.every_loop


@pytest.fixture(autouse=True)
def everything_is_put_back() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    hook = sys.excepthook
    assert before[signal.SIGTERM] is signal.SIG_DFL
    yield
    sys.excepthook = hook
    for number, handler in before.items():
        assert signal.getsignal(number) is handler
        signal.signal(number, handler)


async def in_a_task(ending: Ending, *, closing: float | None = None) -> str:
    """Send a SIGTERM inside the block, or while it is closed; what became of the task."""

    async def block() -> str:
        with ending:
            if closing is None:
                signal.raise_signal(signal.SIGTERM)
                await asyncio.sleep(5)
            ending.hold()
            if closing is not None:
                signal.raise_signal(signal.SIGTERM)
                await asyncio.sleep(closing)
                said.append("closed")
        await asyncio.sleep(0)
        return "not cancelled"

    said: list[str] = []
    task = asyncio.create_task(block())
    await asyncio.wait([task])
    if task.cancelled():
        with pytest.raises(asyncio.CancelledError) as caught:
            task.result()
        said += caught.value.args
    else:
        said.append(task.result())
    return " ".join(said)


async def test_a_sigterm_cancels_the_task_and_says_so() -> None:
    ending = Ending()

    assert await in_a_task(ending) == "SIGTERM"
    assert ending.told


async def test_a_sigterm_while_closing_waits_until_that_is_done() -> None:
    ending = Ending()

    assert await in_a_task(ending, closing=0.01) == "closed SIGTERM"
    assert ending.told


async def test_after_the_first_sigterm_the_second_ends_the_process_at_once() -> None:
    with Ending() as ending:
        ending.hold()
        signal.raise_signal(signal.SIGTERM)

        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        ending._held = None


async def test_without_a_signal_nothing_happens() -> None:
    hook = sys.excepthook
    with Ending() as ending:
        assert signal.getsignal(signal.SIGTERM) == ending._on_sigterm
        await asyncio.sleep(0)

    assert not ending.told
    assert sys.excepthook is hook


async def test_nothing_is_handled_where_that_is_not_wanted() -> None:
    with Ending(handle=False):
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


async def test_a_handler_of_the_program_stays() -> None:
    def own(*_: object) -> None: ...

    signal.signal(signal.SIGTERM, own)
    interrupt = signal.getsignal(signal.SIGINT)
    with Ending():
        assert signal.getsignal(signal.SIGTERM) is own
        assert signal.getsignal(signal.SIGINT) is interrupt
    assert signal.getsignal(signal.SIGTERM) is own
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


async def test_a_stand_in_gives_way_to_the_block_and_is_back_after_it() -> None:
    told: list[int] = []

    @stand_in
    def farewell(number: int, _frame: FrameType | None) -> None:
        told.append(number)

    signal.signal(signal.SIGTERM, farewell)
    try:
        with Ending() as ending:
            assert signal.getsignal(signal.SIGTERM) == ending._on_sigterm
        assert signal.getsignal(signal.SIGTERM) is farewell
        assert await in_a_task(Ending()) == "SIGTERM"
        assert told == []
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


async def test_a_block_whose_loop_is_gone_leaves_the_signal_to_the_stand_in() -> None:
    told: list[int] = []

    @stand_in
    def farewell(number: int, _frame: FrameType | None) -> None:
        told.append(number)

    signal.signal(signal.SIGTERM, farewell)
    interrupt = signal.getsignal(signal.SIGINT)
    try:
        with Ending() as ending:
            gone = asyncio.new_event_loop()
            gone.close()
            ending._loop = gone
            signal.raise_signal(signal.SIGTERM)
        assert told == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, interrupt)


async def test_a_handler_of_the_loop_stays() -> None:
    called = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, called.set)
    try:
        with Ending() as ending:
            signal.raise_signal(signal.SIGTERM)
            async with asyncio.timeout(5):
                await called.wait()
        assert not ending.told
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


async def test_a_handler_that_was_put_in_inside_the_block_stays_after_it() -> None:
    def own(*_: object) -> None: ...

    with Ending():
        signal.signal(signal.SIGTERM, own)
    assert signal.getsignal(signal.SIGTERM) is own
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


async def test_of_two_blocks_the_outer_one_handles_the_signal() -> None:
    with Ending() as outer:
        handler = signal.getsignal(signal.SIGTERM)
        with Ending():
            assert signal.getsignal(signal.SIGTERM) is handler
        assert signal.getsignal(signal.SIGTERM) is handler
    assert not outer.told


@pytest.mark.blocking
async def test_outside_the_main_thread_nothing_is_done() -> None:
    failed: list[BaseException] = []

    async def block() -> None:
        with Ending():
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL

    def run() -> None:
        try:
            asyncio.run(block())
        except BaseException as error:  # noqa: BLE001 - is told to the test
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()

    assert failed == []


async def test_sigint_is_only_listened_to(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _frame: called.append(number))
    try:
        with Ending() as ending:
            signal.raise_signal(signal.SIGINT)
            assert called == [signal.SIGINT]
            assert ending.told
    finally:
        signal.signal(signal.SIGINT, before)


async def test_a_first_sigint_while_closing_waits_and_a_second_does_not() -> None:
    called: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _frame: called.append(number))
    try:
        with Ending() as ending:
            ending.hold()
            signal.raise_signal(signal.SIGINT)
            assert called == []
            signal.raise_signal(signal.SIGINT)
            assert called == [signal.SIGINT]
        assert called == [signal.SIGINT] * 2
    finally:
        signal.signal(signal.SIGINT, before)


async def test_only_a_cancellation_ends_the_program_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[type[BaseException]] = []
    handlers: list[Any] = []

    def hook(kind: type[BaseException], _error: BaseException, _trace: TracebackType | None) -> None:
        told.append(kind)

    monkeypatch.setattr(sys, "excepthook", hook)
    monkeypatch.setattr("atexit.register", handlers.append)
    await in_a_task(Ending())

    sys.excepthook(ValueError, ValueError(), None)
    assert (told, handlers) == ([ValueError], [])

    with pytest.raises(SystemExit) as caught:
        sys.excepthook(asyncio.CancelledError, asyncio.CancelledError(), None)
    assert caught.value.code == 128 + signal.SIGTERM
    assert told == [ValueError]
    assert len(handlers) == 1
