"""Programs ended by a signal, a cancellation or their own end, at moments nobody chose: what arrives."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from asyncio.subprocess import Process
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.integration.collector import Collector, collector

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork and no signals"),
]

PROGRAM = Path(__file__).with_name("ending_program.py")
STATUS = {"SIGTERM": -signal.SIGTERM, "SIGINT": -signal.SIGINT, "cancel": 0, "end": 0}
LAST_WORDS = {
    "SIGTERM": "",
    "SIGINT": r"Traceback .*\nKeyboardInterrupt\n",
    "cancel": r"(a span ended after the shutdown[^\n]*\n)?",
    "end": "",
}
"""What stands on the standard error of such a program."""


@dataclass
class Run:
    """One program that was ended."""

    status: int
    ended: list[str]
    account: dict[str, Any]
    log: str


def spans(there: Collector) -> list[Span]:
    """Every span received, as often as it was."""
    requests = [ExportTraceServiceRequest.FromString(body) for body in there.bodies]
    return [
        s for r in requests for resource in r.resource_spans for c in resource.scope_spans for s in c.spans
    ]


def variables() -> dict[str, str]:
    """The environment without settings of this one."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "MAPEK_"))}


async def some_runs(way: str, there: Collector, folder: Path, seed: int, count: int) -> list[Run]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(PROGRAM), way, there.url, str(folder), str(seed), str(count),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=variables(),
    )  # fmt: skip
    try:
        async with asyncio.timeout(30 + 3 * count):
            output, log = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert (process.returncode, log.decode()) == (0, "")
    return [Run(**json.loads(line)) for line in output.splitlines()]


async def runs(way: str, there: Collector, folder: Path, count: int) -> list[Run]:
    """`count` runs, in up to four processes beside one another."""
    processes = 4 if count > 10 else 1
    async with asyncio.TaskGroup() as group:
        parts = [
            group.create_task(some_runs(way, there, folder, seed, (count + seed) // processes))
            for seed in range(processes)
        ]
    return [run for part in parts for run in part.result()]


@dataclass
class Ending:
    """Programs that were ended in one way, and what the collector has of them."""

    way: str
    runs: list[Run]
    received: list[Span]


async def ending(way: str, count: int, folder: Path) -> Ending:
    async with collector() as there:
        return Ending(way, await runs(way, there, folder, count), spans(there))


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ending]:
    """Three programs a way, the ways beside one another."""

    async def all_ways() -> list[Ending]:
        folder = tmp_path_factory.mktemp("few")
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(ending(way, 3, folder)) for way in STATUS]
        return [task.result() for task in tasks]

    return {done.way: done for done in asyncio.run(all_ways())}


@pytest.mark.parametrize("way", STATUS)
def test_no_ended_span_is_lost_to_a_healthy_collector(way: str, few: dict[str, Ending]) -> None:
    check(few[way], 3)


@pytest.mark.slow
@pytest.mark.parametrize(("way", "count"), [("SIGTERM", 200), ("SIGINT", 50), ("cancel", 50), ("end", 50)])
async def test_none_is_lost_however_often(way: str, count: int, tmp_path: Path) -> None:
    check(await ending(way, count, tmp_path), count)


def check(done: Ending, count: int) -> None:
    """Each span that ended arrived once, or was counted; and nobody said a word."""
    received = Counter(span.span_id.hex() for span in done.received)
    assert len(done.runs) == count
    for run in done.runs:
        assert run.status == STATUS[done.way], run.log
        assert re.fullmatch(LAST_WORDS[done.way], run.log, re.DOTALL), run.log
        assert run.account["balanced"]
        assert run.account["ended"] == len(run.ended) > 0
        missing = [span_id for span_id in run.ended if not received[span_id]]
        # A task that was cancelled has closed its processor, while others of the program go on.
        refused = run.account["dropped"].get("already_shutdown", 0) if done.way == "cancel" else 0
        assert len(missing) == refused
        assert run.account["exported"] == len(run.ended) - refused
    assert set(received) <= {span_id for run in done.runs for span_id in run.ended}
    assert set(received.values()) == {1}


@pytest.mark.parametrize("way", ["SIGTERM", "SIGINT", "end"])
def test_spans_that_end_because_the_program_does_say_that_they_were_cancelled(
    way: str, few: dict[str, Ending]
) -> None:
    cancelled = Counter(
        span.name
        for span in few[way].received
        if any(a.key == "asyncio.cancelled" and a.value.bool_value for a in span.attributes)
    )

    # Six tasks a program, each within its span.
    assert cancelled["outer"] == 18


QUIET = """
import asyncio, atexit, mapek_runtime, os, sys
atexit.register(print, "exit handler")

async def main():
    try:
        async with mapek_runtime.tracing(service_name="quiet") as provider:
            provider.get_tracer("t").start_span("before").end()
            with provider.get_tracer("t").start_as_current_span("open"):
                print("ready", flush=True)
                await asyncio.sleep(60)
    finally:
        print("closed")

%s
"""
RUNNERS = {
    "asyncio": "asyncio.run(main())",
    "uvloop": "import uvloop; uvloop.run(main())",
    "anyio": "import anyio; anyio.run(main)",
    "a task group of anyio": """
import anyio
async def grouped():
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep, 60)
        await main()
anyio.run(grouped)
""",
    "a task group of asyncio": """
async def grouped():
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(60))
        await main()
asyncio.run(grouped())
""",
    "a function in the way": """
def start():
    try:
        asyncio.run(main())
    except Exception:
        print("not reached")
start()
""",
}


