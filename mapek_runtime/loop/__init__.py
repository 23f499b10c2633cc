"""The loop: scheduler → cycle → phase → plugin.

This layer knows spans and nothing of their export; it knows plugins only by their phase methods.
"""

from __future__ import annotations

from .domain import (
    Consensus,
    Domain,
    DomainContext,
    DomainSession,
    Fault,
    FaultInjector,
    FaultReport,
    FollowsNodes,
    Goal,
    Goals,
    Grant,
    Judgement,
    LinkView,
    Messenger,
    NamesNodes,
    Normality,
    Supervisor,
    Topology,
)
from .knowledge import Incident, Knowledge
from .model import (
    Action,
    Cycle,
    Evidence,
    Finding,
    Insight,
    Observation,
    Outcome,
    Rejection,
    Trigger,
)
from .plugin import Registry, analyze, execute, learn, monitor, plan
from .runtime import Runtime, RuntimeStatistics

__all__ = [
    "Action",
    "Consensus",
    "Cycle",
    "Domain",
    "DomainContext",
    "DomainSession",
    "Evidence",
    "Fault",
    "FaultInjector",
    "FaultReport",
    "Finding",
    "FollowsNodes",
    "Goal",
    "Goals",
    "Grant",
    "Incident",
    "Insight",
    "Judgement",
    "Knowledge",
    "LinkView",
    "Messenger",
    "NamesNodes",
    "Normality",
    "Observation",
    "Outcome",
    "Registry",
    "Rejection",
    "Runtime",
    "RuntimeStatistics",
    "Supervisor",
    "Topology",
    "Trigger",
    "analyze",
    "execute",
    "learn",
    "monitor",
    "plan",
]
