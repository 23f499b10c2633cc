"""The slow loop over the mesh's fast ones: it knows what all nodes have been through, and sets goals.

A fast loop sees the links of its node and damps each of them by itself. Where a link fails again and again
within a minute, this loop lets it rest longer whenever it is drained, by the goal `mesh.cool_down LINK`, and
gives the time back when the link has been well for long enough. Works on any engine.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterable, Mapping
from itertools import islice
from typing import Annotated

import msgspec

from mapek_runtime import Action, Cycle, Evidence, Finding, Observation, Outcome, Rejection
from mapek_runtime.loop.domain import DomainContext, FaultInjector, Goals, Topology

from .engine import link_id
from .failures import ONE_FAILURE, Failures
from .rest import COOL_DOWN, LONGEST, USUAL, goal_of, least_rest, link_of, seconds

__all__ = ["MeshRegion", "RegionSettings"]

_MOST_GOALS = 512
_SLACK = 30.0
"""Seconds after a window within which the slow loop has had a cycle."""


class RegionSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When the slow loop of the mesh takes a link for restless, and how long it shall rest then."""

    window: Annotated[float, msgspec.Meta(ge=1, le=3600)] = 60.0
    """Seconds of the past that are looked at, besides those in which the link must rest."""
    failures: Annotated[int, msgspec.Meta(ge=2, le=100)] = 2
    """Failures of a link within them from which it is restless."""
    rest: Annotated[float, msgspec.Meta(ge=5, le=300)] = 60.0
    """Seconds that a restless link rests at least when it is drained; doubled where it fails again."""
    most: Annotated[float, msgspec.Meta(ge=5, le=300)] = 240.0
    """Seconds up to which that is doubled."""


