"""The span catalogue, row by row: names, keys, types and kinds that others query by.

Written out by hand, so that a changed declaration fails here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from opentelemetry import trace as api
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NoOpTracerProvider, SpanKind, StatusCode

from mapek_runtime import TracerProvider, monitoring
from mapek_runtime.service.catalogue import catalogue
from mapek_runtime.trace import SpanScope, use_provider

Values = dict[str, Any]
ELAPSED = "elapsed"
"""Stands for the span's own duration in milliseconds, a float above 0."""


@dataclass(frozen=True)
class Row:
    """One row: `given` are the arguments without defaults, `more` the others."""

    getter: str
    method: str
    span: str
    given: Values
    more: Values
    plain: Values
    """The attributes with `given` alone."""
    full: Values = field(default_factory=dict)
    """Those that are otherwise with `more`."""

    @property
    def factory(self) -> Callable[..., SpanScope]:
        getter = getattr(monitoring, f"get_{self.getter}_spans")
        factory: Callable[..., SpanScope] = getattr(getter(), self.method)
        return factory


NODE = {"node_id": "node-1"}
ROUTE = {"source_node": "a", "destination": "b"}
ROWS = [
    Row(
        "mapek", "monitor_phase", "mape_k.monitor", NODE, {"metrics_collected": 150},
        {**NODE, "metrics_count": 0, "phase": "monitor"}, {"metrics_count": 150},
    ),
    Row(
        "mapek", "analyze_phase", "mape_k.analyze", NODE, {"anomalies": 3, "confidence": 0.92},
        {**NODE, "anomalies_detected": 0, "confidence": 0.0, "phase": "analyze"},
        {"anomalies_detected": 3, "confidence": 0.92},
    ),
    Row(
        "mapek", "plan_phase", "mape_k.plan", NODE, {"actions": 2},
        {**NODE, "actions_planned": 0, "phase": "plan"}, {"actions_planned": 2},
    ),
    Row(
        "mapek", "execute_phase", "mape_k.execute", NODE, {"actions_executed": 2, "success": False},
        {**NODE, "actions_executed": 0, "success": True, "phase": "execute"},
        {"actions_executed": 2, "success": False},
    ),
    Row(
        "mapek", "knowledge_phase", "mape_k.knowledge", NODE, {"insights": 1},
        {**NODE, "insights_stored": 0, "phase": "knowledge"}, {"insights_stored": 1},
    ),
    Row(
        "mapek", "cycle", "mape_k.cycle", NODE,
        {
            "cycle": 7, "trigger": "event", "anomalies": 3, "actions": 2, "actions_executed": 1,
            "success": False,
        },
        {
            **NODE, "cycle": 0, "trigger": "interval", "anomalies_detected": 0, "actions_planned": 0,
            "actions_executed": 0, "success": True, "duration_ms": ELAPSED,
        },
        {
            "cycle": 7, "trigger": "event", "anomalies_detected": 3, "actions_planned": 2,
            "actions_executed": 1, "success": False,
        },
    ),
    Row(
        "network", "node_discovery", "mesh.node_discovery", {"source_node": "a"}, {"discovered_nodes": 5},
        {"source_node": "a", "nodes_discovered": 0}, {"nodes_discovered": 5},
    ),
    Row(
        "network", "route_calculation", "mesh.routing", {"source": "a", "destination": "b"}, {"hops": 3},
        {**ROUTE, "hops": 0}, {"hops": 3},
    ),
    Row(
        "network", "message_forwarding", "mesh.message_forward",
        {"from_node": "a", "to_node": "b", "message_id": "m"}, {}, {**ROUTE, "message_id": "m"},
    ),
    Row(
        "spiffe", "svid_fetch", "spiffe.svid_fetch", NODE, {"ttl_seconds": 3600},
        {**NODE, "ttl_seconds": 0}, {"ttl_seconds": 3600},
    ),
    Row(
        "spiffe", "svid_renewal", "spiffe.svid_renewal", NODE, {"success": False},
        {**NODE, "success": True}, {"success": False},
    ),
    Row(
        "spiffe", "mtls_handshake", "spiffe.mtls_handshake", {"client": "c", "server": "s"},
        {"duration_ms": 45.2}, {"client": "c", "server": "s", "duration_ms": ELAPSED},
        {"duration_ms": 45.2},
    ),
    Row(
        "ml", "model_inference", "ml.inference", {"model_name": "graphsage"},
        {"input_size": 1024, "latency_ms": 25.5},
        {"model": "graphsage", "input_size": 0, "latency_ms": ELAPSED},
        {"input_size": 1024, "latency_ms": 25.5},
    ),
    Row(
        "ml", "model_training", "ml.training", {"model_name": "rag"}, {"epoch": 5, "loss": 0.15},
        {"model": "rag", "epoch": 0, "loss": 0.0}, {"epoch": 5, "loss": 0.15},
    ),
    Row(
        "ledger", "transaction_commit", "ledger.transaction_commit", {"tx_id": "t", "tx_type": "transfer"},
        {"size_bytes": 256}, {"tx_id": "t", "tx_type": "transfer", "size_bytes": 0}, {"size_bytes": 256},
    ),
    Row(
        "ledger", "block_creation", "ledger.block_create", {"block_height": 12345}, {"tx_count": 42},
        {"block_height": 12345, "tx_count": 0}, {"tx_count": 42},
    ),
    Row(
        "ledger", "merkle_proof", "ledger.merkle_proof", {"leaf_hash": "ab"}, {"tree_depth": 4},
        {"leaf_hash": "ab", "tree_depth": 0}, {"tree_depth": 4},
    ),
    Row(
        "ledger", "state_sync", "ledger.state_sync", {"from_height": 100, "to_height": 150}, {},
        {"from_height": 100, "to_height": 150, "blocks": 50},
    ),
    Row(
        "dao", "proposal_creation", "dao.proposal_create", {"proposal_id": "p", "proposal_type": "budget"},
        {}, {"proposal_id": "p", "proposal_type": "budget"},
    ),
    Row(
        "dao", "vote_casting", "dao.vote_cast", {"proposal_id": "p", "voter": "v", "vote_type": "yes"}, {},
        {"proposal_id": "p", "voter": "v", "vote_type": "yes"},
    ),
    Row(
        "dao", "proposal_execution", "dao.proposal_execute", {"proposal_id": "p"}, {"success": False},
        {"proposal_id": "p", "success": True}, {"success": False},
    ),
    Row(
        "dao", "quorum_check", "dao.quorum_check",
        {"proposal_id": "p", "votes_needed": 3, "votes_received": 2}, {},
        {"proposal_id": "p", "votes_needed": 3, "votes_received": 2},
    ),
    Row(
        "ebpf", "program_compilation", "ebpf.compile", {"program_name": "mon", "kernel_version": "5.10.0"},
        {}, {"program": "mon", "kernel": "5.10.0"},
    ),
    Row(
        "ebpf", "program_execution", "ebpf.execute", {"program_name": "mon"}, {"event_count": 1000},
        {"program": "mon", "events": 0}, {"events": 1000},
    ),
    Row(
        "ebpf", "kprobe_trigger", "ebpf.kprobe", {"probe_name": "p", "kernel_function": "f"}, {},
        {"probe": "p", "function": "f"},
    ),
    Row(
        "ebpf", "perfbuf_read", "ebpf.perfbuf_read", {"buffer_name": "b"}, {"events_read": 9},
        {"buffer": "b", "events": 0}, {"events": 9},
    ),
    Row(
        "fl", "local_training", "fl.local_training", {"client_id": "c", "round_num": 5}, {"epochs": 3},
        {"client_id": "c", "round": 5, "epochs": 1}, {"epochs": 3},
    ),
    Row(
        "fl", "model_aggregation", "fl.aggregation", {"round_num": 5, "client_count": 10}, {},
        {"round": 5, "clients": 10},
    ),
    Row(
        "fl", "model_upload", "fl.model_upload", {"client_id": "c"}, {"model_size_bytes": 1048576},
        {"client_id": "c", "model_size_bytes": 0}, {"model_size_bytes": 1048576},
    ),
    Row(
        "fl", "model_download", "fl.model_download", {"client_id": "c", "round_num": 5}, {},
        {"client_id": "c", "round": 5},
    ),
    Row(
        "raft", "log_replication", "raft.log_replicate", {"follower_id": "f"}, {"entries_count": 4},
        {"follower_id": "f", "entries": 0}, {"entries": 4},
    ),
    Row(
        "raft", "leader_election", "raft.leader_election", {"term": 2, "candidate_id": "c"}, {},
        {"term": 2, "candidate_id": "c"},
    ),
    Row(
        "raft", "commit_entries", "raft.commit", {"entries_count": 4, "commit_index": 9}, {},
        {"entries": 4, "commit_index": 9},
    ),
    Row(
        "crdt", "crdt_merge", "crdt.merge", {"crdt_type": "or_set", "replica_id": "r"}, {"changes": 6},
        {"type": "or_set", "replica_id": "r", "changes": 0}, {"changes": 6},
    ),
    Row(
        "crdt", "crdt_broadcast", "crdt.broadcast", {"crdt_type": "or_set"}, {"peers": 3},
        {"type": "or_set", "peers": 0}, {"peers": 3},
    ),
]  # fmt: skip

