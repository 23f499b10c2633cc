"""Programs that trace and are ended at a moment nobody chose; they write down every span that ended.

    python ending_program.py WAY ENDPOINT FOLDER SEED RUNS

Each run is a fork of this process, made before any loop runs, so that the imports are paid once; it
goes through the whole end of the interpreter. One line of JSON is printed a run.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

import mapek_runtime
from mapek_runtime.export.batch import BatchSpanProcessor
from mapek_runtime.export.otlp.http_exporter import OTLPSpanExporter

__all__ = ["WAYS"]

LONGEST = 0.4
"""Seconds after which a run has been ended at the latest."""


class Witness(SpanProcessor):
    """Writes down each ended span's id, in the call that has just given it to the processor before."""

    def __init__(self, path: Path) -> None:
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def on_end(self, span: ReadableSpan) -> None:
        assert span.context is not None
        os.write(self.file, f"{span.context.span_id:016x}\n".encode())


def watch(provider: Any, folder: Path) -> None:
    """Witness the provider's spans, and write down the account of its processor at the very end."""
    (processor,) = provider._active_span_processor._span_processors
    provider.add_span_processor(Witness(folder / "ended"))

    def account() -> None:
        seen = processor.statistics()
        (folder / "account").write_text(
            json.dumps(
                {
                    "ended": seen.ended,
                    "exported": seen.exported,
                    "dropped": dict(seen.dropped),
                    "balanced": seen.balanced,
                }
            )
        )

    # The processor's own exit handler has been registered before, and would run after this one.
    atexit.unregister(processor._at_exit)
    atexit.register(account)
    atexit.register(processor._at_exit)


async def toil(tracer: Any, seed: int) -> None:
    """Spans without end: some long, some short, some below others."""
    rng = random.Random(seed)
    while True:
        with tracer.start_as_current_span("outer"):
            for _ in range(rng.randrange(4)):
                with tracer.start_as_current_span("inner"):
                    await asyncio.sleep(rng.random() * 0.003)


async def ready(pipe: int) -> None:
    """Let the spans begin, then say that they have."""
    await asyncio.sleep(0.01)
    os.write(pipe, b"!")


async def until_told(folder: Path, pipe: int, seed: int, moment: float) -> None:
    """`tracing()` around spans in free tasks and in a group, until a signal comes."""
    async with mapek_runtime.tracing(service_name="ending") as provider:
        watch(provider, folder)
        tracer = provider.get_tracer("ending")
        free = [asyncio.create_task(toil(tracer, seed + number)) for number in range(3)]
        async with asyncio.TaskGroup() as group:
            for number in range(3):
                group.create_task(toil(tracer, seed - number))
            await ready(pipe)
        await asyncio.wait(free)


async def until_cancelled(folder: Path, pipe: int, seed: int, moment: float) -> None:
    """The same, cancelled by the program itself, which then goes on."""
    here, there = os.pipe()
    task = asyncio.create_task(until_told(folder, there, seed, moment))
    loop = asyncio.get_running_loop()

    def begun() -> None:
        loop.remove_reader(here)
        os.write(pipe, os.read(here, 1))
        loop.call_later(moment, task.cancel)

    loop.add_reader(here, begun)
    await asyncio.wait([task])


async def until_the_end(folder: Path, pipe: int, seed: int, moment: float) -> None:
    """A processor that nobody flushes or shuts down, in a program that returns while tasks go on."""
    provider = mapek_runtime.TracerProvider(ALWAYS_ON, shutdown_on_exit=False)
    # So eager that requests are under way at every moment.
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(), max_export_batch_size=5))
    watch(provider, folder)
    tracer = provider.get_tracer("ending")
    free = [asyncio.create_task(toil(tracer, seed + number)) for number in range(6)]
    await ready(pipe)
    await asyncio.sleep(moment)
    assert not any(task.done() for task in free)


WAYS = {
    "SIGTERM": until_told,
    "SIGINT": until_told,
    "cancel": until_cancelled,
    "end": until_the_end,
}


def child(way: str, folder: Path, pipe: int, seed: int, moment: float) -> None:
    """One run; comes back only by the end of the interpreter."""
    os.dup2(os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    asyncio.run(WAYS[way](folder, pipe, seed, moment))


def main() -> None:
    """Fork the runs one after another, end each at its moment, and tell of each."""
    way, endpoint, place, seed, runs = sys.argv[1:]
    # Whoever was started in the background by a shell has inherited that it is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] = endpoint
    os.environ["MAPEK_EXPORT_ENDPOINT"] = endpoint
    rng = random.Random(int(seed))
    for number in range(int(runs)):
        moment = rng.random() * LONGEST
        folder = Path(place) / f"{way}-{seed}-{number}"
        folder.mkdir()
        here, there = os.pipe()
        process = os.fork()
        if not process:
            os.close(here)
            child(way, folder, there, rng.getrandbits(32), moment)
            return
        os.close(there)
        assert os.read(here, 1) == b"!", (folder / "log").read_text()
        os.close(here)
        if way.startswith("SIG"):
            time.sleep(moment)
            os.kill(process, signal.Signals[way])
        _, status = os.waitpid(process, 0)
        account = folder / "account"
        told = {
            "status": os.waitstatus_to_exitcode(status),
            "ended": (folder / "ended").read_text().split(),
            "account": json.loads(account.read_text()) if account.exists() else None,
            "log": (folder / "log").read_text(),
        }
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
