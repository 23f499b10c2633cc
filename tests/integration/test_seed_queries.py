"""The queries of the tracing guide, on spans that its own getters made: each finds what it should, alone."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import pytest
from opentelemetry.sdk.resources import SERVICE_NAME, Resource

from mapek_runtime import BatchSpanProcessor, TracerProvider, monitoring
from mapek_runtime.store import TraceStore
from mapek_runtime.store.query import parse, to_traceql
from mapek_runtime.trace import use_provider

MS = 1_000_000


def phases(node: str) -> None:
    """A cycle with its phases, as the guide writes them."""
    spans = monitoring.get_mapek_spans()
    with spans.cycle(node, cycle=1):
        with spans.monitor_phase(node, metrics_collected=4):
            pass
        with spans.analyze_phase(node, anomalies=1, confidence=0.9):
            pass
        with spans.plan_phase(node, actions=1):
            pass
        with spans.execute_phase(node, actions_executed=1):
            pass
        with spans.knowledge_phase(node, insights=1):
            pass


def domains() -> None:
    """Spans of other domains: for each query one that is wanted, and one that is nearly so."""
    spiffe, dao, ml = (
        monitoring.get_spiffe_spans(), monitoring.get_dao_spans(), monitoring.get_ml_spans()
    )  # fmt: skip
    with spiffe.mtls_handshake("a", "b"):
        time.sleep(0.06)
    # Short itself, whatever it says of its duration.
    with spiffe.mtls_handshake("quick", "b", duration_ms=500.0):
        pass
    with contextlib.suppress(RuntimeError), dao.proposal_execution("failed"):
        raise RuntimeError("no quorum")
    with dao.proposal_execution("passed"):
        pass
    with ml.model_inference("slow", input_size=8, latency_ms=100.0):
        pass
    with ml.model_inference("fast", input_size=8, latency_ms=99.5):
        pass


@pytest.fixture
async def store(tmp_path: Path) -> TraceStore:
    """A store with spans of two services and two nodes."""
    made = TraceStore(tmp_path / "traces.sqlite")
    for service in ("x0tta6bl4", "another"):
        provider = TracerProvider(resource=Resource({SERVICE_NAME: service}), shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(made))
        with use_provider(provider):
            phases("node-1")
            phases("node-2")
            domains()
        await provider.ashutdown()
    return TraceStore(tmp_path / "traces.sqlite", read_only=True)


CYCLE = [f"mape_k.{each}" for each in ("cycle", "monitor", "analyze", "plan", "execute", "knowledge")]


@pytest.mark.blocking
@pytest.mark.parametrize(
    ("text", "key", "found"),
    [
        ('service="x0tta6bl4" AND span.kind="INTERNAL" AND name="mape_k.*"', "", 2 * CYCLE),
        ('service="x0tta6bl4" AND name="spiffe.mtls_handshake" AND duration >= 50ms', "client", ["a"]),
        (
            'service="x0tta6bl4" AND name="dao.proposal_execute" AND success=false',
            "proposal_id",
            ["failed"],
        ),
        ('service="x0tta6bl4" AND name="ml.inference" AND latency_ms >= 100', "model", ["slow"]),
        ('service="x0tta6bl4" AND name="mape_k.monitor" AND node_id="node-1"', "node_id", ["node-1"]),
    ],
)
async def test_a_query_of_the_guide_finds_its_spans(
    store: TraceStore, text: str, key: str, found: list[str]
) -> None:
    async with store:
        for written in (text, to_traceql(parse(text))):
            result = await store.search(parse(written), limit=100, spans_per_set=100)
            spans = [span for trace in result.traces for each in trace.sets for span in each.spans]
            assert result.complete
            assert {span.service for span in spans} == {"x0tta6bl4"}
            names = [str(span.attributes[key]) if key else span.name for span in spans]
            assert sorted(names) == sorted(found)