every_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.span)


class Under:
    """A provider, ours or the stock SDK's, and what it recorded."""

    def __init__(self, provider: sdk.TracerProvider) -> None:
        self._exporter = InMemorySpanExporter()
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    @property
    def one(self) -> sdk.ReadableSpan:
        (span,) = self._exporter.get_finished_spans()
        return span


@pytest.fixture(params=[TracerProvider, sdk.TracerProvider], ids=["ours", "stock"])
def under(request: pytest.FixtureRequest) -> Iterator[Under]:
    provider = request.param(shutdown_on_exit=False)
    with use_provider(provider):
        yield Under(provider)


def check(span: sdk.ReadableSpan, row: Row, expected: Values) -> None:
    recorded: Values = dict(span.attributes or {})
    for key, value in expected.items():
        if value == ELAPSED:
            assert isinstance(recorded[key], float)
            assert 0 < recorded[key] < 60_000
            recorded[key] = ELAPSED
    assert span.name == row.span
    assert span.kind is SpanKind.INTERNAL
    assert recorded == expected
    assert {key: type(value) for key, value in recorded.items()} == {
        key: type(value) for key, value in expected.items()
    }


def test_the_table_holds_every_span_that_the_package_declares() -> None:
    declared = {entry.name for entry in catalogue("mapek-runtime")}

    assert sorted(row.span for row in ROWS) == sorted(declared)


