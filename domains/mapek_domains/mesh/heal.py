"""The acting half of the mesh's loop: Plan, Execute and verification.

Works on any engine. Both ends see a fault. Where the nodes agree (`Consensus`), whichever end asks first
drains the link, and the leader restarts a dead node. Where they do not, the lower end owns the link and
drains it at once, the other acts only when it is still in use a moment later, because the owner may be
dead or deaf, and a dead node is restarted by its lowest live neighbour. Each option that was not chosen is
returned with the rule that spoke against it. What failed is undone by the runtime, through the inverse.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from time import perf_counter

from mapek_runtime import Action, Cycle, Finding, Outcome, Rejection
from mapek_runtime.errors import EngineUnavailable
from mapek_runtime.loop.domain import Consensus

from .engine import Asks, LinkReading, Overhears, Restarts
from .meter import alarming
from .rest import DRAINED_AT
from .routes import cut_off
from .watch import MeshWatcher
from .window import Window

__all__ = ["MeshHealer"]

_INVERSE = {"drain": "undrain", "undrain": "drain"}
_LINK_PROBLEMS = ("link.dead", "link.lossy", "link.slow")
_WITHIN = {"drain": 3.0, "undrain": 10.0, "restart": 5.0}
_PROVEN = 1.0
_PATIENCE = 0.08
"""Seconds that the end which does not own a link leaves to the owner: less than a cycle, more than
the two ends' alarms lie apart."""
_ASK_AGAIN = 30.0


