"""The Python snippets of x0tta6bl4's tracing guide, run with only their import line changed."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import INVALID_TRACE_ID, SpanKind

from mapek_runtime import BatchSpanProcessor
from mapek_runtime.export.memory import MemorySpanExporter
from mapek_runtime.monitoring import get_tracer_manager
from mapek_runtime.testing import Recorder
from tests.integration.collector import Collector, collector

GUIDE = Path(__file__).with_name("seed_snippets.txt")
Attributes = dict[str, Any]

SPANS: dict[str, list[tuple[str, Attributes]]] = {
    "Usage: MAPE-K Cycle Tracing": [
        ("mape_k.monitor", {"node_id": "node-1", "metrics_count": 150, "phase": "monitor"}),
        (
            "mape_k.analyze",
            {"node_id": "node-1", "anomalies_detected": 3, "confidence": 0.92, "phase": "analyze"},
        ),
        ("mape_k.plan", {"node_id": "node-1", "actions_planned": 2, "phase": "plan"}),
        (
            "mape_k.execute",
            {"node_id": "node-1", "actions_executed": 2, "success": True, "phase": "execute"},
        ),
        ("mape_k.knowledge", {"node_id": "node-1", "insights_stored": 1, "phase": "knowledge"}),
    ],
    "Usage: Mesh Network Tracing": [
        ("mesh.node_discovery", {"source_node": "node-1", "nodes_discovered": 5}),
        ("mesh.routing", {"source_node": "node-1", "destination": "node-5", "hops": 3}),
        (
            "mesh.message_forward",
            {"source_node": "node-1", "destination": "node-2", "message_id": "msg-uuid"},
        ),
    ],
    "Usage: SPIFFE/SPIRE Tracing": [
        ("spiffe.svid_fetch", {"node_id": "node-1", "ttl_seconds": 3600}),
        ("spiffe.svid_renewal", {"node_id": "node-1", "success": True}),
        ("spiffe.mtls_handshake", {"client": "client-1", "server": "server-1", "duration_ms": 45.2}),
    ],
    "Usage: ML Operations Tracing": [
        ("ml.inference", {"model": "graphsage", "input_size": 1024, "latency_ms": 25.5}),
        ("ml.training", {"model": "rag_embedding", "epoch": 5, "loss": 0.15}),
    ],
    "Usage: Ledger Operations Tracing": [
        ("ledger.transaction_commit", {"tx_id": "tx-uuid-123", "tx_type": "transfer", "size_bytes": 256}),
        ("ledger.block_create", {"block_height": 12345, "tx_count": 42}),
        ("ledger.state_sync", {"from_height": 100, "to_height": 150, "blocks": 50}),
    ],
    "Usage: DAO Governance Tracing": [
        ("dao.proposal_create", {"proposal_id": "prop-123", "proposal_type": "budget_allocation"}),
        ("dao.vote_cast", {"proposal_id": "prop-123", "voter": "voter-1", "vote_type": "yes"}),
        ("dao.proposal_execute", {"proposal_id": "prop-123", "success": True}),
    ],
    "Usage: eBPF Operations Tracing": [
        ("ebpf.compile", {"program": "network_monitor", "kernel": "5.10.0"}),
        ("ebpf.execute", {"program": "network_monitor", "events": 1000}),
        ("ebpf.kprobe", {"probe": "tcp_connect", "function": "tcp_v4_connect"}),
    ],
    "Usage: Federated Learning Tracing": [
        ("fl.local_training", {"client_id": "client-1", "round": 5, "epochs": 3}),
        ("fl.aggregation", {"round": 5, "clients": 10}),
        ("fl.model_upload", {"client_id": "client-1", "model_size_bytes": 1048576}),
    ],
}
"""What the snippet of each heading opens, in order."""

OTHERS = {
    "Usage: Basic Integration",
    "Usage: Custom Spans",
    "Performance Considerations: Batch Processing",
    "Troubleshooting: Spans Not Appearing",
    "Advanced Topics: Custom Instrumentation",
    "Advanced Topics: Manual Context Propagation",
    "Advanced Topics: Trace ID Extraction",
}
"""Headings whose snippet has a test of its own."""


def snippets() -> dict[str, str]:
    """The snippets by heading, with the import line changed and nothing else."""
    found = {}
    for part in GUIDE.read_text("utf-8").split("\n## ")[1:]:
        heading, _, rest = part.partition("\n")
        code = rest.partition("```python\n")[2].partition("```")[0]
        found[heading] = code.replace("from src.monitoring import", "from mapek_runtime.monitoring import")
    return found


SNIPPETS = snippets()


def run(heading: str, **names: Any) -> dict[str, Any]:
    """What the snippet leaves behind; `names` are those that it takes for granted."""
    space: dict[str, Any] = {"__name__": "seed", **names}
    exec(compile(SNIPPETS[heading], heading, "exec", dont_inherit=True), space)
    return space


def facts(spans: list[ReadableSpan] | tuple[ReadableSpan, ...]) -> list[tuple[str, Attributes, SpanKind]]:
    return [(span.name, dict(span.attributes or {}), span.kind) for span in spans]


@pytest.fixture
def here() -> Iterator[Recorder]:
    with Recorder() as recorder:
        yield recorder


def test_every_snippet_of_the_guide_is_here_and_has_its_test() -> None:
    assert len(SNIPPETS) == 15
    assert set(SNIPPETS) == OTHERS | set(SPANS)
    assert all(SNIPPETS.values())
    assert sum("from mapek_runtime.monitoring import" in code for code in SNIPPETS.values()) == 10


@pytest.mark.parametrize("heading", SPANS)
def test_a_snippet_opens_the_spans_that_it_says(heading: str, here: Recorder) -> None:
    run(heading)

    expected = [(name, attributes, SpanKind.INTERNAL) for name, attributes in SPANS[heading]]
    assert facts(tuple(here.spans)) == expected
    for span, (_, attributes) in zip(here.spans, SPANS[heading], strict=True):
        kinds = {key: type(value) for key, value in (span.attributes or {}).items()}
        assert kinds == {key: type(value) for key, value in attributes.items()}
        assert span.status.is_unset
        assert span.parent is None


def test_custom_spans_have_the_name_and_the_attributes_of_the_caller(here: Recorder) -> None:
    left = run("Usage: Custom Spans")
    left["my_function"]()

    assert facts(tuple(here.spans)) == [
        ("custom_operation", {"key": "value"}, SpanKind.INTERNAL),
        ("custom_function", {"service": "myservice"}, SpanKind.INTERNAL),
    ]


async def test_a_decorated_coroutine_function_is_covered_until_it_is_done(here: Recorder) -> None:
    left = run("Advanced Topics: Custom Instrumentation", manager=get_tracer_manager())
    assert asyncio.iscoroutinefunction(left["my_async_function"])

    await left["my_async_function"]()

    assert facts(tuple(here.spans)) == [("custom_operation", {"service": "myservice"}, SpanKind.INTERNAL)]


def test_the_span_of_a_plain_tracer_is_the_parent_of_what_is_called_inside(here: Recorder) -> None:
    def child_function() -> None:
        run("Usage: ML Operations Tracing")

    run("Advanced Topics: Manual Context Propagation", child_function=child_function)

    parent = here.one("parent")
    assert [span.name for span in here.children(parent)] == ["ml.inference", "ml.training"]


def test_the_trace_id_can_be_read_inside_a_span(here: Recorder) -> None:
    with get_tracer_manager().span("outer"):
        inside = run("Advanced Topics: Trace ID Extraction")["trace_id"]
    outside = run("Advanced Topics: Trace ID Extraction")["trace_id"]

    context = here.one("outer").get_span_context()
    assert context is not None
    assert inside == context.trace_id
    assert outside == INVALID_TRACE_ID


def test_the_batch_processor_takes_the_arguments_of_the_guide() -> None:
    exporter = MemorySpanExporter()
    made: list[BatchSpanProcessor] = []

    def keep(*exporters: Any, **options: Any) -> BatchSpanProcessor:
        made.append(BatchSpanProcessor(*exporters, **options))
        return made[0]

    run("Performance Considerations: Batch Processing", BatchSpanProcessor=keep, exporter=exporter)

    assert made[0].statistics().queued == 0
    made[0].shutdown()


def test_debug_logging_can_be_switched_on_as_the_guide_says(monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)

    run("Troubleshooting: Spans Not Appearing")

    assert root.level == logging.DEBUG


PROGRAM = """
import asyncio, json, sys
codes = json.loads(sys.stdin.read())
def all_of_it():
    for heading, code in codes.items():
        exec(compile(code, heading, "exec", dont_inherit=True), {"__name__": "seed"})
