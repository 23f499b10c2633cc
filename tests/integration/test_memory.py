"""Memory stays where it is: a million spans that never end, a million that nobody takes.

Each test runs one function of this file in a process of its own, whose memory is then its own affair.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import json
import logging
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace

from mapek_runtime import BatchSpanProcessor, OTLPSpanExporter, TracerProvider
from mapek_runtime.export.pace import FULL_CONCURRENCY
from mapek_runtime.trace.watching.live import LiveSpans

ROOT = Path(__file__).parents[2]
MILLION = 1_000_000
MB = 1024 * 1024
BATCH = 512
IN_FLIGHT = FULL_CONCURRENCY

on_linux = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="the resident memory is read from /proc"
)


def resident() -> int:
    """The memory of this process, in bytes."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def tell(**seen: object) -> None:
    """Say what a function of this file saw, to the test that runs it."""
    sys.stdout.write(json.dumps(seen))


def run(function: str, *arguments: object, limit: float = 300) -> tuple[dict[str, Any], str]:
    """What a function of this file printed, and what it wrote to standard error."""
    call = f"from tests.integration import test_memory; test_memory.{function}(*{arguments!r})"
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", call],
        cwd=ROOT, env=os.environ | {"PYTHONMALLOC": "default"},
        capture_output=True, text=True, timeout=limit, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    printed: dict[str, Any] = json.loads(done.stdout) if done.stdout else {}
    return printed, done.stderr


# Spans that never end


def abandon(tracer: trace.Tracer, count: int) -> None:
    """Start `count` spans and end none: most are just forgotten, some lie in a cycle or a context."""
    for number in range(count):
        if number % 10 == 0:
            holder: list[object] = [tracer.start_span("cycle")]
            holder.append(holder)
        elif number % 10 == 1:
            contextvars.copy_context().run(tracer.start_as_current_span("scope").__enter__)
        else:
            tracer.start_span("left", attributes={"number": number, "who": "somebody"})


def abandon_a_million(watch: str) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    live = LiveSpans(leaks=watch == "by place")
    if watch != "no":
        provider.add_span_processor(live)
    tracer = provider.get_tracer("x")
    abandon(tracer, 10_000)
    gc.collect()
    before = resident()

    abandon(tracer, MILLION - 10_000)
    gc.collect()

    grown = resident() - before
    tell(grown=grown, lost=live.leaked, open=live.open_count, places=[*live.leaks().values()])


@on_linux
@pytest.mark.slow
@pytest.mark.parametrize("watch", ["no", "counted", "by place"])
def test_a_million_abandoned_spans_leave_no_memory_behind_and_are_counted(watch: str) -> None:
    seen, _ = run("abandon_a_million", watch)

    assert seen["grown"] < 10 * MB
    assert seen["lost"] == (0 if watch == "no" else MILLION)
    assert seen["open"] == 0
    assert seen["places"] == ([800_000, 100_000, 100_000] if watch == "by place" else [])


# Spans that nobody takes


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def export_a_million_to_nobody(queue: int) -> None:
    logging.getLogger("mapek_runtime").setLevel(logging.CRITICAL)
    processor = BatchSpanProcessor(
        OTLPSpanExporter(endpoint=f"http://127.0.0.1:{closed_port()}/v1/traces"),
        max_queue_size=queue,
        max_export_batch_size=BATCH,
    )
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    tracer = provider.get_tracer("x")

    async def end(count: int) -> int:
        peak = 0
        for number in range(count):
            with tracer.start_as_current_span("x", attributes={"number": number, "who": "somebody"}):
                pass
            if number % 100 == 0:
                await asyncio.sleep(0)
            if number % 10_000 == 0:
                peak = max(peak, resident())
        return max(peak, resident())

    async def main() -> None:
        # Until everything that is bounded is at its bound.
        first = 3 * queue
        await end(first)
        gc.collect()
        before = resident()
        peak = await end(MILLION - first)
        during = processor.statistics()
        await processor.ashutdown(2)
        after = processor.statistics()
        tell(
            grown=peak - before,
            ended=after.ended,
            exported=after.exported,
            dropped=sum(after.dropped.values()),
            waiting=during.queued + during.in_flight,
            balanced=[during.balanced, after.balanced],
        )

    asyncio.run(main())


@on_linux
@pytest.mark.slow
@pytest.mark.parametrize("queue", [2_048, 65_536], ids=["as specified", "as large as ours"])
def test_a_million_spans_to_a_dead_collector_are_bounded_by_the_queue(queue: int) -> None:
    seen, _ = run("export_a_million_to_nobody", queue)

    assert seen["grown"] < 10 * MB
    assert seen["balanced"] == [True, True]
    assert (seen["ended"], seen["exported"], seen["dropped"]) == (MILLION, 0, MILLION)
    # In the ring, encoded, and in requests that are tried again and again.
    assert 0 < seen["waiting"] <= queue + queue + IN_FLIGHT * BATCH


# The ends of a process


def leave_spans_behind() -> None:
    """Spans that are lost while the interpreter is taken apart."""
    live = LiveSpans(leaks=True)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(live)
    abandon(provider.get_tracer("x"), 1000)
    kept = [provider.get_tracer("x").start_span("kept") for _ in range(100)]
    sys.modules["a_module_that_goes_late"] = kept  # type: ignore[assignment]
    builtins = sys.modules["builtins"]
    builtins.kept = [provider.get_tracer("x").start_span("kept"), kept]  # type: ignore[attr-defined]


def test_spans_lost_while_the_interpreter_ends_disturb_nobody() -> None:
    _, errors = run("leave_spans_behind")

    assert errors == ""


def lose_spans_in_a_fork() -> None:
    live = LiveSpans(leaks=True)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(live)
    tracer = provider.get_tracer("x")
    abandon(tracer, 10)
    gc.collect()
    spans = [tracer.start_span("of the parent") for _ in range(5)]
    child = os.fork()
    if child == 0:
        opened = live.open_count
        spans.clear()
        gc.collect()
        lost = live.leaked
        abandon(tracer, 7)
        gc.collect()
        os._exit(0 if (opened, lost, live.leaked) == (0, 0, 7) else 1)
    _, status = os.waitpid(child, 0)
    tell(child=status, open=live.open_count, lost=live.leaked)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_the_child_of_a_fork_counts_its_own_spans() -> None:
    seen, _ = run("lose_spans_in_a_fork")

    assert seen == {"child": 0, "open": 5, "lost": 10}
