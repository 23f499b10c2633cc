"""The autojump clock: it jumps when every task sleeps, and only then."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
import time

import anyio.to_thread
import pytest

from mapek_runtime.testing import AutojumpClock, Recorder, unix_time_ns


async def test_an_hour_passes_at_once(autojump: AutojumpClock) -> None:
    await asyncio.sleep(3600)

    assert autojump.elapsed == 3600
    assert autojump.jumps == 1


async def test_time_stands_still_while_something_can_run(autojump: AutojumpClock) -> None:
    for _ in range(100):
        await asyncio.sleep(0)

    assert autojump.elapsed == 0


async def test_sleepers_wake_in_the_order_of_their_times(autojump: AutojumpClock) -> None:
    woken: list[tuple[str, float]] = []

    async def sleeper(name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        woken.append((name, autojump.elapsed))

    async with asyncio.TaskGroup() as group:
        group.create_task(sleeper("late", 20))
        group.create_task(sleeper("early", 10))

    assert woken == [("early", 10), ("late", 20)]


async def test_a_limit_runs_out_without_waiting_for_it(autojump: AutojumpClock) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(600):
            await asyncio.Event().wait()

    assert autojump.elapsed == 600


async def test_it_does_not_jump_while_a_thread_works(autojump: AutojumpClock) -> None:
    released = threading.Event()

    async def release() -> None:
        await asyncio.sleep(0.01)
        released.set()

    async with asyncio.TaskGroup() as group, asyncio.timeout(3600):
        group.create_task(release())
        assert await asyncio.to_thread(released.wait, 30)

    assert autojump.elapsed < 30


async def test_it_does_not_jump_while_a_thread_of_anyio_works(autojump: AutojumpClock) -> None:
    async with asyncio.timeout(3600):
        await anyio.to_thread.run_sync(time.sleep, 0.02)

    assert autojump.elapsed < 30


async def test_it_jumps_again_when_the_threads_have_come_back(autojump: AutojumpClock) -> None:
    await asyncio.to_thread(int)
    await anyio.to_thread.run_sync(int)
    jumps = autojump.jumps

    await asyncio.sleep(3600)

    assert autojump.jumps == jumps + 1


async def test_it_does_not_jump_while_a_socket_is_waited_for(autojump: AutojumpClock) -> None:
    loop = asyncio.get_running_loop()
    mine, other = socket.socketpair()
    with mine, other:
        mine.setblocking(False)
        timer = threading.Timer(0.02, other.send, [b"hello"])
        timer.start()
        async with asyncio.timeout(3600):
            received = await loop.sock_recv(mine, 5)
        timer.join()

    assert received == b"hello"
    assert autojump.elapsed < 30


async def test_it_does_not_jump_while_a_child_process_runs(autojump: AutojumpClock) -> None:
    async with asyncio.timeout(3600):
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", "pass")
        code = await process.wait()

    assert code == 0
    assert autojump.elapsed < 60


async def test_time_flows_while_it_cannot_jump(autojump: AutojumpClock) -> None:
    with autojump.hold():
        await asyncio.sleep(0.02)

    assert autojump.jumps == 0
    assert autojump.elapsed == pytest.approx(0.02)


async def test_the_clock_never_runs_backwards() -> None:
    loop = asyncio.get_running_loop()
    with AutojumpClock() as clock:
        await asyncio.sleep(3600)
        inside = clock.time()

    assert loop.time() >= inside
    await asyncio.sleep(0)


async def test_a_second_clock_on_one_loop_is_refused(autojump: AutojumpClock) -> None:
    with pytest.raises(RuntimeError, match="in force"), AutojumpClock():
        pass


def test_a_loop_that_cannot_be_steered_is_refused() -> None:
    uvloop = pytest.importorskip("uvloop")

    async def steer() -> None:
        with AutojumpClock():
            pass

    with (
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        pytest.raises(RuntimeError, match="autojump cannot steer Loop"),
    ):
        runner.run(steer())


async def test_spans_follow_the_clock(autojump: AutojumpClock, recorder: Recorder) -> None:
    with recorder.provider.get_tracer("tests").start_as_current_span("long"):
        await asyncio.sleep(3600)

    span = recorder.one("long")
    assert span.start_time is not None
    assert span.end_time is not None
    assert span.end_time - span.start_time == 3600 * 10**9


async def test_without_a_clock_the_time_is_the_real_one() -> None:
    before = time.time_ns()

    assert before <= unix_time_ns() <= time.time_ns()
