"""How fast do nodes agree, how soon does another lead, and what does it cost, also to be watched?

    python -m benchmarks.raft [--engine embedded etcd] [--rounds 3] [--kills 20] [--json]

Five nodes in this process, with the default settings: on the UDP mesh over loopback with their journals on
disk, and over three etcd servers that are started for it, where etcd is installed. The variants of a
question take turns, round by round. It takes about three minutes.

* Commits a second: claims of one node, each of a key of its own, so many at the same time.
* Latency: one claim at a time, from the node that leads and from one that follows.
* A new leader: the node that leads is ended at once, without a farewell; from then on until another one
  leads. Embedded: and until another node is granted a claim, which the mesh has to find a way for, where
  its way to the new leader was over the one that is lost. etcd: before that the server that leads the others
  is killed, from then on until a claim is granted.
* Idle: CPU time of this process with the mesh alone and with consensus, which nobody asks anything.
* Tracing: CPU time of claims within a span and without, for each span that was made, in place and where
  nothing waits; of a span alone; and the share of the CPU time of mesh and consensus that it is where a
  claim is made every second.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

from mapek_domains.raft.plugin import domain as raft_domain
from mapek_domains.raft.settings import RaftSettings
from mapek_runtime.errors import EngineUnavailable, NoConsensus

from . import measure
from .raft_groups import CLAIMS, NODES, Group, by_etcd, embedded, granted, mesh_alone
from .raft_tracing import Cost, alone, in_memory, process_clock, tracing

__all__ = ["main"]

QUESTION = "How fast do nodes agree, how soon does another lead, and what does it cost?"
OUTSTANDING = (1, 10, 100)
TARGETS = {"embedded": 1.5, "etcd": 3.0}
"""Seconds after which another leads, at the 95th percentile."""
MOST_A_SPAN = 8.0
"""Microseconds of CPU."""
MOST_SHARE = 0.03
"""Of the service's CPU time, by tracing."""
_RATE = 1.0
"""Claims a second of the service whose share that is."""
_HOLD = 5.0
_SETTLED = 1.5
"""Seconds after which a session that was opened does what it does for ever."""

Found = dict[str, Any]


async def commits(group: Group, outstanding: int, seconds: float) -> tuple[float, int]:
    """Claims a second from the leader, so many at the same time, and how many had no answer in time."""
    loop, done, late, leader = asyncio.get_running_loop(), 0, 0, group.leader()
    end = loop.time() + seconds

    async def claim(number: int) -> None:
        nonlocal done, late
        while loop.time() < end:
            try:
                await group.session.claim(leader, f"commits {number}", hold=_HOLD)
                done += 1
            except NoConsensus:
                late += 1

    began = loop.time()
    async with asyncio.TaskGroup() as tasks:
        for number in range(outstanding):
            tasks.create_task(claim(number))
    return done / (loop.time() - began), late


async def latencies(group: Group, node: str, claims: int) -> list[float]:
    """Seconds of each claim, one after another."""
    found = []
    for _ in range(claims):
        began = time.perf_counter()
        await granted(group.session, node, f"latency {node}")
        found.append(time.perf_counter() - began)
    return found


async def speed(group: Group, options: argparse.Namespace) -> Found:
    """Commits a second, and latencies."""
    rates: dict[int, list[float]] = {outstanding: [] for outstanding in OUTSTANDING}
    waits: dict[str, list[float]] = {"leader": [], "follower": []}
    late = dict.fromkeys(OUTSTANDING, 0)
    for turn in range(options.rounds + 1):
        for place in range(len(OUTSTANDING)):
            outstanding = OUTSTANDING[(turn + place) % len(OUTSTANDING)]
            rate, unanswered = await commits(group, outstanding, options.seconds)
            if turn:
                rates[outstanding].append(rate)
                late[outstanding] += unanswered
        leader = group.leader()
        nodes = {"leader": leader, "follower": next(node for node in NODES if node != leader)}
        for name, node in nodes.items():
            took = await latencies(group, node, options.claims)
            if turn:
                waits[name] += took
    return {
        "commits_per_second": {
            str(outstanding): {**spread(found), "unanswered": late[outstanding]}
            for outstanding, found in rates.items()
        },
        "latency_ms": {name: percentiles(found, 1e3) for name, found in waits.items()},
    }


