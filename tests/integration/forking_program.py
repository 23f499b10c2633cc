"""A program that records spans and forks, in the ways in which programs do.

    python forking_program.py HOW PROVIDER ENDPOINT

It prints `inherited` for each connection of its own that a child still holds, and `done` at its end.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

import mapek_runtime

__all__ = ["HOWS"]

CHILDREN = 4
PROVIDERS: dict[str, Any] = {"ours": mapek_runtime.TracerProvider, "the SDK's": sdk.TracerProvider}


def say(word: str) -> None:
    os.write(1, f"{word}\n".encode())


class Program:
    """Spans go to the collector at `endpoint`; each is named after its process."""

    def __init__(self, provider: str, endpoint: str) -> None:
        self.port = int(endpoint.split(":")[2].split("/", maxsplit=1)[0])
        self.processor = mapek_runtime.BatchSpanProcessor(mapek_runtime.OTLPSpanExporter(endpoint))
        self.provider = PROVIDERS[provider](ALWAYS_ON)
        self.provider.add_span_processor(self.processor)

    def record(self, first: int, last: int) -> None:
        tracer = self.provider.get_tracer("forking")
        for number in range(first, last):
            tracer.start_span(f"{os.getpid()} {number}").end()

    def check_connections(self) -> None:
        """Say so for each connection to the collector that this process has, before it made any."""
        mine = {str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()}
        for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if int(fields[2].rpartition(":")[2], 16) == self.port and f"socket:[{fields[9]}]" in mine:
                say("inherited")

    async def work(self, *, close: bool) -> None:
        """Ten spans on a loop of the child's own."""
        self.record(0, 10)
        await asyncio.sleep(0.01)
        if close:
            await self.processor.ashutdown(3)

    async def soon(self) -> None:
        self.record(3, 7)

    # The ways

    def outside(self) -> None:
        """Before any loop, and between two; the children end as programs do."""
        self.record(0, 5)
        if self.fork(2):
            return
        asyncio.run(self.flushed())
        self.record(5, 10)
        if self.fork(2):
            return
        self.wait()

    def inside(self) -> None:
        """With a loop running and a connection open; the children must not go back there."""

        async def parent() -> None:
            self.record(0, 5)
            await self.flushed()
            self.record(5, 10)
            for _ in range(CHILDREN):
                if not os.fork():
                    self.check_connections()
                    asyncio.run(self.work(close=True))
                    os._exit(0)
            await asyncio.to_thread(self.wait)
            assert await self.processor.ashutdown(3)

        asyncio.run(parent())

    def by_multiprocessing(self, method: str) -> None:
        """Processes of the standard library run no exit handler in some ways; nobody flushes here."""
        self.record(0, 5)
        asyncio.run(self.flushed())
        self.record(5, 10)
        context: Any = multiprocessing.get_context(method)
        # The child of a fork has what its parent made; the others start anew and make their own.
        target, arguments = (self.live, ()) if method == "fork" else (begin_anew, sys.argv[2:])
        children = [context.Process(target=target, args=arguments) for _ in range(CHILDREN)]
        for child in children:
            child.start()
        for child in children:
            child.join()
            assert child.exitcode == 0

    def live(self) -> None:
        """A life of which nobody sees the end coming: spans before a loop, on it, and after it."""
        self.check_connections()
        self.record(0, 3)
        asyncio.run(self.soon())
        self.record(7, 10)

    def workers(self) -> None:
        """A master that makes the provider, and workers that serve until it says SIGTERM."""
        self.record(0, 10)
        here, there = os.pipe()
        pids = []
        for _ in range(CHILDREN):
            pid = os.fork()
            if not pid:
                signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
                self.check_connections()
                asyncio.run(self.serve(there))
                return
            pids.append(pid)
        for _ in pids:
            os.read(here, 1)
        for pid in pids:
            os.kill(pid, signal.SIGTERM)
        self.wait()

    async def serve(self, pipe: int) -> None:
        self.record(0, 10)
        await asyncio.sleep(0.01)
        os.write(pipe, b"!")
        await asyncio.Event().wait()

    def untouched(self) -> None:
        """Children that never trace, and leave in one way or the other."""
        self.record(0, 5)
        asyncio.run(self.flushed())
        self.record(5, 10)
        for number in range(CHILDREN):
            if not os.fork():
                self.check_connections()
                if number % 2:
                    os._exit(0)
                sys.exit(0)
        self.wait()

    # Their parts

    async def flushed(self) -> None:
        assert await self.processor.aforce_flush(3)

    def fork(self, count: int) -> bool:
        """Fork children that trace; true in a child that has done so."""
        for _ in range(count):
            if not os.fork():
                self.check_connections()
                asyncio.run(self.work(close=False))
                return True
        return False

    def wait(self) -> None:
        try:
            while True:
                _, status = os.wait()
                if status:
                    say(f"a child ended with {os.waitstatus_to_exitcode(status)}")
        except ChildProcessError:
            return


def begin_anew(provider: str, endpoint: str) -> None:
    """The life of a child that inherits nothing."""
    Program(provider, endpoint).live()


HOWS: dict[str, Callable[[Program], None]] = {
    "outside": Program.outside,
    "inside": Program.inside,
    **{
        f"multiprocessing by {method}": partial(Program.by_multiprocessing, method=method)
        for method in multiprocessing.get_all_start_methods()
    },
    "workers": Program.workers,
    "untouched": Program.untouched,
}


def main() -> None:
    how, provider, endpoint = sys.argv[1:]
    parent = os.getpid()
    HOWS[how](Program(provider, endpoint))
    if os.getpid() == parent:
        say("done")


if __name__ == "__main__":
    main()
