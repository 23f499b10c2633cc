"""The values that flow through a cycle: observations → findings → actions → outcomes.

Everything here is a frozen value but `Cycle`, which gathers them: each phase reads what the phases
before it found and returns its own values; the runtime alone puts them in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext

    from .knowledge import Knowledge

__all__ = [
    "Action",
    "Cycle",
    "Evidence",
    "Finding",
    "Insight",
    "Observation",
    "Outcome",
    "Rejection",
    "Trigger",
]

Value = bool | int | float | str


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One reading from the managed system.

    `target` names what was measured (a node, a link such as `node-1~node-2`, a URL); `unit` is a
    UCUM code as in OpenTelemetry metrics (`s`, `1`, `By`).
    """

    name: str
    value: float
    unit: str = "1"
    target: str = ""
    attributes: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Why a finding was made: what was measured, and the threshold that was in force."""

    metric: str
    value: float
    threshold: float
    unit: str = "1"
    rule: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something is wrong with `target`, or may be undone now.

    `problem` is a short fixed word such as `link.dead`; `confidence` lies in 0..1. While a finding
    with the same (target, problem) is made, an action taken for it is not yet verified.
    """

    target: str
    problem: str
    confidence: float = 1.0
    severity: float = 1.0
    evidence: tuple[Evidence, ...] = ()
    message: str = ""
    anomaly: bool = True
    """False for good news, such as a drained link that may be used again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """What Plan wants done to `target`.

    `inverse` names the action that undoes this one, where there is one. `restorative` actions
    (undrain, undo) give back what an earlier action took away: they do not count against the share of
    the fleet.
    """

    name: str
    target: str
    reason: str = ""
    finding: Finding | None = None
    parameters: Mapping[str, Value] = field(default_factory=dict)
    inverse: str = ""
    verify_within: float = 5.0
    """Seconds after which an action whose finding persists counts as failed."""
    needs_consensus: bool = False
    """Only the leader of the nodes carries it out, and once: also when the leader is lost meanwhile."""
    exclusive: bool = False
    """One node at a time carries it out, whichever asked first. Where the nodes cannot agree in time it
    is carried out all the same: for what does less harm done twice than not at all."""
    restorative: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """An option that was not chosen, and the rule that spoke against it."""

    action: Action
    rule: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one action; `changed` says in words what is different now."""

    action: Action
    success: bool
    changed: str = ""
    error: str = ""
    duration: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Insight:
    """Something learned: a threshold moved, a repair was verified, an action did not help."""

    name: str
    target: str = ""
    value: float = 0.0
    message: str = ""
    link: SpanContext | None = None
    """The span of the action that this insight is about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """What started a cycle; `span_context` is the span that asked for it, when there was one."""

    reason: str
    span_context: SpanContext | None = None


@dataclass(slots=True, kw_only=True)
class Cycle:
    """One turn of the loop, as its plugins see it.

    Read it, and return values: the runtime writes the fields. `number` counts from 1 per node and
    process, `started` is the loop's monotonic clock in seconds.
    """

    node_id: str
    number: int
    triggers: tuple[Trigger, ...]
    started: float
    knowledge: Knowledge
    dry_run: bool = False
    observations: Sequence[Observation] = ()
    findings: Sequence[Finding] = ()
    actions: Sequence[Action] = ()
    rejections: Sequence[Rejection] = ()
    outcomes: Sequence[Outcome] = ()
    insights: Sequence[Insight] = ()
    failures: Sequence[tuple[str, str, Exception]] = ()
    """(phase, plugin, exception) of each plugin that failed in this cycle."""
    failed: Sequence[str] = ()
    """Phases that failed: every plugin of them did, or the limit ran out."""
    skipped: Mapping[str, str] = field(default_factory=dict)
    """The reason by phase, for each phase that did not run."""
    phase_seconds: Mapping[str, float] = field(default_factory=dict)
    success: bool = True
    duration: float = 0.0
    span_context: SpanContext | None = None

    def readings(self, name: str) -> dict[str, float]:
        """The observations called `name`, by target."""
        return {o.target: o.value for o in self.observations if o.name == name}

    @property
    def anomalies(self) -> int:
        """How many findings are anomalies."""
        return sum(1 for finding in self.findings if finding.anomaly)