@asynccontextmanager
async def started(source: str, there: Collector | None = None, **extra: str) -> AsyncIterator[Process]:
    """A program; killed if it still runs when the block is left."""
    if there is not None:
        extra["MAPEK_EXPORT_ENDPOINT"] = there.url
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "ignore::DeprecationWarning", "-c", source, env={**variables(), **extra},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def is_ready(process: Process) -> None:
    """Wait for the program's word."""
    assert process.stdout is not None
    async with asyncio.timeout(30):
        assert await process.stdout.readline() == b"ready\n"


QUICK = ("asyncio", "uvloop", "a task group of anyio")


async def end(process: Process) -> tuple[int | None, str, str]:
    """Status, output and log of a process that is about to end."""
    async with asyncio.timeout(20):
        output, log = await process.communicate()
    return process.returncode, output.decode(), log.decode()


@pytest.mark.parametrize(
    "runner",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in RUNNERS],
)
async def test_a_program_ends_by_sigterm_in_order_and_without_noise(runner: str) -> None:
    async with collector() as there, started(QUIET % RUNNERS[runner], there) as process:
        await is_ready(process)
        process.send_signal(signal.SIGTERM)
        status, output, log = await end(process)
        received = {span.name: {a.key: a.value for a in span.attributes} for span in spans(there)}

    assert (status, log) == (-signal.SIGTERM, "")
    assert output == "closed\nexit handler\n"
    assert set(received) == {"before", "open"}
    assert received["open"]["asyncio.cancelled"].bool_value


async def test_a_second_sigterm_ends_a_program_that_is_still_closing() -> None:
    program = QUIET.replace('print("closed")', "print('ready', flush=True); await asyncio.sleep(60)")
    async with started(program % RUNNERS["asyncio"]) as process:
        for _ in range(2):
            await is_ready(process)
            process.send_signal(signal.SIGTERM)

        assert await end(process) == (-signal.SIGTERM, "", "")


async def test_a_program_that_catches_the_cancellation_ends_as_it_likes() -> None:
    caught = "try: asyncio.run(main())\nexcept asyncio.CancelledError as error: print(error)\nsys.exit(7)"
    async with started(QUIET % caught) as process:
        await is_ready(process)
        process.send_signal(signal.SIGTERM)

        assert await end(process) == (7, "closed\nSIGTERM\nexit handler\n", "")


async def test_a_sigterm_while_the_block_is_left_waits_until_everything_is_sent() -> None:
    program = QUIET.replace("await asyncio.sleep(60)", "pass").replace('print("ready", flush=True)', "")
    # The collector's first answer never comes; the program closes for as long as it is willing to wait.
    async with (
        collector(b"") as there,
        started(program % RUNNERS["asyncio"], there, MAPEK_EXPORT_SHUTDOWN="0.6") as process,
    ):
        while not there.bodies:  # noqa: ASYNC110 - the collector wakes nobody
            await asyncio.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        status, output, log = await end(process)

    assert status == -signal.SIGTERM
    assert output == "closed\nexit handler\n"
    assert "spans dropped that were not sent" in log
    assert "Traceback" not in log


OWN = {
    "a handler of its own": "signal.signal(signal.SIGTERM, lambda *_: loop.call_soon_threadsafe(own))",
    "a handler of the loop": "loop.add_signal_handler(signal.SIGTERM, own)",
}
QUICK_OWN = {("asyncio", "before"), ("uvloop", "inside")}
HANDLING = """
import asyncio, mapek_runtime, signal, sys
async def main():
    done = asyncio.Event()
    loop = asyncio.get_running_loop()
    def own():
        done.set()
    %s
    async with mapek_runtime.tracing(service_name="own"):
        %s
        print("ready", flush=True)
        await done.wait()
    print("as it likes")

%s
"""


@pytest.mark.parametrize(
    ("runner", "when", "own"),
    [
        pytest.param(runner, when, own, marks=() if (runner, when) in QUICK_OWN else pytest.mark.slow)
        for runner in ("asyncio", "uvloop")
        for when in ("before", "inside")
        for own in OWN
    ],
)
async def test_a_program_keeps_a_handler_of_its_own(own: str, when: str, runner: str) -> None:
    before, inside = (OWN[own], "") if when == "before" else ("", OWN[own])
    async with started(HANDLING % (before, inside, RUNNERS[runner])) as process:
        await is_ready(process)
        process.send_signal(signal.SIGTERM)

        assert await end(process) == (0, "as it likes\n", "")


FORKING = """
import asyncio, mapek_runtime, os, signal, time
async def main():
    async with mapek_runtime.tracing(service_name="forking"):
        child = os.fork()
        if not child:
            time.sleep(5)
            os._exit(1)
        await asyncio.sleep(0.1)
        os.kill(child, signal.SIGTERM)
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        print("ready", os.waitstatus_to_exitcode(status))
        await asyncio.sleep(0)
        print("still here")
asyncio.run(main())
"""


async def test_the_child_of_a_fork_ends_by_sigterm_as_ever_and_its_parent_goes_on() -> None:
    async with started(FORKING) as process:
        assert await end(process) == (0, f"ready {-signal.SIGTERM}\nstill here\n", "")
