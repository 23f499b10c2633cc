"""Shared knowledge while it runs: after a partition, with tracing and without, and as part of a service."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from mapek_domains.crdt.plugin import domain
from mapek_domains.crdt.replica import Replica
from mapek_domains.crdt.session import CrdtSession
from mapek_domains.crdt.settings import CrdtSettings
from mapek_runtime import Knowledge
from mapek_runtime.loop.domain import DomainContext, Messenger
from mapek_runtime.store import TraceStore
from mapek_runtime.store.query import parse
from mapek_runtime.trace import use_provider

from . import variants
from .crdt_growth import incident
from .fl_federation import InProcess, NoLoops, names
from .measure import clock

__all__ = ["partitions", "service", "traced"]

NODES = names(5)
ISLANDS = {node: number // 2 for number, node in enumerate(NODES)}
"""Three parts: two, two and one."""
LEARNED = 40
"""Incidents that each node closes while it is parted from the others."""
PARTED = 1.5
DELAY = 0.005
STEPS = 8
_AT_ONCE = 50
_SETTLED = 6.0
"""Seconds until imports and first tables are done with; what starting takes is no cost of a service."""

_P = TypeVar("_P")


def _context(nodes: Sequence[str], seed: int, messenger: InProcess | None) -> DomainContext:
    def find(protocol: type[_P], /) -> _P | None:
        return messenger if protocol is Messenger else None  # type: ignore[return-value]

    return DomainContext(nodes=tuple(nodes), supervisor=NoLoops(), rng=random.Random(seed), find=find)


def _replica(session: CrdtSession, node: str, knowledge: Knowledge) -> Replica:
    replica = session.replica(node)
    assert replica is not None
    replica.attach(knowledge)
    return replica


# After a partition


def partitions(count: int) -> list[dict[str, float]]:
    """How long until all are the same, over links that lose nothing and over such as lose a tenth."""
    rows = []
    for loss in (0.0, 0.1):
        found = [asyncio.run(_healed(seed, loss)) for seed in range(count)]
        seconds = [each for each, _ in found]
        rows.append(
            {
                "partitions": count,
                "loss": loss,
                "median_s": round(statistics.median(seconds), 3),
                "longest_s": round(max(seconds), 3),
                "incidents": LEARNED * len(NODES),
                "kilobytes_sent": round(statistics.median(sent for _, sent in found) / 1000, 1),
            }
        )
    return rows


async def _healed(seed: int, loss: float) -> tuple[float, int]:
    rng = random.Random(seed)
    sent = 0

    def carried(_source: str, _destination: str, payload: bytes) -> None:
        nonlocal sent
        sent += len(payload)

    def fate(_source: str, _destination: str) -> Sequence[float]:
        return () if rng.random() < loss else (DELAY,)

    messenger = InProcess(NODES, fate=fate, carried=carried)
    known = {node: Knowledge(node=node) for node in NODES}
    async with domain.open(CrdtSettings(), _context(NODES, seed, messenger)) as session:
        replicas = [_replica(session, node, known[node]) for node in NODES]

        def are_one() -> bool:
            return len({replica.document.digest() for replica in replicas}) == 1

        known[NODES[0]].close(incident(0))
        await session.publish(NODES[0])
        await _until(lambda: are_one() and bool(replicas[-1].document.incidents()))
        messenger.islands = ISLANDS
        for number in range(LEARNED):
            for at, node in enumerate(NODES):
                known[node].close(incident(1 + number * len(NODES) + at))
                await session.publish(node)
            await asyncio.sleep(PARTED / LEARNED)
        sent = 0
        messenger.islands = {}
        began = time.perf_counter()
        await _until(are_one)
        took = time.perf_counter() - began
        assert len(replicas[0].document.incidents()) == 1 + LEARNED * len(NODES), "nothing is lost"
    return took, sent


async def _until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(60.0):
        while not true():  # noqa: ASYNC110 - what is asked for lies in five documents that tell nobody
            await asyncio.sleep(0.005)


# Tracing


class _Pipe:
    """Gives each update to another replica at once, in the span it is sent in."""

    def __init__(self, other: Replica) -> None:
        self._other = other

    def relay(self, update: bytes, via: object) -> int:
        self._other.take(update, via)
        return 1

    def cut(self) -> None: ...


def traced(pairs: int) -> dict[str, float]:
    """Microseconds of CPU for each span, by pairs of short runs with tracing and without, side by side."""
    found: list[dict[str, float]] = []
    rng = random.Random(0)
    while len(found) < pairs:
        found += asyncio.run(_pairs(min(_AT_ONCE, pairs - len(found)), rng))
    # A step is a commit with its broadcast and its merge: two spans.
    costs = [(pair["recorded"] - pair["off"]) / 2 for pair in found]
    low, middle, high = statistics.quantiles(costs, n=4)
    return {
        "us_a_span": round(middle, 2),
        "us_a_span_25": round(low, 2),
        "us_a_span_75": round(high, 2),
        "us_a_step": round(statistics.median(pair["off"] for pair in found), 1),
    }


async def _pairs(count: int, rng: random.Random) -> list[dict[str, float]]:
    """Microseconds for each step, in turn; the two of a pair see the same document, but for a few entries."""
    providers = {name: variants.PROVIDERS[name]() for name in ("off", "recorded")}
    knowledge = Knowledge(node="node-1")
    found: list[dict[str, float]] = []
    async with domain.open(CrdtSettings(), _context(("node-1", "node-2"), 0, None)) as session:
        one = _replica(session, "node-1", knowledge)
        one.relays.append(_Pipe(_replica(session, "node-2", Knowledge(node="node-2"))))
        gc.collect()
        numbers = itertools.count()
        for _ in range(count + 1):
            pair = {}
            for name in rng.sample(sorted(providers), 2):
                with use_provider(providers[name]):
                    began = clock()
                    for number in itertools.islice(numbers, STEPS):
                        knowledge.close(incident(number))
                        await session.publish("node-1")
                    pair[name] = (clock() - began) / STEPS / 1000
            found.append(pair)
    # The first pair warms everything.
    return found[1:]


# As part of a service


def service(seconds: float, us_a_span: float) -> dict[str, float]:
    """What the spans of this domain are of the CPU time of a demonstration with faults."""
    return asyncio.run(_service(seconds, us_a_span))


async def _service(seconds: float, us_a_span: float) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="mapek-crdt-") as folder:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "mapek_runtime.service.cli", "run", "--json", "--no-web", "--chaos",
            "--nodes", "5", "--seed", "7", "--duration", str(seconds + _SETTLED), "--state", folder,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, limit=1 << 24,
            env={k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "MAPEK_"))},
        )  # fmt: skip
        output, cpu = await asyncio.gather(process.communicate(), _steady(process.pid, seconds))
        if process.returncode:
            raise SystemExit(f"mapek run ended with exit code {process.returncode}")
        summary: dict[str, Any] = json.loads(output[0].splitlines()[-1])
        async with TraceStore(Path(folder) / "traces.sqlite", read_only=True) as store:
            found = await store.search(parse('{ name =~ "crdt\\\\..*" }'), limit=5000, spans_per_set=1000)
    spans = sum(len(chosen.spans) for each in found.traces for chosen in each.sets)
    rate = spans / (seconds + _SETTLED)
    return {
        "cpu": round(cpu, 4),
        "all_spans_a_second": round(summary["spans"]["ended"] / (seconds + _SETTLED), 1),
        "spans_a_second": round(rate, 3),
        "share": rate * us_a_span / 1e6 / cpu,
    }


async def _steady(pid: int, seconds: float) -> float:
    """The share of a core that a process takes once it has started, and before it ends."""
    await asyncio.sleep(_SETTLED)
    before, began = _cpu_seconds(pid), time.monotonic()
    await asyncio.sleep(seconds - 1.0)
    return (_cpu_seconds(pid) - before) / (time.monotonic() - began)


def _cpu_seconds(pid: int) -> float:
    """Seconds of processor time of a process so far, all its threads, from `/proc`."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