class MeshRegion:
    """A plugin of the slow loop; it must be told what it oversees before its first cycle."""

    name = "mesh_region"
    settings = RegionSettings
    handles = ("set_goal", "reset_goal")

    def __init__(self, settings: RegionSettings | None = None) -> None:
        self._settings = settings or RegionSettings()
        self._failures = Failures(self._settings.window + LONGEST)
        self._context: DomainContext | None = None
        self._began = math.inf
        self._rests: Mapping[str, float] = {}
        """The seconds in force, of each link that has a goal."""
        self._set_at: dict[str, float] = {}
        self._answered: dict[str, float] = {}
        """The newest failure (Unix time) of each link that its goal was set for."""
        self._traffic = (0, 0)

    def oversee(self, context: DomainContext) -> None:
        """Where goals are set, and in the name of which nodes."""
        self._context = context

    async def monitor(self, cycle: Cycle) -> Iterable[Observation]:
        """Read what all nodes have been through, and what of their messages arrived."""
        self._began = min(self._began, cycle.started)
        self._failures.look(cycle.knowledge.incidents(), now=cycle.started, unix=time.time())
        self._rests = self._in_force()
        for link in self._rests:
            # Where another has set it, it was for what was known then.
            self._answered.setdefault(link, self._failures.newest(link))
        found = [
            Observation(name="link.failures", value=self._lately(link), unit="{failure}", target=link)
            for link in sorted({*self._links(), *self._failures.links})
        ]
        found += [
            Observation(name=COOL_DOWN, value=rest, unit="s", target=link)
            for link, rest in self._rests.items()
        ]
        return [*found, *self._delivery()]

    async def analyze(self, cycle: Cycle) -> Iterable[Finding]:
        """Find links that fail again and again, and those that have been well for long enough."""
        return [*self._restless(), *self._calm(cycle)]

    async def plan(self, cycle: Cycle) -> Iterable[Action | Rejection]:
        """Let a restless link rest longer, and one that is calm as long as usual again."""
        options: list[Action | Rejection] = []
        restless = {finding.target for finding in cycle.findings if finding.problem == "mesh.restless"}
        for finding in cycle.findings:
            if finding.target in restless:
                options += self._longer(finding, restless)
            elif finding.problem == "mesh.calm":
                options.append(self._set(finding, USUAL, name="reset_goal", restorative=True))
        return options

    async def execute(self, cycle: Cycle, action: Action) -> Outcome:
        """Set the goal for all nodes; also when one that did not help is taken back."""
        link, value = action.target, float(action.parameters.get("value", USUAL))
        goals, author = self._goals(), self._author()
        if self._context is None or goals is None or author is None:
            error = "nobody keeps goals here, or no node of this process runs that could set one"
            return Outcome(action=action, success=False, error=error)
        before = self._rests.get(link, USUAL)
        goals.set_goal(author, goal_of(link), value)
        self._set_at[link] = cycle.started
        self._answered[link] = self._failures.newest(link)
        fields = {"node": cycle.node_id, "goal": goal_of(link), "value": value, "before": before}
        self._context.emit("goal.set", fields)
        changed = f"{link} rests {value:g} s at least when it is drained (was {before:g} s)"
        return Outcome(action=action, success=True, changed=changed)

    async def verify(self, cycle: Cycle, action: Action) -> bool | None:
        """Whether the link fails less often than before, once a window has passed."""
        if action.name == "reset_goal":
            return action.target not in self._rests
        if (
            cycle.started - self._set_at.get(action.target, cycle.started)
            < self._settings.window + ONE_FAILURE
        ):
            return None
        return self._lately(action.target) < float(action.parameters.get("failures_before", 0))

    # -- inside ---------------------------------------------------------------------------------

    def _restless(self) -> Iterable[Finding]:
        for link in self._failures.links:
            # A link that rests cannot fail: that time proves nothing.
            window = self._settings.window + self._rests.get(link, USUAL)
            count = self._failures.since(link, time.time() - window)
            if count < self._settings.failures:
                continue
            yield Finding(
                target=link,
                problem="mesh.restless",
                confidence=1.0 - 0.5**count,
                severity=min(1.0, count / (2 * self._settings.failures)),
                evidence=(
                    Evidence(
                        metric="link.failures", value=count, threshold=self._settings.failures,
                        unit="{failure}", rule=f"within {window:g} s, as all nodes have seen it",
                    ),
                ),
                message=f"{link} has failed {count} times within {window:g} s",
            )  # fmt: skip

    def _calm(self, cycle: Cycle) -> Iterable[Finding]:
        """Good news: the link was in use for a whole window after its rest, and has not failed."""
        for link, rest in self._rests.items():
            last = max(self._failures.last.get(link, self._began), self._set_at.get(link, self._began))
            quiet, enough = cycle.started - last, rest + self._settings.window
            if quiet < enough:
                continue
            yield Finding(
                target=link,
                problem="mesh.calm",
                anomaly=False,
                severity=0.0,
                evidence=(
                    Evidence(
                        metric="link.quiet", value=quiet, threshold=enough, unit="s",
                        rule="without a failure: the rest, and a window after it",
                    ),
                ),
                message=f"{link} has not failed for {quiet:.0f} s",
            )  # fmt: skip

    def _longer(self, finding: Finding, restless: Collection[str]) -> list[Action | Rejection]:
        link, first = finding.target, self._settings.rest
        rest = self._rests.get(link, USUAL)
        value = first if rest < first else min(2 * rest, max(self._settings.most, rest))
        action = self._set(finding, value, inverse="reset_goal")
        if rest >= first and self._failures.newest(link) < self._answered[link] + ONE_FAILURE:
            reason = f"it shall rest {rest:g} s, and has not failed since that was said"
            return [Rejection(action=action, rule="in force", reason=reason)]
        if value <= rest:
            return [Rejection(action=action, rule="at its most", reason=f"it shall rest {rest:g} s already")]
        if not self._can_be_spared(link, restless):
            reason = "an end of it would have fewer than two other ways that are well"
            return [Rejection(action=action, rule="no way to spare", reason=reason)]
        wait = Action(name="wait", target=link, finding=finding)
        reason = f"its ends double its rest after each failure, beginning with {USUAL:g} s"
        return [action, Rejection(action=wait, rule="too slow", reason=reason)]

    def _can_be_spared(self, link: str, restless: Collection[str]) -> bool:
        """Whether its ends would heed the goal; of nodes of other processes nobody knows it here."""
        topology = None if self._context is None else self._context.find(Topology)
        if self._context is None or topology is None or not set(link.split("~")) <= {*self._context.nodes}:
            return True
        well = [
            (view.a, view.b)
            for view in topology.links()
            if view.state == "up" and link_id(view.a, view.b) not in restless
        ]
        return least_rest(USUAL, link, well) > 0

    def _set(
        self,
        finding: Finding,
        value: float,
        *,
        name: str = "set_goal",
        inverse: str = "",
        restorative: bool = False,
    ) -> Action:
        link = finding.target
        return Action(
            name=name,
            target=link,
            reason=finding.message,
            finding=finding,
            parameters={"goal": COOL_DOWN, "value": value, "failures_before": self._lately(link)},
            inverse=inverse,
            verify_within=self._settings.window + _SLACK,
            restorative=restorative,
        )

    def _lately(self, link: str) -> int:
        return self._failures.since(link, time.time() - self._settings.window)

    def _delivery(self) -> list[Observation]:
        """The share of the messages since the last cycle that arrived, where somebody counts them."""
        injector = None if self._context is None else self._context.find(FaultInjector)
        if injector is None:
            return []
        report = injector.report()
        sent, delivered = report.sent - self._traffic[0], report.delivered - self._traffic[1]
        self._traffic = report.sent, report.delivered
        return [Observation(name="mesh.delivery", value=delivered / sent)] if sent > 0 else []

    def _goals(self) -> Goals | None:
        return None if self._context is None else self._context.find(Goals)

    def _links(self) -> list[str]:
        """The links that are known here: of them only a share may be told to rest, by the guard rails."""
        topology = None if self._context is None else self._context.find(Topology)
        return [] if topology is None else [link_id(link.a, link.b) for link in topology.links()]

    def _author(self) -> str | None:
        """A node of this process that runs."""
        if self._context is None:
            return None
        topology = self._context.find(Topology)
        alive = {} if topology is None else topology.alive()
        return next((node for node in self._context.nodes if alive.get(node, True)), None)

    def _in_force(self) -> Mapping[str, float]:
        goals, author = self._goals(), self._author()
        found: dict[str, float] = {}
        if goals is None or author is None:
            return found
        for name, goal in islice(goals.goals(author).items(), _MOST_GOALS):
            link, rest = link_of(name), seconds(goal.value)
            if link and rest > USUAL:
                found[link] = rest
        return found
