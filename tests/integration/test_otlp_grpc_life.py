"""OTLP over gRPC through the life of a process: loops one after another, forks, the end of a program."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading

import pytest

from mapek_runtime.errors import TransportError
from mapek_runtime.export.batch import BatchSpanProcessor
from mapek_runtime.export.otlp.grpc_exporter import OTLPGrpcSpanExporter
from tests.integration.collector import end_spans
from tests.integration.grpc_collector import Reply, exporter, grpc_collector

pytestmark = pytest.mark.slow

HEAD = """
import asyncio, os, signal, sys, threading
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from mapek_runtime.errors import TransportError
from mapek_runtime.export.batch import BatchSpanProcessor
from mapek_runtime.export.otlp.grpc_exporter import OTLPGrpcSpanExporter
from mapek_runtime.trace import TracerProvider

exporter = OTLPGrpcSpanExporter(sys.argv[1], compression=sys.argv[2])

def tracer_for(exporter, **options):
    provider = TracerProvider(ALWAYS_ON, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter, **options))
    return provider.get_tracer("life")

def child(work):
    # What the child says, or that it hung: a fork that goes wrong must not take the test with it.
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        signal.alarm(10)
        try:
            work()
            sys.stdout.flush()
        except BaseException as error:
            print("child failed", repr(error), flush=True)
        finally:
            sys.exit(0)
    _, status = os.waitpid(pid, 0)
    print("status", status, flush=True)

async def refused():
    try:
        await exporter.send(b"of the child", 1)
        print("sent")
    except TransportError as error:
        print(error.error_type, "http/protobuf" in str(error))
    await exporter.aclose()
"""


async def run(program: str, url: str, compression: str = "none") -> tuple[str, str]:
    """What the program wrote to its output and to its errors."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-X",
        "dev",
        "-c",
        HEAD + program,
        url,
        compression,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        output, errors = await asyncio.wait_for(process.communicate(), 20)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, errors.decode()
    return output.decode(), errors.decode()


COMPRESSIONS = pytest.mark.parametrize("compression", ["none", "gzip"])


@COMPRESSIONS
async def test_one_exporter_serves_several_loops(compression: str) -> None:
    program = """
for number in range(5):
    asyncio.run(exporter.send(b"%d" % number, 1))
print(threading.active_count() <= 2)
"""
    async with grpc_collector() as there:
        output, errors = await run(program, there.url, compression)

    assert there.bodies == [b"0", b"1", b"2", b"3", b"4"]
    assert (output, errors) == ("True\n", "")


@COMPRESSIONS
async def test_a_loop_that_ends_in_the_middle_of_a_call_leaves_the_next_one_alone(compression: str) -> None:
    program = """
async def cut_short():
    task = asyncio.ensure_future(exporter.send(b"cut", 1))
    await asyncio.sleep(0.2)
    try:
        task.cancel()
        await task
    except asyncio.CancelledError:
        await exporter.release()
for _ in range(5):
    asyncio.run(cut_short())
    asyncio.run(exporter.send(b"next", 1))
"""
    async with grpc_collector(*[Reply(silent=True), Reply()] * 5) as there:
        output, errors = await run(program, there.url, compression)

    assert there.bodies == [b"cut", b"next"] * 5
    assert (output, errors) == ("", "")


@COMPRESSIONS
async def test_a_loop_that_is_closed_under_a_call_does_not_harm_the_next_one(compression: str) -> None:
    program = """
loop = asyncio.new_event_loop()
task = loop.create_task(exporter.send(b"cut", 1))
loop.run_until_complete(asyncio.sleep(0.2))
loop.close()
asyncio.run(exporter.send(b"next", 1))
asyncio.run(exporter.send(b"last", 1))
"""
    async with grpc_collector(Reply(silent=True)) as there:
        await run(program, there.url, compression)

    assert there.bodies == [b"cut", b"next", b"last"]


@COMPRESSIONS
async def test_what_is_left_at_the_end_of_the_program_is_sent(compression: str) -> None:
    program = """
tracer = tracer_for(exporter, max_export_batch_size=40)
async def program():
    for number in range(100):
        tracer.start_span(f"{number}").end()
        await asyncio.sleep(0)
asyncio.run(program())
tracer.start_span("outside").end()
"""
    async with grpc_collector() as there:
        output, errors = await run(program, there.url, compression)

    assert (output, errors) == ("", "")
    # At least once: a request that was on its way when the loop ended is sent again.
    assert set(there.names) == {*(str(number) for number in range(100)), "outside"}


NO_MORE_THREADS = """
import atexit
def no_more_threads(*_):
    raise RuntimeError("can't create new thread at interpreter shutdown")
def take_threads_away():
    # As Python does from 3.12 on, before any function registered here runs.
    threading.Thread.start = no_more_threads
"""


