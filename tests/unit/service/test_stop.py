"""What a run does when it is told to stop: once, twice, three times, and by which signals."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from mapek_runtime.service.stop import Stop

pytestmark = [
    pytest.mark.every_loop,
    pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no such signals"),
]


async def test_told_once_it_stops_and_twice_it_hurries() -> None:
    with Stop() as stop:
        stop.tell()
        after_once = stop.asked.is_set(), stop.hurried.is_set()
        stop.tell()
        after_twice = stop.asked.is_set(), stop.hurried.is_set()

    assert after_once == (True, False)
    assert after_twice == (True, True)


async def test_told_a_third_time_it_cancels_whoever_runs() -> None:
    async def close() -> None:
        with Stop() as stop:
            for _ in range(3):
                stop.tell()
            await asyncio.Event().wait()

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(close())


async def test_an_interrupt_stops_a_run_that_a_script_has_put_in_the_background() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Stop() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            async with asyncio.timeout(10):
                await stop.asked.wait()
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda n: n.name)
async def test_a_signal_tells_it_and_its_handler_is_gone_afterwards(
    number: signal.Signals, caplog: pytest.LogCaptureFixture
) -> None:
    before = signal.getsignal(number)

    with caplog.at_level("INFO"), Stop() as stop:
        os.kill(os.getpid(), number)
        async with asyncio.timeout(10):
            await stop.asked.wait()

    assert signal.getsignal(number) is before
    assert caplog.messages == [f"{number.name}: stopping; the running cycles are finished first"]


async def test_a_hangup_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Stop() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGTERM)
            async with asyncio.timeout(10):
                await stop.asked.wait()
            # The other one was sent first.
            assert not stop.hurried.is_set()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
