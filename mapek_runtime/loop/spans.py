"""Spans of the loop: the cycle and its five phases."""

from __future__ import annotations

from typing import Annotated

from mapek_runtime.trace import Key, NodeId, SpanGroup

__all__ = [
    "analyze_phase",
    "cycle",
    "execute_phase",
    "knowledge_phase",
    "mape_k",
    "monitor_phase",
    "plan_phase",
]

Metrics = Annotated[int, Key("metrics_count")]
Anomalies = Annotated[int, Key("anomalies_detected")]
Planned = Annotated[int, Key("actions_planned")]
Insights = Annotated[int, Key("insights_stored")]

mape_k = SpanGroup("mape_k")


@mape_k.span("cycle", elapsed="duration_ms")
def cycle(
    node_id: NodeId,
    cycle: int = 0,
    trigger: str = "interval",
    anomalies: Anomalies = 0,
    actions: Planned = 0,
    actions_executed: int = 0,
    success: bool = True,
) -> None:
    """One turn of the autonomic loop; the root of its own trace."""


@mape_k.span("monitor", constants={"phase": "monitor"})
def monitor_phase(node_id: NodeId, metrics_collected: Metrics = 0) -> None:
    """The managed system was read."""


@mape_k.span("analyze", constants={"phase": "analyze"})
def analyze_phase(node_id: NodeId, anomalies: Anomalies = 0, confidence: float = 0.0) -> None:
    """What was read was judged; one `finding` event each, with evidence and threshold."""


@mape_k.span("plan", constants={"phase": "plan"})
def plan_phase(node_id: NodeId, actions: Planned = 0) -> None:
    """Actions were chosen (`option.chosen`) and rejected (`option.rejected`, with the rule)."""


@mape_k.span("execute", constants={"phase": "execute"})
def execute_phase(node_id: NodeId, actions_executed: int = 0, success: bool = True) -> None:
    """Actions were carried out; one `action` event each, with what changed."""


@mape_k.span("knowledge", constants={"phase": "knowledge"})
def knowledge_phase(node_id: NodeId, insights: Insights = 0) -> None:
    """What the cycle taught was kept; one `insight` event each, linked to the action it is about."""