@COMPRESSIONS
async def test_it_is_sent_when_no_thread_can_be_started_any_more(compression: str) -> None:
    program = """
tracer = tracer_for(exporter, max_export_batch_size=40)
async def program():
    await exporter.send(b"", 1)
    for number in range(100):
        tracer.start_span(f"{number}").end()
asyncio.run(program())
tracer.start_span("outside").end()
atexit.register(take_threads_away)
"""
    async with grpc_collector() as there:
        output, errors = await run(NO_MORE_THREADS + program, there.url, compression)

    assert (output, errors) == ("", "")
    assert set(there.names) == {*(str(number) for number in range(100)), "outside"}


@pytest.mark.slow
async def test_the_end_of_a_program_is_bounded_when_nobody_answers() -> None:
    program = """
tracer = tracer_for(exporter, max_export_batch_size=10)
for number in range(100):
    tracer.start_span(f"{number}").end()
atexit.register(take_threads_away)
"""
    async with grpc_collector(*[Reply(silent=True)] * 20) as there:
        async with asyncio.timeout(10):
            _, errors = await run(NO_MORE_THREADS + program, there.url)

    assert "spans dropped" in errors


@COMPRESSIONS
async def test_a_fork_after_a_channel_was_opened_is_refused_with_the_reason(compression: str) -> None:
    program = """
async def use(): await exporter.send(b"of the parent", 1)
loop = asyncio.new_event_loop()
loop.run_until_complete(use())
child(lambda: asyncio.run(refused()))
# On a loop of its own: the child's interpreter has closed its copy of the other one at its end, and with
# it what both share in the kernel.
asyncio.run(use())
"""
    async with grpc_collector() as there:
        output, _ = await run(program, there.url, compression)

    assert output.splitlines() == ["fork True", "status 0"]
    assert there.bodies == [b"of the parent", b"of the parent"]


async def test_a_fork_in_the_middle_of_calls_is_refused_too_and_leaves_the_parent_alone() -> None:
    program = """
tracer = tracer_for(exporter, max_export_batch_size=10)
async def program():
    for number in range(100):
        tracer.start_span(f"{number}").end()
    await asyncio.sleep(0.2)
    pid = os.fork()
    if pid == 0:
        signal.alarm(10)
        tracer.start_span("of the child").end()
        os._exit(0)
    await asyncio.sleep(0.1)
    print("status", os.waitpid(pid, 0)[1])
    tracer.start_span("after").end()
asyncio.run(program())
"""
    async with grpc_collector() as there:
        output, _ = await run(program, there.url)

    assert output == "status 0\n"
    assert set(there.names) == {*(str(number) for number in range(100)), "after"}


async def test_the_spans_of_a_child_that_may_not_use_grpc_are_counted() -> None:
    program = """
processor = BatchSpanProcessor(exporter)
asyncio.run(exporter.send(b"", 1))
def work():
    provider = TracerProvider(ALWAYS_ON, shutdown_on_exit=False)
    provider.add_span_processor(processor)
    async def program():
        provider.get_tracer("child").start_span("lost").end()
        await processor.ashutdown(2)
    asyncio.run(program())
    print(dict(processor.statistics().dropped))
child(work)
"""
    async with grpc_collector() as there:
        output, errors = await run(program, there.url)

    assert output.splitlines() == ["{'fork': 1}", "status 0"]
    assert "send with http/protobuf" in errors
    assert there.names == []


async def test_a_fork_before_any_channel_was_opened_is_no_matter() -> None:
    program = """
tracer = tracer_for(exporter, max_export_batch_size=5)
def work(number):
    async def program():
        for span in range(10):
            tracer.start_span(f"{number}-{span}").end()
            await asyncio.sleep(0)
    asyncio.run(program())
tracer.start_span("of the parent").end()
for number in range(4):
    child(lambda: work(number))
"""
    async with grpc_collector() as there:
        output, errors = await run(program, there.url)

    assert output.splitlines() == ["status 0"] * 4
    assert errors == ""
    expected = {f"{number}-{span}" for number in range(4) for span in range(10)}
    assert set(there.names) == {*expected, "of the parent"}


@pytest.mark.every_loop
async def test_what_a_loop_leaves_behind_is_let_go() -> None:
    async with grpc_collector() as there, exporter(there.url, compression="gzip") as sender:
        await sender.send(b"one", 1)
        await sender.release()
        await sender.send(b"two", 1)
        await sender.release()

        assert there.bodies == [b"one", b"two"]
        assert len(set(there.peers)) == 2
        assert not [thread for thread in threading.enumerate() if "spin" in thread.name]


async def test_a_thread_of_its_own_may_have_a_loop_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    async with grpc_collector() as there:
        processor = BatchSpanProcessor(OTLPGrpcSpanExporter(there.url))

        def elsewhere() -> bool:
            async def program() -> bool:
                end_spans(processor, 20)
                return await processor.ashutdown(5)

            return asyncio.run(program())

        with caplog.at_level(logging.WARNING):
            assert await asyncio.to_thread(elsewhere)

        assert len(there.names) == 20


async def test_an_exporter_that_is_closed_twice_and_never_used_is_no_matter() -> None:
    sender = OTLPGrpcSpanExporter("http://127.0.0.1:1")
    await sender.aclose()
    await sender.aclose()

    with pytest.raises(TransportError, match="closed"):
        await sender.send(b"", 0)
