"""Five processes whose cycles decide at 1 %, calling one another over HTTP, and one collector.

What must hold, with no exception at all: every exported span has its parent exported, whichever
process that is in. Where a head decision says so, because the context had left before a cause was
found, a trace is missing as a whole and from every process.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter, defaultdict
from math import comb
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from mapek_runtime.trace.sampling.threshold import RANDOMNESS, threshold_of
from tests.integration.collector import Collector, collector
from tests.integration.cycling_node import KINDS, RATIO

pytestmark = pytest.mark.slow

NODES = 5
CYCLES = 700
LIMIT = 60
FALSE_ALARM = 1e-7
ROOT = Path(__file__).parents[2]


class Exported(NamedTuple):
    """A span as the collector has it."""

    node: str
    trace: str
    id: bytes
    parent: bytes
    name: str
    kind: int
    state: str
    attributes: dict[str, Any]


def received(collector: Collector) -> list[Exported]:
    found = []
    for body in collector.bodies:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            node = next(a.value.string_value for a in resource.resource.attributes if a.key == "service.name")
            for scope in resource.scope_spans:
                for span in scope.spans:
                    attributes = {
                        a.key: getattr(a.value, a.value.WhichOneof("value") or "string_value")
                        for a in span.attributes
                    }
                    found.append(
                        Exported(
                            node, span.trace_id.hex(), span.span_id, span.parent_span_id,
                            span.name, span.kind, span.trace_state, attributes,
                        )
                    )  # fmt: skip
    return found


async def heard(process: Process) -> dict[str, Any]:
    assert process.stdout is not None
    line = await process.stdout.readline()
    assert line, "a node has ended too soon"
    told: dict[str, Any] = json.loads(line)
    return told


def tell(process: Process, **told: Any) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(told).encode() + b"\n")


async def run_nodes(url: str) -> tuple[list[list[dict[str, Any]]], list[dict[str, Any]]]:
    """What each node has run, and the terms of the law when it had stopped."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    processes: list[Process] = []
    try:
        for index in range(NODES):
            arguments = ("-m", "tests.integration.cycling_node", str(index), str(CYCLES), url)
            processes.append(
                await asyncio.create_subprocess_exec(
                    sys.executable, *arguments, stdin=PIPE, stdout=PIPE, cwd=ROOT, env=environment,
                    limit=1 << 20,
                )
            )  # fmt: skip
        ports = [(await heard(process))["port"] for process in processes]
        for process in processes:
            tell(process, ports=ports)
        ran = [(await heard(process))["ran"] for process in processes]
        for process in processes:
            tell(process, stop=True)
        ended = [await heard(process) for process in processes]
        assert [await process.wait() for process in processes] == [0] * NODES
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
                await process.wait()
    return ran, ended


def bounds(count: int, share: float) -> tuple[int, int]:
    """What a binomial number lies between, but for a chance of `FALSE_ALARM` on either side."""
    below, least = 0.0, 0
    while (below := below + comb(count, least) * share**least * (1 - share) ** (count - least)) < FALSE_ALARM:
        least += 1
    above, most = 1 - below, least
    while above > FALSE_ALARM:
        most += 1
        above -= comb(count, most) * share**most * (1 - share) ** (count - most)
    return least, most


async def test_five_processes_of_deciding_cycles_leave_no_span_without_its_parent() -> None:
    async with asyncio.timeout(LIMIT), collector() as sink:
        ran, ended = await run_nodes(sink.url)
    spans = received(sink)

    # No span without its parent, in whichever process, and none twice.
    known = {(span.trace, span.id) for span in spans}
    assert len(known) == len(spans)
    assert [span for span in spans if span.parent and (span.trace, span.parent) not in known] == []
    assert {span.node for span in spans} == {f"node-{index}" for index in range(NODES)}

    traces: defaultdict[str, list[Exported]] = defaultdict(list)
    for span in spans:
        traces[span.trace].append(span)
    threshold = threshold_of(RATIO)
    quiet: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    sampled_out: Counter[int] = Counter()
    for index, cycles in enumerate(ran):
        assert len(cycles) == CYCLES
        for cycle in cycles:
            _, cause, calls = KINDS[cycle["kind"]]
            head = (int(cycle["trace"], 16) & RANDOMNESS) >= threshold
            trace = traces.pop(cycle["trace"], [])
            roots = [span for span in trace if not span.parent]
            assert len(roots) == bool(trace)
            reason = roots[0].attributes["sampling.reason"] if roots else "none"
            if calls == "monitor":
                # Left before anything was found: the head decision, whatever came later.
                expected = "left" if head else "none"
            elif cause:
                expected = cause
            else:
                quiet["all"] += 1
                quiet["kept"] += head
                # An unusual duration is a cause too, and depends on the machine.
                quiet["slow"] += reason == "duration"
                expected = "duration" if reason == "duration" else "quiet" if head else "none"
            seen[f"{cycle['kind']}: {expected}"] += 1
            assert (cycle, reason) == (cycle, expected)
            if not trace:
                # Recorded and let go: everything, or what had begun when the context left.
                sampled_out[index] += 3 if calls == "monitor" else 6
                continue
            # All of it: the root, five phases, and both ends of every call.
            certain = reason in {"anomaly", "action", "error", "duration"}
            assert roots[0].attributes["sampling.adjusted_count"] == (1.0 if certain else 100.0)
            assert {span.state for span in trace} == {"ot=th:0" if certain else "ot=th:fd70a"}
            assert roots[0].node == f"node-{index}"
            assert sum(span.name.startswith("mape_k.") for span in trace) == 6
            kinds = Counter(span.kind for span in trace)
            assert kinds[2] == kinds[3] == cycle["calls"]
            assert len({span.node for span in trace}) == 1 + bool(cycle["calls"])

    assert not traces, "traces that are no cycle's"
    least, most = bounds(quiet["all"], RATIO)
    assert least <= quiet["kept"] <= most, quiet
    assert quiet["slow"] <= NODES * (10 + 0.01 * CYCLES)
    for kind in ("anomaly: anomaly", "anomaly, then calls: anomaly", "error: error", "action: action"):
        assert seen[kind] > 0
    assert seen["calls, then anomaly: none"] > 0
    assert seen["calls, then error: none"] > 0

    # The law, in every process, at every cycle and at the end.
    for index, told in enumerate(ended):
        law = told["law"]
        assert told["unbalanced"] == []
        assert told["delivered"]
        assert law["balanced"]
        assert law["left"] == 0
        assert law["dropped"] == {"sampled_out": sampled_out[index]}
        assert law["ended"] == law["exported"] + sampled_out[index]
    assert sum(told["law"]["exported"] for told in ended) == len(spans)