async def kills(group: Group, options: argparse.Namespace) -> Found:
    """What comes of the loss of the leader, after how many seconds."""
    times: dict[str, list[float]] = {}
    for number in range(options.kills):
        killed = await group.kill()
        for what, seconds in killed.items():
            times.setdefault(what, []).append(seconds)
        words = ", ".join(f"{what} after {seconds:.3f} s" for what, seconds in killed.items())
        say(f"  kill {number + 1} of {options.kills}: {words}")
    return {what: percentiles(found, 1.0) for what, found in times.items()}


async def idle(options: argparse.Namespace) -> Found:
    """Shares of a core: the mesh alone, with consensus, and the difference of the same round."""
    alone, together = [], []
    async with mesh_alone() as (_, _, context):
        await asyncio.sleep(_SETTLED)
        for turn in range(options.rounds + 1):
            mesh = await share(options.idle)
            async with raft_domain.open(RaftSettings(), context):
                await asyncio.sleep(_SETTLED)
                both = await share(options.idle)
            if turn:
                alone.append(mesh)
                together.append(both)
    raft = [both - mesh for both, mesh in zip(together, alone, strict=True)]
    return {"mesh": spread(alone), "mesh and raft": spread(together), "raft": spread(raft)}


async def share(seconds: float) -> float:
    """CPU time of this process as a share of one core, while nothing is asked."""
    cpu, began = time.process_time(), time.perf_counter()
    await asyncio.sleep(seconds)
    return (time.process_time() - cpu) / (time.perf_counter() - began)


