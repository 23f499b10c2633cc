"""Causes: why a cycle is kept, from what its spans say.

Read from names, attributes and status, which are recorded anyway, so that it holds as well for cycles
that are not run by `mapek_runtime.Runtime`. Knows spans and nothing of who holds them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.trace import StatusCode

from mapek_runtime.trace.span import UNSET

if TYPE_CHECKING:
    from mapek_runtime.trace.span import Span

__all__ = ["TELLING", "cause_of"]

TELLING = frozenset(("mape_k.analyze", "mape_k.plan", "mape_k.execute"))
"""Spans whose attributes say something of their cycle, beside its root."""


def cause_of(span: Span, *, root: bool = False) -> str | None:
    """Why the cycle of an ended span is to be kept: error, anomaly or action; None when it is quiet."""
    status = span._status
    if status is not UNSET and status.status_code is StatusCode.ERROR:
        return "error"
    if root or span._name in TELLING:
        said = span._attributes
        if said.get("anomalies_detected"):
            return "anomaly"
        if said.get("actions_planned") or said.get("actions_executed"):
            return "action"
        if said.get("success") is False:
            return "error"
    return None
