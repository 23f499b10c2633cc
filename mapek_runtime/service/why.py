"""Why a cycle decided as it did, read from the events on the spans of its phases, a line each.

What the events hold is listed in `loop.explain`; a trace of another program has none of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .trace_tree import TraceTree
from .waterfall import show_duration

__all__ = ["why"]


def why(tree: TraceTree) -> Iterator[tuple[str, str]]:
    """(what it is, in words): findings with their evidence, options, actions, insights, what was skipped."""
    for branch in tree.branches:
        if not branch.name.startswith("mape_k."):
            continue
        for event in branch.events:
            line = _line(event.name, event.attributes)
            if line is not None:
                yield line
        if branch.status == "error" and branch.message:
            yield "failed", f"{branch.name}: {branch.message}"


def _line(name: str, about: Mapping[str, Any]) -> tuple[str, str] | None:
    match name:
        case "finding":
            confidence = _number(about.get("confidence"))
            return (
                "found",
                f"{about.get('problem')} {about.get('target')}{_because(about)}, confidence {confidence}",
            )
        case "option.chosen":
            rate = about.get("success_rate")
            seconds = about.get("repair_seconds")
            known = [] if rate is None else [f"worked {float(rate):.0%} of the time"]
            if seconds is not None:
                known.append(f"repaired in {show_duration(float(seconds) * 1e9)}")
            return "chosen", f"{about.get('action')} {about.get('target')}{_reason(about)}{_known(known)}"
        case "option.rejected":
            return (
                "rejected",
                f"{about.get('action')} {about.get('target')} by {about.get('rule')}{_reason(about)}",
            )
        case "action":
            ended = "done" if about.get("success") else f"failed: {about.get('error') or 'no reason given'}"
            changed = f"; {about['changed']}" if about.get("changed") else ""
            return "action", f"{about.get('action')} {about.get('target')}: {ended}{changed}"
        case "insight":
            text = about.get("message") or f"{about.get('insight')} {about.get('target', '')}".strip()
            return "learned", str(text)
    return None


def _because(about: Mapping[str, Any]) -> str:
    metrics, values, thresholds, units = (
        about.get(f"evidence.{each}") or [] for each in ("metric", "value", "threshold", "unit")
    )
    evidence = [
        f"{metric} {_number(value)} against {_number(threshold)}{_unit(unit)}"
        for metric, value, threshold, unit in zip(metrics, values, thresholds, units, strict=False)
    ]
    message = f": {about['message']}" if about.get("message") else ""
    return message + (f" ({', '.join(evidence)})" if evidence else "")


def _reason(about: Mapping[str, Any]) -> str:
    return f": {about['reason']}" if about.get("reason") else ""


def _known(words: list[str]) -> str:
    return f" ({', '.join(words)})" if words else ""


def _number(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, int | float) else str(value)


def _unit(unit: object) -> str:
    # Braces are a comment of UCUM: `{probe}` has no unit, and is a word for people.
    word = str(unit).strip("{}")
    return "" if word in {"", "1"} else f" {word}"
