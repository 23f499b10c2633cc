"""SIGTERM under `opentelemetry-instrument`: to programs with and without a handler of their own."""

from __future__ import annotations

import asyncio
import signal

import pytest

from .collector import Collector, collector
from .test_distro import start

pytestmark = pytest.mark.slow

SLEEPING = """
import time
from opentelemetry import trace

trace.get_tracer("app").start_span("before").end()
print("ready", flush=True)
time.sleep(60)
"""

WAITING = """
import asyncio
from opentelemetry import trace

async def main():
    trace.get_tracer("app").start_span("before").end()
    print("ready", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""

HANDLING = """
import signal, sys, time
from opentelemetry import trace

signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
trace.get_tracer("app").start_span("before").end()
print("ready", flush=True)
time.sleep(60)
"""

BLOCK = """
import asyncio, mapek_runtime
from opentelemetry import trace

async def main():
    trace.get_tracer("app").start_span("of the program").end()
    try:
        async with mapek_runtime.tracing() as provider:
            tracer = provider.get_tracer("app")
            tracer.start_span("of the block").end()
            with tracer.start_as_current_span("open"):
                print("ready", flush=True)
                await asyncio.sleep(60)
    except asyncio.CancelledError as error:
        print(*error.args, flush=True)
        raise

asyncio.run(main())
"""

AFTERWARDS = """
import asyncio, mapek_runtime, time
from opentelemetry import trace

async def main():
    async with mapek_runtime.tracing():
        pass

asyncio.run(main())
trace.get_tracer("app").start_span("before").end()
print("ready", flush=True)
time.sleep(60)
"""


async def signalled(program: str, there: Collector, **variables: str) -> tuple[int, str]:
    """The program, sent a SIGTERM when it says that it is ready: exit code, log."""
    process = await start(program, there, **variables)
    async with asyncio.timeout(60):
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        _, log = await process.communicate()
    assert process.returncode is not None
    return process.returncode, log.decode()


@pytest.mark.parametrize("program", [SLEEPING, WAITING], ids=["no loop", "on a loop"])
async def test_a_sigterm_that_nobody_handles_takes_effect_after_the_spans_were_sent(program: str) -> None:
    async with collector() as there:
        code, log = await signalled(program, there)

    assert (code, log) == (-signal.SIGTERM, "")
    assert there.names == ["before"]


async def test_a_block_of_ours_handles_sigterm_under_the_drop_in_and_neither_loses_a_span() -> None:
    async with collector() as there:
        process = await start(BLOCK, there)
        async with asyncio.timeout(60):
            assert process.stdout is not None
            assert await process.stdout.readline() == b"ready\n"
            process.send_signal(signal.SIGTERM)
            output, log = await process.communicate()

    assert (process.returncode, log) == (-signal.SIGTERM, b"")
    assert output == b"SIGTERM\n"
    assert sorted(there.names) == ["of the block", "of the program", "open"]


async def test_after_a_block_the_drop_in_handles_sigterm_again() -> None:
    async with collector() as there:
        code, log = await signalled(AFTERWARDS, there)

    assert (code, log) == (-signal.SIGTERM, "")
    assert there.names == ["before"]


@pytest.mark.slow
async def test_a_collector_that_never_answers_does_not_keep_the_program_from_ending() -> None:
    async with collector(b"", b"") as there:
        code, _ = await signalled(WAITING, there)

    assert code == -signal.SIGTERM


async def test_a_program_handles_sigterm_as_it_did() -> None:
    async with collector() as there:
        code, log = await signalled(HANDLING, there)

    assert (code, log) == (7, "")
    assert there.names == ["before"]
