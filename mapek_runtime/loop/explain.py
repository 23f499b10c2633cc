"""How a decision explains itself in its trace: the events on the phase spans.

* `mape_k.analyze`: `finding` with `target`, `problem`, `confidence`, `severity`, `anomaly`, `message`, and
  `evidence.metric`, `.value`, `.threshold`, `.unit`, `.rule`, one entry for each piece of evidence
* `mape_k.plan`: `option.chosen` with `action`, `target`, `reason`, `problem`, the action's parameters, and
  the experience it rests on, where there is any (`success_rate`, `repair_seconds`); `option.rejected` with
  `action`, `target`, `rule`, `reason`
* `mape_k.execute`: `action` with `action`, `target`, `success`, `changed`, `error`, `duration_ms`, and
  `option.rejected` for what the other nodes did not agree to
* `mape_k.knowledge`: `insight` with `insight`, `target`, `value`, `message`; the span links to the action's
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from opentelemetry.trace import format_span_id

from .model import Action, Cycle, Finding, Insight, Outcome, Rejection
from .repair import Repair

__all__ = [
    "failed_actions",
    "findings",
    "insights",
    "inverse",
    "not_repaired",
    "outcomes",
    "plan",
    "rejections",
    "verified",
    "why_failed",
]


def findings(span: Any, made: Iterable[Finding]) -> None:
    """One event for each finding, with its evidence and the threshold in force."""
    for finding in made:
        attributes: dict[str, Any] = {
            "target": finding.target,
            "problem": finding.problem,
            "confidence": float(finding.confidence),
            "severity": float(finding.severity),
            "anomaly": finding.anomaly,
        }
        if finding.message:
            attributes["message"] = finding.message
        if finding.evidence:
            attributes["evidence.metric"] = [e.metric for e in finding.evidence]
            attributes["evidence.value"] = [float(e.value) for e in finding.evidence]
            attributes["evidence.threshold"] = [float(e.threshold) for e in finding.evidence]
            attributes["evidence.unit"] = [e.unit for e in finding.evidence]
            attributes["evidence.rule"] = [e.rule for e in finding.evidence]
        span.add_event("finding", attributes)


def plan(span: Any, cycle: Cycle) -> None:
    """What was chosen with the experience it rests on, and what was rejected with the rule."""
    for action in cycle.actions:
        attributes: dict[str, Any] = {
            "action": action.name,
            "target": action.target,
            "reason": action.reason,
            **{f"parameter.{key}": value for key, value in action.parameters.items()},
        }
        if action.finding is not None:
            attributes["problem"] = action.finding.problem
        rate = cycle.knowledge.success_rate(action.name)
        if rate is not None:
            attributes["success_rate"] = rate
        seconds = cycle.knowledge.repair_seconds(action.name)
        if seconds is not None:
            attributes["repair_seconds"] = seconds
        span.add_event("option.chosen", attributes)
    rejections(span, cycle.rejections)
    if cycle.dry_run:
        span.set_attribute("dry_run", True)


def rejections(span: Any, made: Iterable[Rejection]) -> None:
    """What was not done, with the rule that spoke against it."""
    for rejection in made:
        span.add_event(
            "option.rejected",
            {
                "action": rejection.action.name,
                "target": rejection.action.target,
                "rule": rejection.rule,
                "reason": rejection.reason,
            },
        )


def outcomes(span: Any, done: Iterable[Outcome]) -> None:
    """One event for each action, with what changed."""
    for outcome in done:
        attributes: dict[str, Any] = {
            "action": outcome.action.name,
            "target": outcome.action.target,
            "success": outcome.success,
            "changed": outcome.changed,
            "duration_ms": outcome.duration * 1000,
        }
        if outcome.error:
            attributes["error"] = outcome.error
        span.add_event("action", attributes)


def insights(span: Any, learned: Iterable[Insight]) -> None:
    """One event for each insight; the span links to the action that it is about."""
    for insight in learned:
        attributes: dict[str, Any] = {"insight": insight.name, "value": float(insight.value)}
        if insight.target:
            attributes["target"] = insight.target
        if insight.message:
            attributes["message"] = insight.message
        if insight.link is not None:
            attributes["action.span_id"] = format_span_id(insight.link.span_id)
            span.add_link(insight.link, {"insight": insight.name})
        span.add_event("insight", attributes)


def verified(repair: Repair, now: float) -> Insight:
    """The metric has recovered."""
    return Insight(
        name="repair.verified",
        target=repair.target,
        value=now - repair.found,
        message=f"{repair.action.name} of {repair.target} worked "
        f"{now - repair.found:.3f} s after it was found",
        link=repair.span_context,
    )


def not_repaired(repair: Repair, now: float, *, escalated: bool) -> Insight:
    """The action did not help."""
    then = "left alone and escalated" if escalated else "undone" if repair.action.inverse else "not undone"
    return Insight(
        name="repair.escalated" if escalated else "repair.failed",
        target=repair.target,
        value=now - repair.found,
        message=f"{repair.action.name} of {repair.target} did not help within "
        f"{repair.action.verify_within:g} s; {then}",
        link=repair.span_context,
    )


def inverse(action: Action) -> Action | None:
    """The action that undoes `action`, where there is one."""
    if not action.inverse:
        return None
    return Action(
        name=action.inverse,
        target=action.target,
        reason=f"{action.name} did not help",
        parameters={"undo": True},
        restorative=True,
    )


def failed_actions(cycle: Cycle) -> str:
    """The actions that failed or were not carried out, in words."""
    failed = [
        f"{o.action.name} {o.action.target}: {o.error or 'failed'}" for o in cycle.outcomes if not o.success
    ]
    missing = len(cycle.actions) - len(cycle.outcomes)
    if missing:
        failed.append(f"{missing} not carried out")
    return "; ".join(failed)


def why_failed(cycle: Cycle) -> str:
    """The failures of a cycle, in words."""
    failures = [f"{phase}: {type(error).__name__}: {error}" for phase, _, error in cycle.failures]
    return "; ".join(failures) or failed_actions(cycle) or "cancelled"