class MeshHealer:
    """Acts on what the watcher of the same node found."""

    name = "mesh.heal"
    handles = ("drain", "undrain", "restart")

    def __init__(
        self, watcher: MeshWatcher, consensus: Callable[[], Consensus | None] = lambda: None
    ) -> None:
        self._watcher = watcher
        self._consensus = consensus
        self._engine = watcher.engine
        self._found_at: dict[str, float] = {}
        self._drained_at: dict[str, float] = {}
        self._cannot_restart: dict[str, tuple[float, str]] = {}
        self._undrained_at: dict[str, float] = {}

    async def plan(self, cycle: Cycle) -> Iterable[Action | Rejection]:
        """Choose for each finding, and say what was not chosen and why."""
        readings = {reading.link: reading for reading in self._watcher.readings}
        edges = list(self._engine.edges())
        options: list[Action | Rejection] = []
        self._found_at = {
            f.target: self._found_at.get(f.target, cycle.started)
            for f in cycle.findings
            if f.problem in _LINK_PROBLEMS
        }
        for finding in cycle.findings:
            if finding.problem in _LINK_PROBLEMS and finding.target in readings:
                reading = readings[finding.target]
                chosen = self._drain(
                    cycle,
                    finding,
                    reading,
                    edges,
                    waited=cycle.started - self._found_at[finding.target] >= _PATIENCE,
                )
                options += chosen
                if isinstance(chosen[0], Action):
                    # Two drains of one cycle together must not cut the mesh either.
                    edges = [edge for edge in edges if set(edge) != set(_ends(reading.link))]
            elif finding.problem == "node.dead":
                options.append(self._restart(cycle, finding))
            elif finding.problem == "link.recovered":
                options.append(self._action(cycle, "undrain", finding, restorative=True))
        # What has no inverse takes nothing away; it goes first, where the guard rails count.
        return sorted(options, key=lambda option: not (isinstance(option, Action) and not option.inverse))

    def guard(self, cycle: Cycle, action: Action) -> str | None:
        """Never drain the last way out, and never act on a link when the fault is likely here."""
        if action.name != "drain":
            return None
        if self._watcher.distrusts_itself:
            return f"all links of {cycle.node_id} died at once: it distrusts itself"
        return self._last_way_out(action.target, list(self._engine.edges()))

    async def execute(self, cycle: Cycle, action: Action) -> Outcome:
        """Carry it out through the engine."""
        began = perf_counter()
        refusal = self.guard(cycle, action)
        if refusal:
            # The mesh may have changed since Plan: another node drained a link meanwhile.
            return Outcome(action=action, success=False, error=refusal, duration=perf_counter() - began)
        try:
            match action.name:
                case "drain":
                    self._drained_at[action.target] = asyncio.get_running_loop().time()
                    changed = await self._engine.drain(action.target)
                    cycle.knowledge.remember(DRAINED_AT + action.target, round(time.time(), 1))
                    self._ask_peer(action.target)
                case "undrain":
                    changed = await self._engine.undrain(action.target)
                    if self._watcher.drained_by_death(action.target):
                        # That says nothing of the link, nor of the health of its ends.
                        cycle.knowledge.remember(DRAINED_AT + action.target, 0.0)
                    self._undrained_at[action.target] = cycle.started
                case _:
                    changed = await self._engine.restart(action.target)
        except EngineUnavailable as error:
            if action.name == "restart":
                self._cannot_restart[action.target] = (cycle.started, str(error))
            return Outcome(action=action, success=False, error=str(error), duration=perf_counter() - began)
        return Outcome(action=action, success=True, changed=changed, duration=perf_counter() - began)

    async def verify(self, cycle: Cycle, action: Action) -> bool | None:
        """Whether traffic flows again: another way is in force, the node answers, the link stays good."""
        if action.name == "restart":
            if not self._engine.nodes().get(action.target):
                return None
            heard = [r.peer_alive for r in self._watcher.readings if r.peer == action.target]
            # Of no neighbour of this node is known what its neighbours say: that there is a way to it.
            return True if not heard or any(heard) else None
        reading = self._reading(action.target)
        if reading is None:
            return None
        if action.name == "undrain":
            if self._watcher.bad(reading):
                return False
            since = cycle.started - self._undrained_at.get(action.target, cycle.started)
            return True if since >= _PROVEN and not reading.drained_here else None
        if not reading.peer_alive:
            return True
        # Without another way in time the drain has failed, and the runtime undoes it; it may also be
        # that the peer has died and not everybody has noticed.
        if len(self._engine.route(reading.peer)) <= 2:
            return None
        if not isinstance(self._engine, Asks):
            return True
        # A route is where packets ought to go; an answer shows that they went.
        since = self._drained_at.get(action.target, cycle.started)
        if self._engine.answered(reading.peer, since):
            return True
        self._engine.ask(reading.peer)
        return None

    # -- options --------------------------------------------------------------------------------

    def _drain(
        self,
        cycle: Cycle,
        finding: Finding,
        reading: LinkReading,
        edges: list[tuple[str, str]],
        *,
        waited: bool,
    ) -> list[Action | Rejection]:
        action = self._action(cycle, "drain", finding)
        refusal = self._why_not_drain(cycle, finding, reading, edges, waited=waited)
        if refusal is not None:
            return [Rejection(action=action, rule=refusal[0], reason=refusal[1])]
        return [action, *self._not_chosen(cycle, finding, reading)]

    def _why_not_drain(
        self,
        cycle: Cycle,
        finding: Finding,
        reading: LinkReading,
        edges: list[tuple[str, str]],
        *,
        waited: bool,
    ) -> tuple[str, str] | None:
        mine, peer = self._engine.node_id, reading.peer
        if reading.drained:
            return "already drained", f"already drained by {mine if reading.drained_here else peer}"
        if self._watcher.distrusts_itself:
            return "self-distrust", f"all links of {mine} died at once: the fault is more likely here"
        if peer < mine and reading.peer_alive and not waited and not self._agree():
            return (
                "other end is the owner",
                f"{peer} owns {reading.link}; {mine} acts {_PATIENCE:g} s later if it has not",
            )
        if not any({mine, peer} == set(edge) for edge in edges):
            return "not in use", f"{reading.link} carries no traffic"
        last = self._last_way_out(reading.link, edges)
        if last is not None:
            return "last way out", last
        others = [r for r in self._watcher.readings if r.link != reading.link and not r.drained and r.probes]
        worse = None
        if finding.problem == "link.lossy" and alarming(reading) and others:
            loss = max(reading.loss_in, reading.loss_out)
            best = min(_usual_loss(other) for other in others)
            if best >= loss:
                worse = f"{loss:.0%} is lost here, and at least {best:.0%} on every other link"
        opinion = self._watcher.opinions.get(reading.link)
        if finding.problem != "link.dead" and worse is None and opinion is not None:
            worse = _no_better_way(finding, opinion.window, others)
        return None if worse is None else ("no better way", worse)

    def _not_chosen(self, cycle: Cycle, finding: Finding, reading: LinkReading) -> Iterator[Rejection]:
        alone = f"the mesh's own protocol needs {self._engine.notices_after:g} s of silence"
        if not alarming(reading):
            alone += ", and most still comes through"
        elif reading.missed_in == 0:
            alone += ", and one way still works"
        yield Rejection(action=self._action(cycle, "wait", finding), rule="too slow", reason=alone)
        if reading.peer_alive:
            yield Rejection(
                action=self._action(cycle, "restart", finding, target=reading.peer),
                rule="too much",
                reason=f"{reading.peer} is alive; only the link to it is bad",
            )

    def _restart(self, cycle: Cycle, finding: Finding) -> Action | Rejection:
        action = self._action(cycle, "restart", finding)
        if self._watcher.distrusts_itself:
            return Rejection(
                action=action, rule="self-distrust", reason="no link works: the fault is likely here"
            )
        elsewhere = self._engine.cannot_restart(finding.target) if isinstance(self._engine, Restarts) else ""
        if elsewhere:
            return Rejection(action=action, rule="runs elsewhere", reason=elsewhere)
        at, reason = self._cannot_restart.get(finding.target, (-_ASK_AGAIN, ""))
        if cycle.started - at < _ASK_AGAIN:
            return Rejection(action=action, rule="cannot restart", reason=reason)
        restarter = self._watcher.restarter(finding.target)
        # Where the nodes agree, their leader restarts it, neighbour or not.
        if restarter != self._engine.node_id and not self._leader_restarts:
            return Rejection(
                action=action,
                rule="another node restarts it",
                reason=f"{restarter} is the lowest live neighbour of {finding.target}",
            )
        return action

    def _action(
        self, cycle: Cycle, name: str, finding: Finding, *, target: str = "", restorative: bool = False
    ) -> Action:
        parameters: dict[str, bool | int | float | str] = {}
        rate = cycle.knowledge.success_rate(name)
        seconds = cycle.knowledge.repair_seconds(name)
        if rate is not None:
            parameters["success_rate"] = round(rate, 3)
        if seconds is not None:
            parameters["repair_seconds"] = round(seconds, 3)
        return Action(
            name=name,
            target=target or finding.target,
            reason=finding.message or finding.problem,
            finding=finding,
            parameters=parameters,
            inverse=_INVERSE.get(name, ""),
            verify_within=_WITHIN.get(name, 5.0),
            needs_consensus=name == "restart" and self._leader_restarts,
            exclusive=name == "drain",
            restorative=restorative,
        )

    def _agree(self) -> bool:
        """Whether the nodes can decide together who acts: somebody leads them."""
        consensus = self._consensus()
        return consensus is not None and consensus.leader(self._engine.node_id) is not None

    @property
    def _leader_restarts(self) -> bool:
        """Whether the leader knows of dead nodes that are no neighbours of its own."""
        return isinstance(self._engine, Overhears) and self._consensus() is not None

    def _ask_peer(self, link: str) -> None:
        reading = self._reading(link)
        if reading is not None and reading.peer_alive and isinstance(self._engine, Asks):
            self._engine.ask(reading.peer)

    def _last_way_out(self, link: str, edges: list[tuple[str, str]]) -> str | None:
        dead = {r.peer for r in self._watcher.readings if not r.peer_alive}
        a, b = _ends(link)
        if (consensus := self._consensus()) is not None:
            # What others were just given to drain is as good as drained, though not everybody knows yet.
            claimed = consensus.claims(self._engine.node_id, "drain ")
            taken = [set(_ends(key.removeprefix("drain "))) for key in claimed if key != f"drain {link}"]
            edges = [edge for edge in edges if set(edge) not in taken]
        lost = cut_off(self._engine.node_id, edges, (a, b)) - dead
        if not lost:
            return None
        return f"without {link} this node could not reach {', '.join(sorted(lost))}"

    def _reading(self, link: str) -> LinkReading | None:
        return next((r for r in self._watcher.readings if r.link == link), None)


