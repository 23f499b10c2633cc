"""A cycle as the page shows it, made when the cycle ends and before anything of it is let go."""

from __future__ import annotations

import time
from collections.abc import Mapping

from mapek_runtime.loop import Action, Cycle, Finding
from mapek_runtime.web.state import ActionShown, CycleShown, FindingShown, PhaseShown, RejectionShown

from .sentences import describe_cycle, describe_evidence, shortened

__all__ = ["LONGEST", "MOST", "PHASES", "show_cycle"]

PHASES = ("monitor", "analyze", "plan", "execute", "knowledge")
_METHODS = {"learn": "knowledge", "verify": "knowledge", "store": "knowledge"}
"""What the fault of a plugin calls the phase, where that is not its name."""
MOST = 10
"""Findings, actions and rejections that are shown of one cycle: many cycles are kept, for many pages."""
LONGEST = 200
"""Of every text."""


def show_cycle(cycle: Cycle, now: float) -> CycleShown:
    """The shape of a cycle that has just ended; `now` is the loop's clock."""
    context = cycle.span_context
    phases = _phases(cycle)
    found, acted, refused = len(cycle.findings), len(cycle.actions), len(cycle.rejections)
    findings = tuple(_finding(finding) for finding in cycle.findings[:MOST]) if found else ()
    actions = _actions(cycle) if acted else ()
    rejected = tuple(
        RejectionShown(
            action=_short(each.action.name),
            target=_short(each.action.target),
            rule=_short(each.rule),
            reason=_short(each.reason),
        )
        for each in cycle.rejections[:MOST]
    )
    learned = [i.message or f"{i.name} {i.target}" for i in cycle.insights if i.link is not None]
    return CycleShown(
        node=cycle.node_id,
        cycle=cycle.number,
        trace_id=f"{context.trace_id:032x}" if context is not None and context.is_valid else "",
        # The cycle knows only the loop's clock, which has no date.
        start=str(time.time_ns() - round((now - cycle.started) * 1e9)),
        duration_ms=round(cycle.duration * 1000, 3),
        trigger=_short(cycle.triggers[0].reason) if cycle.triggers else "",
        success=cycle.success,
        phases=phases,
        findings=findings,
        actions=actions,
        rejected=rejected,
        line=describe_cycle(
            findings,
            actions,
            rejected,
            learned,
            phases,
            dry_run=cycle.dry_run,
            found=found,
            acted=acted,
            refused=refused,
        ),
        dry_run=cycle.dry_run,
        more=found + acted + refused - len(findings) - len(actions) - len(rejected),
    )


def _phases(cycle: Cycle) -> tuple[PhaseShown, ...]:
    seconds, skipped = cycle.phase_seconds, cycle.skipped
    reasons = _reasons(cycle) if not cycle.success or cycle.failures else {}
    shown: list[PhaseShown] = []
    for phase in PHASES:
        if phase in reasons:
            ms = round(seconds.get(phase, 0.0) * 1000, 3)
            shown.append(PhaseShown(phase=phase, ms=ms, state="failed", reason=reasons[phase]))
        elif phase in skipped:
            shown.append(PhaseShown(phase=phase, ms=0.0, state="skipped", reason=skipped[phase]))
        else:
            shown.append(PhaseShown(phase=phase, ms=round(seconds.get(phase, 0.0) * 1000, 3), state="ok"))
    return tuple(shown)


def _reasons(cycle: Cycle) -> Mapping[str, str]:
    """By phase, why it failed."""
    words: dict[str, list[str]] = {phase: [] for phase in cycle.failed}
    for method, plugin, error in cycle.failures:
        phase = _METHODS.get(method, method)
        told = f"{type(error).__name__}: {error}"
        words.setdefault(phase, []).append(f"{plugin}: {told}" if plugin else told)
    failed = [outcome for outcome in cycle.outcomes if not outcome.success]
    if failed and not words.get("execute"):
        words["execute"] = [f"{o.action.name} {o.action.target}: {o.error or 'failed'}" for o in failed]
    return {phase: _short("; ".join(each)) for phase, each in words.items()}


def _finding(finding: Finding) -> FindingShown:
    evidence = [(each.metric, each.value, each.threshold) for each in finding.evidence]
    return FindingShown(
        problem=_short(finding.problem),
        target=_short(finding.target),
        confidence=round(finding.confidence, 4),
        message=_short(describe_evidence(finding.message, evidence)),
    )


def _actions(cycle: Cycle) -> tuple[ActionShown, ...]:
    left = list(cycle.outcomes)
    shown: list[ActionShown] = []
    for action in cycle.actions[:MOST]:
        name, target = _short(action.name), _short(action.target)
        outcome = next((each for each in left if _same(each.action, action)), None)
        if outcome is None:
            shown.append(ActionShown(action=name, target=target, success=None))
            continue
        left.remove(outcome)
        error = _short(outcome.error)
        shown.append(ActionShown(action=name, target=target, success=outcome.success, error=error))
    return tuple(shown)


def _short(text: str) -> str:
    return shortened(text, LONGEST)


def _same(done: Action, chosen: Action) -> bool:
    # A plugin may give back an action that it has made anew.
    return done is chosen or (done.name, done.target) == (chosen.name, chosen.target)
