"""Guard rails: the rules that keep a loop that is wrong from doing harm.

Pure: it is given the time and says what it refuses and why. Each refusal stands on the plan span
with its rule. Rules of a domain (never drain the last way out) are the plugins' own `guard`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field

from mapek_runtime.config import GuardSettings

from .model import Action, Cycle, Finding, Rejection

__all__ = ["GuardRails"]

_MINUTE = 60.0
_MOST_TARGETS = 4096
"""Targets that are remembered before those with nothing to remember are forgotten."""

DomainGuard = Callable[[Cycle, Action], str | None]


@dataclass(slots=True)
class _Target:
    acted: float = float("-inf")
    failures: int = 0
    escalated: float = float("-inf")
    taken: set[str] = field(default_factory=set)
    """Actions on it that were not given back yet."""


class GuardRails:
    """The state of the rails of one runtime; all times are the loop's monotonic seconds."""

    def __init__(self, settings: GuardSettings) -> None:
        self._settings = settings
        self._targets: dict[str, _Target] = {}
        self._recent: deque[float] = deque()
        self._streaks: dict[tuple[str, str], int] = {}

    def observe(self, findings: Iterable[Finding]) -> None:
        """Count for how many cycles in a row each finding has been made."""
        self._streaks = {
            key: self._streaks.get(key, 0) + 1 for key in {(f.target, f.problem) for f in findings}
        }

    def admit(
        self,
        actions: Sequence[Action],
        *,
        cycle: Cycle,
        now: float,
        pending: Collection[str],
        halted: str | None = None,
        domain: Sequence[tuple[str, DomainGuard]] = (),
        agree: Callable[[Action], tuple[str, str] | None] = lambda _action: None,
    ) -> tuple[list[Action], list[Rejection]]:
        """Split planned actions into those that may be carried out and those that may not.

        `pending` are the targets whose last action is not yet verified, `halted` the reason when an
        operator has halted the loop; `agree` says what speaks against an action on other nodes' part.
        """
        admitted: list[Action] = []
        refused: list[Rejection] = []
        known = {o.target for o in cycle.observations if o.target} | {a.target for a in actions}
        for action in actions:
            verdict = self._judge(action, admitted, now, pending, halted, known)
            if verdict is None:
                verdict = agree(action) or _ask_domains(domain, cycle, action)
            if verdict is None:
                admitted.append(action)
            else:
                refused.append(Rejection(action=action, rule=verdict[0], reason=verdict[1]))
        return admitted, refused

    def _judge(
        self,
        action: Action,
        admitted: Sequence[Action],
        now: float,
        pending: Collection[str],
        halted: str | None,
        known: Collection[str],
    ) -> tuple[str, str] | None:
        rails = self._settings
        state = self._targets.get(action.target) or _Target()
        if halted is not None:
            return "halted", f"an operator halted the loop: {halted}"
        if now - state.escalated < rails.escalation:
            return (
                "escalated",
                f"{state.failures} repairs of {action.target} failed; left alone for "
                f"{rails.escalation - (now - state.escalated):.0f} s more",
            )
        if any(other.target == action.target for other in admitted):
            return "one at a time", f"another action on {action.target} is planned in this cycle"
        if not action.restorative:
            if action.target in pending:
                return "pending", f"the last action on {action.target} is not verified yet"
            if now - state.acted < rails.cooldown:
                return (
                    "cooldown",
                    f"{action.target} was acted upon {now - state.acted:.1f} s ago; "
                    f"{rails.cooldown:g} s must pass",
                )
            if action.finding is not None:
                streak = self._streaks.get((action.finding.target, action.finding.problem), 0)
                if streak < rails.hysteresis:
                    return (
                        "hysteresis",
                        f"{action.finding.problem} was found in {streak} cycles in a row; "
                        f"{rails.hysteresis} are needed",
                    )
        while self._recent and now - self._recent[0] >= _MINUTE:
            self._recent.popleft()
        if len(self._recent) + len(admitted) >= rails.actions_per_minute:
            return "budget", f"{rails.actions_per_minute} actions were taken within a minute"
        if not action.restorative and not state.taken:
            limit = max(1, int(rails.fleet_share * len(known)))
            taken = sum(1 for target in self._targets.values() if target.taken)
            taken += sum(1 for other in admitted if not other.restorative)
            if taken >= limit:
                return (
                    "fleet share",
                    f"{taken} of {len(known)} targets are acted upon; "
                    f"at most {limit} ({rails.fleet_share:.0%}) may be",
                )
        return None

    def acted(self, action: Action, now: float, *, success: bool) -> None:
        """An action was carried out."""
        if len(self._targets) >= _MOST_TARGETS:
            self._forget(now)
        state = self._targets.setdefault(action.target, _Target())
        state.acted = now
        self._recent.append(now)
        if not success:
            return
        if action.restorative:
            state.taken.clear()
        elif action.inverse:
            # What has no inverse (a restart) takes nothing away.
            state.taken.add(action.name)

    def _forget(self, now: float) -> None:
        self._targets = {
            name: state
            for name, state in self._targets.items()
            if state.taken or state.failures or now - state.acted < self._settings.cooldown
        }

    def repaired(self, target: str) -> None:
        """A repair of `target` was verified."""
        self._targets.setdefault(target, _Target()).failures = 0

    def failed(self, target: str, now: float) -> bool:
        """A repair of `target` did not help; True when the target is escalated by it."""
        state = self._targets.setdefault(target, _Target())
        state.failures += 1
        if state.failures < self._settings.max_failures:
            return False
        state.escalated = now
        return True


def _ask_domains(
    guards: Sequence[tuple[str, DomainGuard]], cycle: Cycle, action: Action
) -> tuple[str, str] | None:
    for name, guard in guards:
        try:
            reason = guard(cycle, action)
        except Exception as error:  # noqa: BLE001 - a guard that fails must not let an action through
            return f"{name} guard", f"the guard failed: {type(error).__name__}: {error}"
        if reason:
            return f"{name} guard", reason
    return None
