"""The process that `benchmarks.export` measures: one sender, one load, one line of JSON.

`python -m benchmarks.export_load JOB` takes a job as JSON. Producers make cycles of six spans with four
attributes, a root and five children, and await once a cycle (`asyncio.sleep(0)`), while a ticker
records by how much the loop is late. Then the sender is shut down as a program would do it.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import math
import os
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from opentelemetry.trace import Tracer

from .export_senders import SENDERS, Sender

__all__ = ["BURST", "SPANS_A_CYCLE", "Job", "Run", "main"]

SPANS_A_CYCLE = 6
PHASES = ("monitor", "analyze", "plan", "execute", "knowledge")
TICK = 0.005
PAUSE = 0.001
"""Seconds between two looks of a producer that keeps a rate."""
BURST = 1_800
"""Spans between two flushes of a load in bursts: fewer than the SDK's queue of 2,048 holds, so that
nothing is lost and every span is paid for in full."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a process is asked to do."""

    sender: str
    port: int
    seconds: float
    producers: int = 1
    rate: float = 0.0
    """Spans a second; 0 is as many as can be made. One producer keeps it."""
    bursts: bool = False
    """Make `BURST` spans, flush, and again."""
    uvloop: bool = False
    cap: float = 60.0
    """Seconds after which a shutdown is not waited for any longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What the process found."""

    created: int
    load_s: float
    tail_s: float
    """How long the shutdown took."""
    tail_capped: bool
    """Whether it was still not over then."""
    lag_p50_ms: float
    lag_p99_ms: float
    lag_max_ms: float
    tail_lag_max_ms: float
    cpu_load_s: float
    cpu_s: float
    """CPU time of all threads, load and tail."""
    gc_s: float
    gc_max_ms: float
    """What the garbage collector took of the load, and its longest pause."""
    rss_mb: float
    """The most memory that the process had."""
    account: Mapping[str, int] | None


class _Ticker:
    """Records by how many milliseconds a loop is late, for the load and for the tail."""

    def __init__(self) -> None:
        self.load: list[float] = []
        self.tail: list[float] = []
        self._now: list[float] | None = None

    async def run(self) -> None:
        while True:
            into, before = self._now, time.perf_counter()
            await asyncio.sleep(TICK)
            if into is not None:
                into.append(1000 * (time.perf_counter() - before - TICK))

    def record(self, into: list[float] | None) -> None:
        self._now = into


class _Collector:
    """Measures what the garbage collector takes; it is on, as in any program."""

    def __init__(self) -> None:
        self.seconds = self.longest = self._began = 0.0

    def __call__(self, phase: str, _details: object) -> None:
        if phase == "start":
            self._began = time.perf_counter()
        else:
            took = time.perf_counter() - self._began
            self.seconds += took
            self.longest = max(self.longest, took)


async def _measure(job: Job) -> Run:
    sender = SENDERS[job.sender](job.port)
    ticker = _Ticker()
    ticking = asyncio.create_task(ticker.run())
    await asyncio.sleep(0.1)
    gate = asyncio.Event()
    load = _Load(job, sender, gate)
    tasks = [asyncio.create_task(load.produce()) for _ in range(job.producers)]
    await asyncio.sleep(0)
    gc.collect()
    await asyncio.sleep(2 * TICK)
    collector = _Collector()
    gc.callbacks.append(collector)
    ticker.record(ticker.load)
    cpu, start = time.process_time(), time.perf_counter()
    load.begin(start)
    gate.set()
    await asyncio.wait(tasks)
    loaded, cpu_load = time.perf_counter(), time.process_time() - cpu
    gc.callbacks.remove(collector)
    ticker.record(ticker.tail)
    for task in tasks:
        task.result()
    closing = asyncio.ensure_future(_wait(sender))
    _, unfinished = await asyncio.wait({closing}, timeout=job.cap)
    tail, cpu_all = time.perf_counter() - loaded, time.process_time() - cpu
    if not unfinished:
        closing.result()
    ticking.cancel()
    ticker.load.sort()
    return Run(
        created=load.created,
        load_s=loaded - start,
        tail_s=tail,
        tail_capped=bool(unfinished),
        lag_p50_ms=_quantile(ticker.load, 0.5),
        lag_p99_ms=_quantile(ticker.load, 0.99),
        lag_max_ms=_quantile(ticker.load, 1.0),
        tail_lag_max_ms=max(ticker.tail, default=0.0),
        cpu_load_s=cpu_load,
        cpu_s=cpu_all,
        gc_s=collector.seconds,
        gc_max_ms=1000 * collector.longest,
        rss_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        account=sender.account(),
    )


async def _wait(sender: Sender) -> None:
    await sender.shutdown()


class _Load:
    def __init__(self, job: Job, sender: Sender, gate: asyncio.Event) -> None:
        self._job = job
        self._sender = sender
        self._gate = gate
        self._start = self._end = 0.0
        self.created = 0

    def begin(self, now: float) -> None:
        self._start, self._end = now, now + self._job.seconds

    async def produce(self) -> None:
        await self._gate.wait()
        if self._job.bursts:
            await self._in_bursts()
        elif self._job.rate:
            await self._at_a_rate(self._job.rate)
        else:
            await self._at_full_speed()

    async def _at_full_speed(self) -> None:
        tracer, clock, end, sleep = self._sender.tracer, time.perf_counter, self._end, asyncio.sleep
        made = 0
        while clock() < end:
            _cycle(tracer)
            made += SPANS_A_CYCLE
            await sleep(0)
        self.created += made

    async def _at_a_rate(self, rate: float) -> None:
        tracer = self._sender.tracer
        while (now := time.perf_counter()) < self._end:
            if self.created < rate * (now - self._start):
                _cycle(tracer)
                self.created += SPANS_A_CYCLE
                await asyncio.sleep(0)
            else:
                await asyncio.sleep(PAUSE)

    async def _in_bursts(self) -> None:
        tracer = self._sender.tracer
        while time.perf_counter() < self._end:
            for _ in range(BURST // SPANS_A_CYCLE):
                _cycle(tracer)
                await asyncio.sleep(0)
            self.created += BURST
            await self._sender.flush()


def _cycle(tracer: Tracer | None) -> None:
    attributes: dict[str, Any] = {"node_id": "node-1", "cycle": 7, "confidence": 0.5, "success": True}
    if tracer is None:
        return
    with tracer.start_as_current_span("mape_k.cycle", attributes=dict(attributes)):
        for name in PHASES:
            with tracer.start_as_current_span(f"mape_k.{name}", attributes=dict(attributes)):
                pass


def _quantile(ordered: Sequence[float], share: float) -> float:
    """The value that `share` of them do not exceed; 0 where there is none."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0


def main() -> None:
    """Do the job and print what was found."""
    job = Job(**json.loads(sys.argv[1]))
    # In every process: warnings of what is dropped cost time.
    logging.disable(logging.CRITICAL)
    factory = None
    if job.uvloop:
        import uvloop

        factory = uvloop.new_event_loop
    runner = asyncio.Runner(loop_factory=factory)
    print(json.dumps(asdict(runner.run(_measure(job)))), flush=True)
    # A shutdown that was given up may still hold a thread, and would hold the process.
    os._exit(0)


if __name__ == "__main__":
    main()
