"""What happened, in a line that a person understands: of a cycle, and of an event.

Pure; knows the shapes of the page, so that cycles of other nodes, read from their traces, sound the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from mapek_runtime.web.state import ActionShown, FindingShown, PhaseShown, RejectionShown

from .output import describe_event

__all__ = ["describe_cycle", "describe_evidence", "event_line", "shortened"]

_MOST = 3
_LONGEST = 480


def describe_cycle(
    findings: Sequence[FindingShown],
    actions: Sequence[ActionShown],
    rejected: Sequence[RejectionShown],
    learned: Iterable[str],
    phases: Iterable[PhaseShown],
    *,
    dry_run: bool,
    found: int = 0,
    acted: int = 0,
    refused: int = 0,
) -> str:
    """What a cycle found, what it did about it, what it did not, and what it learned.

    `found`, `acted`, `refused`: how many of these there are where not all of them are given.
    """
    taught = list(learned)
    # The actions say themselves how Execute failed.
    failed = [
        f"{phase.phase} failed: {phase.reason}" if phase.reason else f"{phase.phase} failed"
        for phase in phases
        if phase.state == "failed" and not (phase.phase == "execute" and actions)
    ]
    if not (findings or actions or rejected or taught or failed):
        return "nothing found"
    done = [_done(action, dry_run=dry_run) for action in actions]
    # Where something was done, what was not is no news.
    done = done or [f"no {each.action} of {each.target}: {each.reason or each.rule}" for each in rejected]
    about = _listed([_found(finding) for finding in findings], found)
    line = " → ".join(part for part in (about, _listed(done, acted or refused)) if part)
    return shortened("; ".join(part for part in (*failed, line, _listed(taught)) if part), _LONGEST)


def describe_evidence(message: str, evidence: Sequence[tuple[str, float, float]]) -> str:
    """Why a finding was made: its message, and of its evidence (metric, value, threshold) one piece.

    That is the last which is beyond its threshold: others only stand beside it.
    """
    if not evidence:
        return message
    beyond = [each for each in evidence if each[1] >= each[2]]
    metric, value, threshold = (beyond or evidence)[-1]
    sign = ">" if value > threshold else "<" if value < threshold else "="
    shown = f"{metric} {value:.3g} {sign} {threshold:.3g}"
    return f"{message}, {shown}" if message else shown


def event_line(name: str, fields: Mapping[str, Any]) -> str:
    """An event as a sentence; one of an unknown name, or without what its sentence needs, as key=value."""
    tell = _EVENTS.get(name)
    if tell is not None:
        try:
            return shortened(tell(fields), _LONGEST)
        except (LookupError, TypeError, ValueError):
            # A domain may call its own event the same.
            pass
    return shortened(" ".join(describe_event(name, fields).split()), _LONGEST)


def shortened(text: str, most: int) -> str:
    """The text, cut where it is longer than `most`."""
    return text if len(text) <= most else text[: most - 1] + "…"


def _found(finding: FindingShown) -> str:
    kind, _, what = finding.problem.rpartition(".")
    subject = f"{kind} {finding.target} {what}" if kind else f"{finding.target} {what}"
    return f"{subject.strip()}: {finding.message}" if finding.message else subject.strip()


def _done(action: ActionShown, *, dry_run: bool) -> str:
    what = _what(action.action, action.target)
    if action.success:
        return f"{what}: done"
    if action.success is None:
        return f"{what}: not carried out{' (dry run)' if dry_run else ''}"
    return f"{what}: {action.error or 'failed'}"


def _what(action: str, target: str) -> str:
    return f"{action} {target}".rstrip()


def _listed(parts: Sequence[str], of: int = 0) -> str:
    more = max(len(parts), of) - _MOST
    return "; ".join([*parts[:_MOST], f"and {more} more"] if more > 0 else parts)


def _injected(fields: Mapping[str, Any]) -> str:
    seconds = fields.get("seconds")
    lasts = f" for {seconds:g} s" if seconds else ""
    by = ", by hand" if fields.get("by") == "page" else ""
    return f"fault: {fields['kind']} on {fields['target']}{lasts}{by}"


def _learned(fields: Mapping[str, Any]) -> str:
    refused = fields.get("refused")
    without = f", {refused} refused" if refused else ""
    return (
        f"round {fields['round']} learned from {fields['clients']} nodes{without}: loss {fields['loss']:.3g}"
    )


_EVENTS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "action.wrong": lambda f: f"no fault called for it: {f['node']} did {f['action']} {f['target']}",
    "fault.cleared": lambda f: f"fault cleared: {f['kind']} on {f['target']}",
    "fault.noticed": lambda f: f"noticed after {f['detection_ms']:.0f} ms: {f['kind']} on {f['target']}",
    "fault.healed": lambda f: f"healed after {f['repair_ms']:.0f} ms: {f['kind']} on {f['target']}",
    "fault.injected": _injected,
    "goal.set": lambda f: f"{f['node']} wants {f['goal']} {f['value']:g} (was {f['before']:g})",
    "halted": lambda f: f"the loops are halted: {f['reason']}",
    "knowledge.merged": lambda f: f"{f['node']} learned {f['changes']} things from {f['from']}",
    "leader.elected": lambda f: f"{f['node']} leads, in term {f['term']}",
    "leader.lost": lambda f: f"{f['node']} leads no more (term {f['term']})",
    "link.drained": lambda f: f"{f['node']} drained {f['target']}",
    "link.undrained": lambda f: f"{f['node']} uses {f['target']} again",
    "listening": lambda f: f"serving on {f['address']}",
    "node.restarted": lambda f: f"{f['node']} restarted {f['target']}",
    "raft.off": lambda f: f"no consensus: {f['reason']}",
    "resumed": lambda _: "the loops may act again",
    "round.finished": _learned,
    "started": lambda f: f"started: {', '.join(f['nodes'])}",
}