async def on_a_loop():
    all_of_it()
    await asyncio.sleep(0)
{how}
"""


async def run_program(how: str, there: Collector | None = None, **variables: str) -> tuple[int, str]:
    """The guide as one program of its own: exit code and log."""
    headings = ["Usage: Basic Integration", *SPANS, "Usage: Custom Spans"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "MAPEK_"))}
    if there is not None:
        variables["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] = there.url
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PROGRAM.replace("{how}", how),
        stdin=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**kept, **variables},
    )
    text = json.dumps({heading: SNIPPETS[heading] for heading in headings})
    async with asyncio.timeout(60):
        _, log = await process.communicate(text.encode())
    return process.returncode or 0, log.decode()


@pytest.mark.parametrize("how", ["all_of_it()", "asyncio.run(on_a_loop())"], ids=["no loop", "on a loop"])
async def test_the_guide_as_a_program_sends_every_span_under_its_service(how: str) -> None:
    async with collector() as there:
        code, log = await run_program(how, there)

    assert (code, log) == (0, "")
    expected = [name for spans in SPANS.values() for name, _ in spans] + ["custom_operation"]
    assert sorted(there.names) == sorted(expected)
    services = {
        attribute.value.string_value
        for body in there.bodies
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for attribute in resource.resource.attributes
        if attribute.key == "service.name"
    }
    assert services == {"x0tta6bl4"}


async def test_the_guides_switch_turns_tracing_off() -> None:
    async with collector() as there:
        code, log = await run_program("all_of_it()", there, OTEL_ENABLED="false")

    assert code == 0
    assert log == ("OTEL_ENABLED=false is deprecated and read as OTEL_SDK_DISABLED=true; set that instead\n")
    assert there.names == []


async def test_the_guides_sample_rate_is_kept_to() -> None:
    async with collector() as there:
        code, log = await run_program("all_of_it()", there, OTEL_SAMPLER_ARG="0.0")

    assert code == 0
    assert "set that instead" in log
    assert "OTEL_TRACES_SAMPLER=parentbased_traceidratio OTEL_TRACES_SAMPLER_ARG=0.0" in log
    assert there.names == []


async def test_without_a_collector_the_program_runs_and_is_told_where_its_spans_are() -> None:
    code, log = await run_program("all_of_it()")

    assert code == 0
    assert log.count("\n") == 1
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in log
