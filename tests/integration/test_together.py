"""Mesh, raft, crdt and fl in one program: what they do for one healing is one trace, under the right phases.

A real run with faults sends its spans to a real collector; the spans are then held against one another, and
against what the run itself said on standard output.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.integration.collector import Collector, collector
from tests.integration.running import start

SECONDS = 24
PHASES = {"mape_k.monitor", "mape_k.analyze", "mape_k.plan", "mape_k.execute", "mape_k.knowledge"}
UNDER_PHASES = {
    "mesh.node_discovery": {"mape_k.monitor"},
    "crdt.broadcast": {"mape_k.knowledge"},
}
ROOTS = {
    "mape_k.cycle", "raft.leader_election", "fl.aggregation", "mesh.message_forward", "mesh.routing",
    "crdt.merge", "raft.log_replicate", "raft.commit",
}  # fmt: skip
"""What may begin a trace: cycles, elections, rounds of learning by the clock, traffic, what a node hears.

And what a leader decides by itself: that a claim whose time is over is nobody's.
"""


class Ended(NamedTuple):
    """A span as the collector has it."""

    trace: str
    id: bytes
    parent: bytes
    name: str
    start: int
    end: int
    attributes: dict[str, Any]


class Recorded(NamedTuple):
    """A run: its spans, and what it said."""

    spans: list[Ended]
    events: list[dict[str, Any]]

    def ancestors(self, span: Ended) -> list[Ended]:
        by_id = self.by_id()
        found = []
        while span.parent and (parent := by_id.get((span.trace, span.parent))) is not None:
            found.append(parent)
            span = parent
        return found

    def by_id(self) -> dict[tuple[str, bytes], Ended]:
        return {(span.trace, span.id): span for span in self.spans}


def _received(collector: Collector) -> list[Ended]:
    found: dict[tuple[str, bytes], Ended] = {}
    for body in collector.bodies:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    attributes = {
                        each.key: getattr(each.value, each.value.WhichOneof("value") or "string_value")
                        for each in span.attributes
                    }
                    ended = Ended(
                        span.trace_id.hex(), span.span_id, span.parent_span_id, span.name,
                        span.start_time_unix_nano, span.end_time_unix_nano, attributes,
                    )  # fmt: skip
                    found[ended.trace, ended.id] = ended
    return list(found.values())


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    folder = tmp_path_factory.mktemp("together")

    async def record() -> Recorded:
        async with collector() as receiver:
            process = await start(
                folder, "--no-web", "--nodes", "5", "--chaos", "--seed", "3", "--duration", str(SECONDS),
                MAPEK_EXPORT_EXPORTER="otlp", OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url,
                OTEL_TRACES_SAMPLER="always_on", MAPEK_FL_GAP="0.2",
            )  # fmt: skip
            output, errors = await process.communicate()
            assert process.returncode == 0, errors.decode()[-2000:]
            events = [json.loads(line) for line in output.splitlines()]
            return Recorded(_received(receiver), events)

    return asyncio.run(record())


pytestmark = pytest.mark.slow


def test_all_four_are_on_without_any_configuration(recorded: Recorded) -> None:
    (started,) = [event for event in recorded.events if event["event"] == "started"]

    assert started["domains"] == ["mesh", "raft", "crdt", "fl"]


def test_everything_happened(recorded: Recorded) -> None:
    names = Counter(span.name for span in recorded.spans)
    events = Counter(event["event"] for event in recorded.events)

    for name in (
        "raft.leader_election", "raft.log_replicate", "raft.commit", "crdt.broadcast", "crdt.merge",
        "fl.model_download", "fl.local_training", "fl.model_upload", "fl.aggregation",
    ):  # fmt: skip
        assert names[name], f"no {name} among {dict(names)}"
    assert events["leader.elected"]
    assert events["round.finished"]
    assert recorded.events[-1]["faults_healed"]


def test_no_span_has_a_parent_that_was_not_recorded(recorded: Recorded) -> None:
    """Nothing is lost between the phases, the nodes and the rounds; what has no parent may have none."""
    known = recorded.by_id()
    lost = [span.name for span in recorded.spans if span.parent and (span.trace, span.parent) not in known]
    roots = {span.name for span in recorded.spans if not span.parent}

    # What had not ended when the run did is not sent: the children of such a span are the last of all.
    assert len(lost) < len(recorded.spans) / 1000, Counter(lost)
    assert roots <= ROOTS


def test_every_cycle_is_a_trace_of_its_own_with_its_five_phases(recorded: Recorded) -> None:
    cycles = [span for span in recorded.spans if span.name == "mape_k.cycle"]
    phases = defaultdict(Counter)  # type: ignore[var-annotated]
    for span in recorded.spans:
        if span.name in PHASES:
            phases[span.trace][span.name] += 1

    assert len({span.trace for span in cycles}) == len(cycles)
    assert all(phases[cycle.trace] == Counter(PHASES) for cycle in cycles)


def test_what_stands_below_a_phase_stands_below_the_right_one(recorded: Recorded) -> None:
    known = recorded.by_id()
    for span in recorded.spans:
        parent = known.get((span.trace, span.parent))
        if span.name in UNDER_PHASES and parent is not None:
            assert parent.name in UNDER_PHASES[span.name]
        if parent is not None and parent.name in PHASES:
            # A phase belongs to one node, and so does what is done in it.
            node = parent.attributes["node_id"]
            own = span.attributes.get("source_node", span.attributes.get("replica_id", node))
            assert own == node, f"{span.name} of {own} below {parent.name} of {node}"


def test_one_healing_is_one_trace_over_the_four(recorded: Recorded) -> None:
    """Of the cycles that drained or restarted: the agreement in Execute, the sharing in Knowledge."""
    whole = []
    for execute in (span for span in recorded.spans if span.name == "mape_k.execute"):
        if not execute.attributes.get("actions_executed"):
            continue
        below = defaultdict(set)
        for span in recorded.spans:
            if span.trace != execute.trace:
                continue
            chain = [ancestor.name for ancestor in recorded.ancestors(span)]
            phase = next((name for name in chain if name in PHASES), "")
            below[phase].add(span.name)
        agreed = {"raft.log_replicate", "raft.commit", "mesh.message_forward"} <= below["mape_k.execute"]
        shared = {"crdt.broadcast", "crdt.merge", "mesh.message_forward"} <= below["mape_k.knowledge"]
        learned = "fl.local_training" in below["mape_k.knowledge"]
        whole.append((agreed, shared, learned))

    assert any(all(each) for each in whole), whole


def test_spans_say_what_the_run_said(recorded: Recorded) -> None:
    """Two witnesses: the events on standard output, and the spans at the collector."""
    won = {
        (span.attributes["candidate_id"], span.attributes["term"])
        for span in recorded.spans
        if span.name == "raft.leader_election" and span.attributes.get("won")
    }
    told = {(e["node"], e["term"]) for e in recorded.events if e["event"] == "leader.elected"}
    rounds = {
        (span.attributes["round"], span.attributes["clients"])
        for span in recorded.spans
        if span.name == "fl.aggregation"
    }
    finished = {(e["round"], e["clients"]) for e in recorded.events if e["event"] == "round.finished"}

    assert won == told
    assert finished <= rounds
    assert len({term for _, term in won}) == len(won)


def test_a_run_leaves_nothing_behind(recorded: Recorded, tmp_path: Path) -> None:
    spans = recorded.events[-1]["spans"]

    assert spans["ended"] == spans["exported"]
    assert not any(spans["dropped"].values())
    assert len(recorded.spans) == spans["exported"]