def _ends(link: str) -> tuple[str, str]:
    a, _, b = link.partition("~")
    return a, b


def _no_better_way(finding: Finding, window: Window, others: Sequence[LinkReading]) -> str | None:
    """Why another way would be no better, by the probes of all links, where they are kept for a model.

    Another way has two links at least, and of the second nothing is known here: it is taken to be as bad
    as the first. What another link may lose is reckoned high, because the best of several looks better
    than it is; when all links begin to lose at once this keeps the node from draining them one by one.
    """
    healthy = [r.window for r in others if r.window is not None and r.peer_alive and not alarming(r)]
    if not healthy:
        return "no other link is well"
    if finding.problem == "link.slow":
        here, best = window.rtt(), 2.0 * min(other.rtt() for other in healthy)
        if best >= here:
            return (
                f"a round trip takes {here * 1000:.1f} ms, and {best * 1000:.1f} ms over any two other links"
            )
        return None
    here, best = window.loss(), 2.0 * min(other.loss_at_most() for other in healthy)
    if best >= here:
        return f"{here:.1%} is lost here, and it may be {best:.1%} over any two other links"
    return None


def _usual_loss(reading: LinkReading) -> float:
    """What a message over that link must reckon with."""
    rules = alarming(reading)
    if any(rule.startswith("dead") for rule in rules):
        return 1.0
    if rules:
        return max(reading.loss_in, reading.loss_out)
    return reading.baseline_loss
