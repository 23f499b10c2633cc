"""What does the trace store cost to fill, and how long do its answers take, at a million spans?

`python -m benchmarks.store` writes the spans to a file beforehand, so that making them is not counted,
then sends them as the batch task does. Times of answers are medians over `--rounds`, warm.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from mapek_runtime.store import TraceStore
from mapek_runtime.store.query import parse

from . import measure, store_spans

__all__ = ["main"]

QUESTION = "What does the trace store cost to fill, and how long do its answers take?"
TARGETS = {
    "CPU a span, us": 15.0,
    "newest 20 of service + name prefix + attribute + duration": 50.0,
    "a trace by id": 2.0,
    "p95 per operation": 10.0,
}
FEWEST_A_SECOND = 50_000
_IN_FLIGHT = 4


async def _fill(store: TraceStore, requests: Path) -> dict[str, Any]:
    """Send everything, four requests at once, and look at the memory on the way."""
    total, parts, memory = 0, [], []
    flight = asyncio.Semaphore(_IN_FLIGHT)

    async def send(payload: bytes, count: int) -> None:
        try:
            await store.send(payload, count)
        finally:
            flight.release()

    started, cpu = time.perf_counter(), time.process_time()
    mark, marked = started, 0
    async with asyncio.TaskGroup() as group:
        for payload, count in store_spans.read(requests):
            await flight.acquire()
            group.create_task(send(payload, count))
            total += count
            if total - marked >= 100_000:
                now = time.perf_counter()
                parts.append((total - marked) / (now - mark))
                memory.append(_resident())
                mark, marked = now, total
    seconds, spent = time.perf_counter() - started, time.process_time() - cpu
    return {
        "spans": total,
        "CPU a span, us": spent / total * 1e6,
        "spans a second": total / seconds,
        "slowest 100,000, spans a second": min(parts, default=total / seconds),
        "bytes a span": store.statistics().bytes / total,
        "resident MiB, each 100,000 spans": memory,
    }


def _resident() -> int:
    with Path("/proc/self/statm").open() as file:
        return int(file.read().split()[1]) * resource.getpagesize() >> 20


async def _ask(store: TraceStore, rounds: int) -> dict[str, dict[str, Any]]:
    head = f'service="{store_spans.SERVICES[0]}" AND name="mape_k.*"'
    newest = await store.search(parse('name="mape_k.cycle"'), limit=500)
    ids = [trace.trace_id for trace in newest.traces]

    def search(text: str, **limits: Any) -> Callable[[], Awaitable[int]]:
        query = parse(text)

        async def ask() -> int:
            return len((await store.search(query, time_limit=30.0, **limits)).traces)

        return ask

    async def trace() -> int:
        ids.append(ids.pop(0))
        found = await store.trace(ids[0])
        return 0 if found is None else found.spans

    async def percentiles() -> int:
        return len(await store.latencies())

    questions: dict[str, Callable[[], Awaitable[int]]] = {
        "newest 20 of service + name prefix + attribute + duration": search(
            f'{head} AND node_id="node-7" AND duration >= 8ms'
        ),
        "the same, of a node that has one cycle in 2,000": search(
            f'{head} AND node_id="{store_spans.RARE}" AND duration >= 8ms'
        ),
        "the same, of a node that there is not": search(f'{head} AND node_id="nobody" AND duration >= 8ms'),
        "a number: latency_ms >= 100": search('name="ml.inference" AND latency_ms >= 100'),
        "a number that none has: latency_ms >= 1e9": search(
            'name="ml.inference" AND latency_ms >= 1000000000'
        ),
        "errors: success=false": search("success=false AND status=error"),
        "a child: { cycle } > { plan with count > 18 }": search(
            '{ name = "mape_k.cycle" } > { name = "mape_k.plan" && span.count > 18 }'
        ),
        "counted: { mape_k.* } | count() > 3": search('{ name =~ "mape_k.*" } | count() > 3'),
        "an hour of the past": search(
            f'{head} AND node_id="node-7"',
            start=store_spans.START + 10**11,
            end=store_spans.START + 2 * 10**11,
        ),
        "a trace by id": trace,
        "p95 per operation": percentiles,
    }
    found: dict[str, dict[str, Any]] = {}
    for name, ask in questions.items():
        await ask()
        took = []
        for _ in range(rounds):
            started = time.perf_counter()
            count = await ask()
            took.append((time.perf_counter() - started) * 1000)
        found[name] = {
            "median_ms": round(statistics.median(took), 2), "max_ms": round(max(took), 2), "found": count
        }  # fmt: skip
    return found


async def _run(options: argparse.Namespace, requests: Path, path: Path) -> dict[str, Any]:
    async with TraceStore(path, max_age=1e9, max_bytes=1 << 40) as store:
        ingest = await _fill(store, requests)
        answers = await _ask(store, options.rounds)
    return {"question": QUESTION, **measure.machine(), "ingest": ingest, "answers": answers}


def _show(found: dict[str, Any]) -> None:
    print(QUESTION)
    print(", ".join(f"{key} {found[key]}" for key in ("machine", "python")))
    for name, value in found["ingest"].items():
        text = value if isinstance(value, list) else f"{value:,.1f}"
        print(f"  {name}: {text}{_verdict(name, value)}")
    for name, answer in found["answers"].items():
        print(
            f"  {name}: {answer['median_ms']} ms (longest {answer['max_ms']}), {answer['found']} found"
            f"{_verdict(name, answer['median_ms'])}"
        )


def _verdict(name: str, value: Any) -> str:
    if name == "spans a second":
        return f"; at least {FEWEST_A_SECOND:,}: {'met' if value >= FEWEST_A_SECOND else 'not met'}"
    target = TARGETS.get(name)
    return "" if target is None else f"; at most {target:g}: {'met' if value <= target else 'not met'}"


def main() -> None:
    """Fill a store, ask it, and print what was found."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.store", description=__doc__)
    parser.add_argument("--spans", type=int, default=1_000_000)
    parser.add_argument("--batch", type=int, default=512, help="spans in a request")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--keep", type=Path, help="leave the store in this file")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        store_spans.write(options.write, spans=options.spans, batch=options.batch)
        return
    with tempfile.TemporaryDirectory(prefix="mapek-store-") as folder:
        requests = Path(folder) / "requests"
        # In a process of its own: what it leaves in memory is not ours.
        write = ("--write", str(requests), "--spans", str(options.spans), "--batch", str(options.batch))
        subprocess.run([sys.executable, "-m", "benchmarks.store", *write], check=True)
        found = asyncio.run(_run(options, requests, options.keep or Path(folder) / "traces.sqlite"))
    if options.json:
        print(json.dumps(found))
    else:
        _show(found)


if __name__ == "__main__":
    main()
