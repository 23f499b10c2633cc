"""From an action to the later measurement that shows whether it worked.

A repair is open from the first finding until the metric has recovered; it is not done because the
action returned. The cycle does not wait for it: each cycle asks again, until it is verified or its
time is over.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

from opentelemetry.trace import SpanContext, format_trace_id

from .knowledge import Incident
from .model import Action, Cycle, Finding

__all__ = ["Repair", "Repairs"]

Verify = Callable[[Cycle, Action], Awaitable[bool | None]]


@dataclass(slots=True, kw_only=True)
class Repair:
    """An action that was carried out and is not verified yet; times are the loop's seconds."""

    action: Action
    found: float
    executed: float
    verify: Verify | None
    span_context: SpanContext | None
    opened: float = field(default_factory=time.time)

    @property
    def target(self) -> str:
        """What was acted upon."""
        return self.action.target

    def incident(self, now: float, *, success: bool) -> Incident:
        """The closed incident."""
        finding = self.action.finding
        seconds = now - self.found
        return Incident(
            target=finding.target if finding else self.target,
            problem=finding.problem if finding else self.action.reason,
            opened=self.opened - (self.executed - self.found),
            action=self.action.name,
            closed=self.opened - self.executed + now,
            repair_seconds=seconds if success else None,
            success=success,
            trace_id=format_trace_id(self.span_context.trace_id) if self.span_context else "",
        )


class Repairs:
    """The open findings and unverified repairs of one runtime."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], float] = {}
        self._open: list[Repair] = []

    @property
    def targets(self) -> set[str]:
        """Targets whose last action is not verified yet."""
        return {repair.target for repair in self._open}

    def observe(self, findings: Iterable[Finding], now: float) -> None:
        """Note when each problem was first found, and forget those that are gone."""
        present = {(f.target, f.problem) for f in findings if f.anomaly}
        waiting = {
            (r.action.finding.target, r.action.finding.problem) for r in self._open if r.action.finding
        }
        self._found = {key: since for key, since in self._found.items() if key in present or key in waiting}
        for key in present:
            self._found.setdefault(key, now)

    def began(
        self, action: Action, now: float, verify: Verify | None, span_context: SpanContext | None
    ) -> None:
        """An action was carried out with success: from now on it is to be verified."""
        finding = action.finding
        found = self._found.get((finding.target, finding.problem), now) if finding else now
        self._open.append(
            Repair(action=action, found=found, executed=now, verify=verify, span_context=span_context)
        )

    async def settle(self, cycle: Cycle, now: float) -> tuple[list[Repair], list[Repair]]:
        """The repairs that this cycle shows to have worked, and those that did not.

        A repair with a `verify` of its plugin is asked; any other worked once its finding is gone.
        """
        worked: list[Repair] = []
        failed: list[Repair] = []
        still: list[Repair] = []
        problems = {(f.target, f.problem) for f in cycle.findings if f.anomaly}
        for repair in self._open:
            finding = repair.action.finding
            if repair.verify is not None:
                verdict = await repair.verify(cycle, repair.action)
            elif finding is None:
                verdict = True
            else:
                judged = "analyze" not in cycle.skipped and "analyze" not in cycle.failed
                verdict = True if judged and (finding.target, finding.problem) not in problems else None
            if verdict is None and now - repair.executed >= repair.action.verify_within:
                verdict = False
            (still if verdict is None else worked if verdict else failed).append(repair)
        self._open = still
        return worked, failed
