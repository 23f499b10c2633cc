"""From an action to the later measurement that shows whether it worked.

A repair is open from the first finding until the metric has recovered; it is not done because the
action returned. The cycle does not wait for it: each cycle asks again, until it is verified or its
time is over.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

from opentelemetry.trace import SpanContext, format_trace_id

from mapek_runtime.errors import PluginContractError

from .knowledge import Incident
from .model import Action, Cycle, Finding

__all__ = ["Repair", "Repairs"]

Verify = Callable[[Cycle, Action], Awaitable[bool | None]]
Failures = list[tuple[str, str, Exception]]

_SEEING = ("monitor", "analyze")
"""The phases without which nobody can tell whether a repair worked."""


@dataclass(slots=True, kw_only=True)
class Repair:
    """An action that was carried out and is not verified yet; times are the loop's seconds."""

    action: Action
    found: float
    executed: float
    verify: Verify | None
    span_context: SpanContext | None
    plugin: str = ""
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
        self,
        action: Action,
        now: float,
        verify: Verify | None,
        span_context: SpanContext | None,
        *,
        plugin: str = "",
    ) -> None:
        """An action was carried out with success: from now on it is to be verified."""
        finding = action.finding
        found = self._found.get((finding.target, finding.problem), now) if finding else now
        self._open.append(
            Repair(
                action=action,
                found=found,
                executed=now,
                verify=verify,
                span_context=span_context,
                plugin=plugin,
            )
        )

    async def settle(
        self, cycle: Cycle, now: float, *, limit: float, failures: Failures
    ) -> tuple[list[Repair], list[Repair]]:
        """The repairs that this cycle shows to have worked, and those that did not.

        A repair with a `verify` of its plugin is asked, all at the same time and for `limit` seconds
        at most; one that fails is noted in `failures` and says "not yet". Any other worked once its
        finding is gone from a cycle in which every monitor and analyzer did its work; at the end of
        its time the last cycle decides. While a phase before Plan fails nobody can tell, and nothing
        is decided.
        """
        worked: list[Repair] = []
        failed: list[Repair] = []
        still: list[Repair] = []
        # What was measured before an action cannot show that it worked.
        fresh = [repair for repair in self._open if repair.executed >= cycle.started]
        due = [repair for repair in self._open if repair.executed < cycle.started]
        asked = [repair for repair in due if repair.verify is not None]
        verdicts: list[bool | None] = []
        if asked:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(_ask(repair, cycle, limit, failures)) for repair in asked]
            verdicts = [task.result() for task in tasks]
        said = dict(zip(map(id, asked), verdicts, strict=True))
        for repair in due:
            over = now - repair.executed >= repair.action.verify_within
            verdict = said[id(repair)] if repair.verify is not None else _by_finding(repair, cycle, over=over)
            if verdict is None and over and (repair.verify is not None or not _blind(cycle)):
                verdict = False
            (still if verdict is None else worked if verdict else failed).append(repair)
        self._open = [*still, *fresh]
        return worked, failed


async def _ask(repair: Repair, cycle: Cycle, limit: float, failures: Failures) -> bool | None:
    assert repair.verify is not None
    try:
        async with asyncio.timeout(limit):
            verdict = await repair.verify(cycle, repair.action)
        if verdict is not None and not isinstance(verdict, bool):
            raise PluginContractError(
                f"plugin {repair.plugin!r}: verify returned {verdict!r}; it must return True, False or None"
            )
    except Exception as error:  # noqa: BLE001 - the isolation of a failing plugin
        failures.append(("verify", repair.plugin, error))
        return None
    return verdict


def _by_finding(repair: Repair, cycle: Cycle, *, over: bool) -> bool | None:
    finding = repair.action.finding
    if finding is None:
        return True
    if _blind(cycle) or "analyze" in cycle.skipped:
        return None
    if any(f.anomaly and (f.target, f.problem) == (finding.target, finding.problem) for f in cycle.findings):
        return None
    # The finding may be gone only because whoever would have made it has failed.
    whole = not any(phase in _SEEING for phase, _, _ in cycle.failures)
    return True if whole or over else None


def _blind(cycle: Cycle) -> bool:
    return any(phase in _SEEING for phase in cycle.failed)
