"""The summary of a run: what was broken, what was healed and how fast, and where every span is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mapek_runtime.export.account import Statistics
from mapek_runtime.loop import FaultReport, RuntimeStatistics
from mapek_runtime.trace.watching.blame import Blocker

__all__ = ["Summary", "law", "percentile"]

_MOST_BLOCKERS = 5


def percentile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that at least `share` of all values do not exceed; None of none."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What is known at the end of a run."""

    seconds: float
    nodes: Mapping[str, RuntimeStatistics]
    reports: Sequence[FaultReport]
    spans: Statistics
    loop_lag_ms: Mapping[str, float]
    detection: Sequence[float] = ()
    """Seconds from each fault until a loop noticed it."""
    loop_blockers: Sequence[Blocker] = ()
    """Who held the loop, the longest in sum first."""

    def as_dict(self) -> dict[str, Any]:
        """The summary as its JSON line has it; what was not measured is null."""
        repairs = [seconds * 1000 for report in self.reports for seconds in report.repair_seconds]
        noticed = [seconds * 1000 for seconds in self.detection]
        sent = sum(report.sent for report in self.reports)
        delivered = sum(report.delivered for report in self.reports)
        total = {
            field: sum(getattr(each, field) for each in self.nodes.values())
            for field in RuntimeStatistics._fields
        }
        return {
            "event": "summary",
            "seconds": round(self.seconds, 3),
            "nodes": len(self.nodes),
            "cycles": total["cycles"],
            "cycles_failed": total["failed"],
            "cycles_cancelled": total["cancelled"],
            "ticks_skipped": total["ticks_skipped"],
            "actions": total["actions"],
            "actions_failed": total["actions_failed"],
            "actions_rejected": total["rejected"],
            "faults_injected": sum(report.injected for report in self.reports),
            "faults_healed": sum(report.healed for report in self.reports),
            "faults_harmless": sum(report.harmless for report in self.reports),
            "detection_ms": {
                "median": _rounded(_median(noticed)),
                "p95": _rounded(percentile(noticed, 0.95)),
            },
            "repair_ms": {
                "median": _rounded(_median(repairs)),
                "p95": _rounded(percentile(repairs, 0.95)),
            },
            "messages_sent": sent,
            "messages_delivered": delivered,
            "delivery_ratio": round(delivered / sent, 6) if sent else None,
            "wrong_actions": sum(report.wrong_actions for report in self.reports),
            "spans": law(self.spans),
            "loop_lag_ms": dict(self.loop_lag_ms),
            "loop_blockers": [blocker.as_dict() for blocker in self.loop_blockers[:_MOST_BLOCKERS]],
        }

    def lines(self) -> list[str]:
        """The summary for people."""
        facts = self.as_dict()
        repair = facts["repair_ms"]
        spans = facts["spans"]
        dropped = sum(spans["dropped"].values())
        lines = [
            f"{facts['cycles']} cycles on {facts['nodes']} nodes in {self.seconds:.1f} s"
            f" ({facts['cycles_failed']} failed), {facts['actions']} actions"
            f" ({facts['actions_failed']} failed), {facts['actions_rejected']} options refused",
        ]
        if facts["faults_injected"]:
            times = (
                f", time to repair {repair['median']:.0f} ms median, {repair['p95']:.0f} ms p95"
                if repair["median"] is not None
                else ""
            )
            harmless = f", {facts['faults_harmless']} hurt nothing" if facts["faults_harmless"] else ""
            lines.append(
                f"{facts['faults_injected']} faults injected, {facts['faults_healed']} healed{times}"
                f"{harmless}; "
                f"{facts['wrong_actions']} wrong actions"
            )
        if facts["delivery_ratio"] is not None:
            lines.append(
                f"{facts['messages_delivered']} of {facts['messages_sent']} messages delivered "
                f"({facts['delivery_ratio']:.2%})"
            )
        waiting = spans["held"] + spans["queued"] + spans["in_flight"] + spans["spooled"]
        lines.append(
            f"{spans['ended']} spans ended: {spans['exported']} exported, {dropped} dropped, "
            f"{waiting} waiting; loop lag {facts['loop_lag_ms']['p99']:.1f} ms p99"
        )
        for blocker in self.loop_blockers[:1]:
            kind = "span " if blocker.is_span else ""
            lines.append(
                f"the event loop was held {blocker.count} times by {kind}{blocker.name}, "
                f"{blocker.longest * 1000:.0f} ms at most, in {blocker.place}"
            )
        return lines


def law(spans: Statistics) -> dict[str, Any]:
    """Every term of `ended + recovered = exported + dropped + held + queued + in flight + spooled`."""
    return {
        "ended": spans.ended,
        "recovered": spans.recovered,
        "exported": spans.exported,
        "dropped": dict(spans.dropped),
        "held": spans.held,
        "queued": spans.queued,
        "in_flight": spans.in_flight,
        "spooled": spans.spooled,
    }


def _median(values: Sequence[float]) -> float | None:
    if not values:
        return None
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
