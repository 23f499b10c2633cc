"""A plugin that fails a database over, once, although every node sees that its primary is down.

The database is a journal of what happened to it, so that nodes in several processes can share it as well:
`primary down` and then one line for each standby that was promoted.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from pathlib import Path

from mapek_runtime import Action, Cycle, Evidence, Finding, Observation, Outcome, Rejection


class Database:
    """Watches the database whose journal the variable DATABASE names.

    A fail-over takes DATABASE_SECONDS, a second where that is not set.
    """

    name = "database"
    handles = ("fail_over",)

    def __init__(self) -> None:
        self.journal = Path(os.environ["DATABASE"])
        self.seconds = float(os.environ.get("DATABASE_SECONDS", "1"))

    async def monitor(self, cycle: Cycle) -> Iterable[Observation]:
        """1 while there is a primary, 0 while there is none."""
        last = (await asyncio.to_thread(self.journal.read_text)).splitlines()[-1]
        return (Observation(name="database.primary", value=float(last != "primary down"), target="database"),)

    async def analyze(self, cycle: Cycle) -> Iterable[Finding]:
        """A database without a primary is a finding; every node makes it."""
        return [
            Finding(
                target=target,
                problem="database.headless",
                evidence=(Evidence(metric="database.primary", value=value, threshold=1.0, rule="below"),),
            )
            for target, value in cycle.readings("database.primary").items()
            if value < 1
        ]

    async def plan(self, cycle: Cycle) -> Iterable[Action | Rejection]:
        """Fail it over. Two primaries would be worse than none: only whoever leads may, and once."""
        return [
            Action(name="fail_over", target=finding.target, finding=finding, needs_consensus=True)
            for finding in cycle.findings
        ]

    async def execute(self, cycle: Cycle, action: Action) -> Outcome:
        """Promote a standby; it takes its time, in which the others see that there is no primary."""
        await asyncio.sleep(self.seconds)
        await asyncio.to_thread(self._write, f"{cycle.node_id} promoted a standby")
        return Outcome(action=action, success=True, changed=f"{cycle.node_id} promoted a standby")

    def _write(self, line: str) -> None:
        with self.journal.open("a") as journal:
            journal.write(line + "\n")