async def measured(engine: str, options: argparse.Namespace) -> Found:
    """Everything about one engine; raises `EngineUnavailable` where it cannot run."""
    say(f"{engine}: opening")
    async with embedded() if engine == "embedded" else by_etcd() as group:
        say(f"{engine}: commits and latency, {options.rounds} rounds")
        found = await speed(group, options)
        say(f"{engine}: tracing in place")
        follower = next(node for node in NODES if node != group.leader())
        cost = await tracing(group.session, follower, options.claims // 5, process_clock)
        found["tracing"] = {"a claim, in place": costs(cost)}
        say(f"{engine}: {options.kills} kills of the leader")
        found["after_a_kill_s"] = await kills(group, options)
    say(f"{engine}: tracing where nothing waits")
    nothing_waits = await asyncio.to_thread(in_memory, engine, options.claims)
    found["tracing"]["a claim, where nothing waits"] = costs(nothing_waits)
    if engine == "embedded":
        found["tracing"]["a span alone"] = {"us_a_span": quartiles(alone(options.claims))}
        say(f"{engine}: idle, {options.rounds} rounds")
        found["idle_share_of_a_core"] = await idle(options)
        found["share_of_the_service"] = share_of_the_service(
            cost, found["idle_share_of_a_core"]["mesh and raft"]["median"]
        )
    return found


def costs(cost: Cost) -> Found:
    """Of a span and of a claim, in microseconds of CPU time."""
    return {
        "us_a_span": quartiles(cost.a_span),
        "spans_a_claim": cost.spans,
        "us_a_claim_untraced": quartiles(cost.untraced),
        "share_of_a_traced_claim": cost.share,
    }


def share_of_the_service(cost: Cost, idle_share: float) -> float:
    """Of its CPU time, the part that tracing is, where so many claims a second are made."""
    traced = statistics.median(cost.a_span) * cost.spans * _RATE / 1e6
    return traced / (idle_share + statistics.median(cost.untraced) * _RATE / 1e6 + traced)


def spread(found: Sequence[float]) -> Found:
    """Median and range."""
    return {"median": statistics.median(found), "min": min(found), "max": max(found)}


def quartiles(found: Sequence[float]) -> Found:
    """Median, and where the middle half lies: one turn is short, and the machine has others to serve."""
    low, median, high = statistics.quantiles(found, n=4)
    return {"median": median, "min": low, "max": high}


def percentiles(found: Sequence[float], unit: float) -> Found:
    """p50, p95, p99 (nearest rank) and the longest, in that unit."""
    ordered = sorted(found)
    at = {f"p{share}": ordered[math.ceil(share * len(ordered) / 100) - 1] for share in (50, 95, 99)}
    return {
        **{name: value * unit for name, value in at.items()},
        "max": ordered[-1] * unit,
        "n": len(ordered),
    }


def say(text: str) -> None:
    """On standard error, so that standard output is the result alone."""
    print(text, file=sys.stderr, flush=True)


def show(engine: str, found: Found) -> None:
    """Print what was found of one engine."""
    print(f"{engine}:")
    for outstanding, rate in found["commits_per_second"].items():
        late = f", {rate['unanswered']} unanswered" if rate["unanswered"] else ""
        print(f"  {outstanding:>3} outstanding: {_range(rate, '.0f')} commits a second{late}")
    for name, latency in found["latency_ms"].items():
        print(f"  a claim by a {name}: {_percentiles(latency)} ms")
    for what, times in found["after_a_kill_s"].items():
        if what == CLAIMS:
            print(f"  {what}: after {_percentiles(times)} s")
            continue
        most = TARGETS[engine]
        print(f"  {what}: after {_percentiles(times)} s; p95 at most {most:g}: {_met(times['p95'], most)}")
    for where, cost in found["tracing"].items():
        span = cost["us_a_span"]
        beside = ""
        if "spans_a_claim" in cost:
            beside = (
                f"; {cost['spans_a_claim']:.1f} spans a claim, which costs "
                f"{_range(cost['us_a_claim_untraced'], '.0f')} us without"
            )
        print(
            f"  tracing, {where}: {_range(span, '.1f')} us of CPU a span; at most {MOST_A_SPAN:g}: "
            f"{_met(span['median'], MOST_A_SPAN)}{beside}"
        )
    if "share_of_the_service" in found:
        part = found["share_of_the_service"]
        print(
            f"  tracing, {_RATE:g} claim a second: {part:.2%} of the CPU of mesh and raft; at most "
            f"{MOST_SHARE:.0%}: {_met(part, MOST_SHARE)}"
        )
    for name, share_of_core in found.get("idle_share_of_a_core", {}).items():
        print(f"  idle, {name}: {_range(share_of_core, '.2%')} of a core")


def _met(value: float, most: float) -> str:
    return "met" if value <= most else "not met"


def _range(found: Found, form: str) -> str:
    return f"{found['median']:{form}} ({found['min']:{form}}-{found['max']:{form}})"


def _percentiles(found: Found) -> str:
    return (
        f"p50 {found['p50']:.3g}, p95 {found['p95']:.3g}, p99 {found['p99']:.3g}, longest {found['max']:.3g}"
    )


def main() -> None:
    """Measure the engines one after another, and print what was found."""
    parser = measure.arguments(QUESTION, rounds=3)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = __doc__
    parser.add_argument("--engine", nargs="+", choices=list(TARGETS), default=list(TARGETS))
    parser.add_argument("--kills", type=int, default=20, help="how often the leader is killed")
    parser.add_argument("--claims", type=int, default=100, help="claims of one latency in a round")
    parser.add_argument("--seconds", type=float, default=0.5, help="of commits in a round, each")
    parser.add_argument("--idle", type=float, default=2.0, help="seconds of doing nothing in a round, each")
    options = parser.parse_args()
    results: Found = {}
    missing: dict[str, str] = {}
    for engine in options.engine:
        try:
            results[engine] = asyncio.run(measured(engine, options))
        except EngineUnavailable as error:
            missing[engine] = str(error)
            say(f"{engine}: not measured: {error}")
    if not results:
        raise SystemExit(2)
    facts = {"question": QUESTION, **measure.machine(), "rounds": options.rounds}
    if options.json:
        print(json.dumps({**facts, **results, "not_measured": missing}))
        return
    print(QUESTION)
    print(", ".join(f"{key} {value}" for key, value in facts.items() if key != "question"))
    for engine, found in results.items():
        show(engine, found)
    for engine, reason in missing.items():
        print(f"{engine}: not measured: {reason}")


if __name__ == "__main__":
    main()
