"""Two plugins that upgrade the machines of several regions: each by itself, as its region's planner plans.

Within a region the planner decides alone: one machine after another. Of the gateways, by which the regions
reach one another, one in all regions may be down at a time: for that its planner has a claim on which all
nodes have agreed.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec

from mapek_runtime import Action, Cycle, Evidence, Finding, Observation, Outcome, Rejection
from mapek_runtime.errors import MapekError, NoConsensus
from mapek_runtime.loop.domain import Consensus, DomainContext, Goals, Grant
from mapek_runtime.loop.model import Value

CLAIM = "the gateway that is down"
VERSION = "machine.version"
"""The fact: what a machine runs."""


def goal_of(machine: str) -> str:
    """The goal: what a machine shall run."""
    return f"machine.version {machine}"


class Machine:
    """One machine, whose version stands in the file NODE.version of the folder MACHINES.

    INSTALL is a program: it is run with that folder, the node and the version.
    """

    name = "machine"
    handles = ("install",)

    def __init__(self) -> None:
        self.folder = Path(os.environ["MACHINES"])
        self.installer = os.environ["INSTALL"]
        self.version = ""
        self.told: Value | None = None
        self.wanted: Value | None = None

    async def monitor(self, cycle: Cycle) -> Iterable[Observation]:
        """What runs on it, and what is wanted. A goal that came later has started the next cycle."""
        name = goal_of(cycle.node_id)
        before, self.told = self.told, cycle.knowledge.goal(name)
        if self.told == before or f"goal {name}" in {trigger.reason for trigger in cycle.triggers}:
            self.wanted = self.told
        file = self.folder / f"{cycle.node_id}.version"
        self.version = (await asyncio.to_thread(file.read_text)).strip()
        return (Observation(name=VERSION, value=float(self.version), target=cycle.node_id),)

    async def analyze(self, cycle: Cycle) -> Iterable[Finding]:
        """Whether its planner wants something else there."""
        if self.wanted in {None, self.version}:
            return ()
        return (
            Finding(
                target=cycle.node_id,
                problem="machine.outdated",
                evidence=(
                    Evidence(metric=VERSION, value=float(self.version), threshold=float(str(self.wanted))),
                ),
            ),
        )

    async def plan(self, cycle: Cycle) -> Iterable[Action]:
        """Install it."""
        return [
            Action(name="install", target=finding.target, finding=finding)
            for finding in cycle.findings
            if finding.problem == "machine.outdated"
        ]

    async def execute(self, cycle: Cycle, action: Action) -> Outcome:
        """Run the installer."""
        version = str(self.wanted)
        process = await asyncio.create_subprocess_exec(
            self.installer, str(self.folder), action.target, version, stderr=asyncio.subprocess.PIPE
        )
        try:
            _, error = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
        if process.returncode:
            return Outcome(action=action, success=False, error=error.decode(errors="replace")[-200:])
        return Outcome(action=action, success=True, changed=f"{action.target} runs {version}")

    async def learn(self, cycle: Cycle) -> None:
        """Tell what runs on it."""
        if self.version:
            cycle.knowledge.remember(VERSION, self.version)


class PlannerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all machines shall run, and which of them the regions share."""

    version: str
    gateways: tuple[str, ...] = ()
    """Machines by which the regions reach one another."""
    patience: float = 30.0
    """Seconds that an installation may take; a planner that is lost keeps its claim for as long."""


class Planner:
    """Plans for the machines of its region, which are those whose facts it is given."""

    name = "planner"
    settings = PlannerSettings
    handles = ("upgrade",)

    def __init__(self, settings: PlannerSettings) -> None:
        self._settings = settings
        self._below: DomainContext | None = None
        self._grant: Grant | None = None
        self._begun: dict[str, float] = {}
        """When each upgrade was planned that is not seen to have ended."""

    def oversee(self, context: DomainContext) -> None:
        """In whose name it claims, and sets goals."""
        self._below = context

    async def analyze(self, cycle: Cycle) -> Iterable[Finding]:
        """Every machine that runs something else."""
        return [
            Finding(target=machine, problem="region.outdated", message=f"{machine} runs {version}")
            for machine, version in sorted(cycle.knowledge.facts_elsewhere(VERSION).items())
            if version != self._settings.version
        ]

    async def plan(self, cycle: Cycle) -> Iterable[Action | Rejection]:
        """The next machine: a gateway if the other regions agree, else one of this region alone."""
        options: list[Action | Rejection] = []
        outdated = sorted(cycle.findings, key=lambda finding: finding.target not in self._settings.gateways)
        busy = self._busy({finding.target for finding in outdated})
        for finding in outdated:
            action = Action(
                name="upgrade",
                target=finding.target,
                finding=finding,
                verify_within=self._settings.patience,
            )
            if busy not in {"", finding.target}:
                options.append(Rejection(action=action, rule="one at a time", reason=f"{busy} comes first"))
                continue
            refused = await self._negotiate(finding.target)
            if refused:
                options.append(Rejection(action=action, rule="shared with other regions", reason=refused))
            else:
                options.append(action)
                busy = finding.target
        return options

    async def execute(self, cycle: Cycle, action: Action) -> Outcome:
        """Set the goal of that machine."""
        goals = self._context.find(Goals)
        if goals is None:
            return Outcome(action=action, success=False, error="nobody keeps goals here")
        self._begun[action.target] = time.monotonic()
        goals.set_goal(self._me, goal_of(action.target), self._settings.version)
        return Outcome(
            action=action, success=True, changed=f"{action.target} shall run {self._settings.version}"
        )

    async def learn(self, cycle: Cycle) -> None:
        """Let other regions have their turn once the gateway runs again."""
        versions = cycle.knowledge.facts_elsewhere(VERSION)
        for machine in [each for each in self._begun if versions.get(each) == self._settings.version]:
            del self._begun[machine]
        consensus = self._context.find(Consensus)
        if self._grant is None or consensus is None or self._begun.keys() & {*self._settings.gateways}:
            return
        grant, self._grant = self._grant, None
        try:
            await consensus.release(self._me, grant.key, fence=grant.fence)
        except NoConsensus:
            # It ends by itself.
            return

    async def _negotiate(self, machine: str) -> str:
        """Why the machine must not be down now; empty when it may."""
        if machine not in self._settings.gateways:
            return ""
        consensus = self._context.find(Consensus)
        if consensus is None:
            return "nobody here can agree with other regions; add raft to domains"
        left = 0.0 if self._grant is None else self._grant.until - asyncio.get_running_loop().time()
        if left > self._settings.patience:
            return ""
        try:
            grant = await consensus.claim(self._me, CLAIM, hold=2 * self._settings.patience)
        except NoConsensus as error:
            return str(error)
        if not grant.granted:
            return f"{grant.owner} has another gateway down" if grant.owner else grant.reason
        self._grant = grant
        return ""

    def _busy(self, outdated: set[str]) -> str:
        """The machine of this region that is being upgraded."""
        now = time.monotonic()
        for machine, begun in self._begun.items():
            if machine in outdated and now - begun < self._settings.patience:
                return machine
        return ""

    @property
    def _context(self) -> DomainContext:
        if self._below is None:
            raise MapekError("the planner must be a plugin of [hierarchy]")
        return self._below

    @property
    def _me(self) -> str:
        return self._context.nodes[0]