@every_row
def test_with_defaults(row: Row, under: Under) -> None:
    with row.factory(**row.given):
        pass

    check(under.one, row, row.plain)
    assert under.one.status.is_unset


@every_row
def test_with_arguments(row: Row, under: Under) -> None:
    with row.factory(**row.given, **row.more):
        pass

    check(under.one, row, row.plain | row.full)


@every_row
def test_arguments_by_position_are_in_the_order_of_the_table(row: Row, under: Under) -> None:
    with row.factory(*row.given.values(), *row.more.values()):
        pass

    check(under.one, row, row.plain | row.full)


@every_row
def test_values_set_late_win(row: Row, under: Under) -> None:
    first = {name: "earlier" if isinstance(value, str) else 0 for name, value in row.given.items()}

    with row.factory(**first) as span:
        span.set(**row.given, **row.more)

    expected = row.plain | row.full
    if row.span == "ledger.state_sync":
        # Derived from the arguments; its heights are known when it starts.
        expected["blocks"] = 0
    check(under.one, row, expected)


@every_row
def test_an_exception_is_recorded_and_goes_on_unchanged(row: Row, under: Under) -> None:
    error = ValueError("broken")

    with pytest.raises(ValueError, match="broken") as raised, row.factory(**row.given):
        raise error

    assert raised.value is error
    assert under.one.status.status_code is StatusCode.ERROR
    assert [event.name for event in under.one.events] == ["exception"]
    failed = {"success": False} if "success" in row.plain else {}
    check(under.one, row, {**row.plain, **failed, "error.type": "ValueError"})


@pytest.mark.parametrize(
    "make", [TracerProvider, sdk.TracerProvider, NoOpTracerProvider], ids=["ours", "stock", "none"]
)
@every_row
def test_disabled_nothing_is_recorded_and_the_block_runs(
    row: Row, make: Callable[[], api.TracerProvider], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    ran = False

    with use_provider(make()), row.factory(**row.given) as span:
        span.set(**row.given, **row.more)
        assert not span.is_recording()
        ran = True

    assert ran


@every_row
def test_before_anything_is_set_up_the_block_runs(row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "_TRACER_PROVIDER", None)
    ran = False

    with row.factory(**row.given) as span:
        span.set(**row.given, **row.more)
        span.set_attribute("more", 1)
        assert not span.is_recording()
        ran = True

    assert ran
