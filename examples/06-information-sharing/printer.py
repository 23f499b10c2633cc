"""A plugin that mends a printer, and begins with what has worked before, on whichever node.

Every node has a printer of its own, of the same make: to reboot it does not help, to clear its paper does.
The printer of node-1 jams at once, those of the others later.
"""

from __future__ import annotations

from collections.abc import Iterable

from mapek_runtime import Action, Cycle, Finding, Observation, Outcome, Rejection

REMEDIES = ("reboot", "clear_paper")
LATER = 5.0


class Printer:
    """One printer, and the loop's way with it."""

    name = "printer"
    handles = REMEDIES

    def __init__(self) -> None:
        self.jams_at: float | None = None
        self.mended = False

    async def monitor(self, cycle: Cycle) -> Iterable[Observation]:
        """1 while it is jammed."""
        if self.jams_at is None:
            self.jams_at = cycle.started + (0.0 if cycle.node_id == "node-1" else LATER)
        jammed = cycle.started >= self.jams_at and not self.mended
        return (
            Observation(name="printer.jammed", value=float(jammed), target=f"printer of {cycle.node_id}"),
        )

    async def analyze(self, cycle: Cycle) -> Iterable[Finding]:
        """A jam is a finding."""
        return [
            Finding(target=target, problem="printer.jammed")
            for target, jammed in cycle.readings("printer.jammed").items()
            if jammed
        ]

    async def plan(self, cycle: Cycle) -> Iterable[Action | Rejection]:
        """The remedy that has worked best; one that nobody has tried may be as good as any."""
        known = {remedy: cycle.knowledge.success_rate(remedy) for remedy in REMEDIES}
        hopes = {remedy: 1.0 if rate is None else rate for remedy, rate in known.items()}
        best = max(REMEDIES, key=lambda remedy: hopes[remedy])
        options: list[Action | Rejection] = []
        for finding in cycle.findings:
            for remedy in REMEDIES:
                action = Action(name=remedy, target=finding.target, finding=finding, verify_within=0.5)
                rate = known[remedy]
                if remedy == best:
                    options.append(action)
                elif rate is not None:
                    reason = f"it has worked in {rate:.0%} of the cases, on any node"
                    options.append(Rejection(action=action, rule="does not help", reason=reason))
        return options

    async def execute(self, cycle: Cycle, action: Action) -> Outcome:
        """Do it; only one of the two mends it."""
        self.mended = action.name == "clear_paper"
        return Outcome(action=action, success=True, changed=f"did {action.name}")
