"""The watching half of the mesh's loop: Monitor, Analyze, and what is learned.

Works on any engine. Thresholds are `detect`'s; where nodes learn together what is normal (`Normality`),
their model speaks too, of what no threshold sees. Each finding carries the value and the threshold that
was in force. When nothing is heard over any link the node suspects itself and not the links.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Protocol, runtime_checkable

from mapek_runtime import Cycle, Evidence, Finding, Insight, Observation
from mapek_runtime.loop.domain import Normality

from . import spans
from .detect import THRESHOLD, LinkState, Normal, run_limit
from .engine import LinkReading, MeshEngine, Overhears, link_id
from .findings import by_model, by_thresholds, recovered
from .judge import LinkJudge, Opinion
from .meter import alarming
from .rest import DRAINED_AT, goal_of, least_rest, rest_of_the_sick
from .routes import reachable

__all__ = ["MeshWatcher"]

_CALM_SCORE = THRESHOLD / 3
_SUSPECT_RUN = 2
_FRESH_LIFE = 5
_KEEP_EVERY = 10.0
_YOUNG = 2.0
"""Seconds within which a new life takes what an earlier one has learned."""


@runtime_checkable
class _Learns(Protocol):
    """An engine whose idea of normal can be kept over restarts."""

    def normals(self) -> dict[str, tuple[Normal, Normal]]: ...

    def restore(self, link: str, normal: tuple[Normal, Normal]) -> None: ...


class MeshWatcher:
    """Reads the links of one node, and says which are bad, which are good again, and which node is dead.

    `normality` finds the model of what is normal, None while there is none; `leads` says whether this node
    leads the others, and so looks after nodes that are no neighbours of its own.
    """

    name = "mesh.watch"

    def __init__(
        self,
        engine: MeshEngine,
        normality: Callable[[], Normality | None] = lambda: None,
        leads: Callable[[], bool] = lambda: False,
    ) -> None:
        self.engine = engine
        self.readings: tuple[LinkReading, ...] = ()
        """The links as the last Monitor saw them."""
        self.opinions: Mapping[str, Opinion] = {}
        """What the model said of them in the last Analyze."""
        self._judge = LinkJudge(engine.node_id, normality)
        self._leads = leads
        self.distrusts_itself = False
        self._states: dict[str, LinkState] = {}
        self._peer_died: set[str] = set()
        self._neighbours: dict[str, set[str]] = {}
        self._limits: dict[str, int] = {}
        self._kept_at = float("-inf")
        self._born: float | None = None

    async def monitor(self, cycle: Cycle) -> Iterable[Observation]:
        """Read every link and look which nodes can be reached."""
        if self._born is None:
            self._born = cycle.started
        if cycle.started - self._born < _YOUNG:
            # Again and again: what other nodes have kept for this one comes a little later.
            self._restore(cycle)
        with spans.node_discovery(self.engine.node_id) as span:
            nodes = self.engine.nodes()
            found = sum(nodes.values()) - nodes.get(self.engine.node_id, False)
            span.set(discovered_nodes=found)
        self.readings = tuple(self.engine.links())
        self._remember_neighbours()
        return tuple(self._observations(found))

    async def analyze(self, cycle: Cycle) -> Iterable[Finding]:
        """Hold the links against what is normal for them."""
        now = cycle.started
        broken = {reading.link: alarming(reading) for reading in self.readings}
        self.distrusts_itself = self._suspects_itself(broken)
        self.opinions = self._judge.judge(
            now,
            self.readings,
            {r.link: self._well(r, broken[r.link]) for r in self.readings},
            stalled=bool(self.engine.stalled()),
        )
        edges = self.engine.edges()
        findings: list[Finding] = []
        for reading in self.readings:
            rules = broken[reading.link]
            state = self._states.setdefault(reading.link, LinkState())
            # As things stand: a goal that is new counts at once, and none does while a way is needed.
            state.least = least_rest(cycle.knowledge.goal(goal_of(reading.link)), reading.link, edges)
            calm = max(reading.score_in, reading.score_out) < _CALM_SCORE and not rules
            opinion = self.opinions.get(reading.link)
            bad = opinion is not None and bool(opinion.problem)
            state.observe(
                now,
                drained=reading.drained,
                alarmed=bool(rules) or bad,
                calm=calm and not (opinion is not None and opinion.near),
                rest=partial(self._rest, cycle, reading.link),
            )
            if rules:
                findings.append(by_thresholds(reading, rules))
            elif opinion is not None and opinion.problem:
                findings.append(by_model(reading.link, opinion))
            elif reading.drained_here and (why := self._usable_again(state, reading, edges, now)):
                findings.append(recovered(reading, why))
            findings += self._node_finding(reading, rules)
        findings += self._dead_elsewhere()
        if self.distrusts_itself:
            dead = sum(any(rule.startswith("dead") for rule in rules) for rules in broken.values())
            findings.append(
                Finding(
                    target=self.engine.node_id,
                    problem="node.isolated",
                    evidence=(
                        Evidence(
                            metric="node.dead_links",
                            value=dead,
                            threshold=len(self.readings),
                            rule="all links died at once: the fault is more likely here",
                        ),
                    ),
                    message=f"no link of {self.engine.node_id} works; it does not trust what it sees",
                )
            )
        return findings

    async def learn(self, cycle: Cycle) -> Iterable[Insight]:
        """Keep what is normal on each link, and tell when a threshold has moved by it."""
        young = not self._limits
        if not young and cycle.started - self._kept_at < _KEEP_EVERY:
            return ()
        # For the first time when what an earlier life has kept was taken up.
        self._kept_at = cycle.started - (_KEEP_EVERY - _YOUNG if young else 0.0)
        losses = {reading.link: reading.baseline_loss for reading in self.readings}
        if isinstance(self.engine, _Learns):
            for link, normals in self.engine.normals().items():
                losses[link] = max(normal.upper for normal in normals)
                if young:
                    # It rests on nothing yet, and an earlier life may have kept more.
                    continue
                for direction, normal in zip(("in", "out"), normals, strict=True):
                    cycle.knowledge.remember(f"mesh.normal.{link}.{direction}.lost", round(normal.lost, 3))
                    cycle.knowledge.remember(f"mesh.normal.{link}.{direction}.total", round(normal.total, 1))
        return tuple(self._moved(losses))

    def bad(self, reading: LinkReading) -> bool:
        """Whether a rule is broken on a link, or the model is heard of it."""
        opinion = self.opinions.get(reading.link)
        return bool(alarming(reading)) or (opinion is not None and bool(opinion.problem))

    def drained_by_death(self, link: str) -> bool:
        """Whether a link was drained because its other end had died, and not for what it did itself."""
        return link in self._peer_died

    def restarter(self, node_id: str) -> str:
        """Who restarts a dead node: the lowest of its neighbours that can be reached."""
        alive = self.engine.nodes()
        mine = self.engine.node_id
        peers = self._neighbours.get(node_id, set()) | {mine}
        return min(peer for peer in peers if peer == mine or alive.get(peer, False))

    # -- inside ---------------------------------------------------------------------------------

    def _moved(self, losses: dict[str, float]) -> Iterator[Insight]:
        for link, loss in losses.items():
            limit = run_limit(loss)
            before = self._limits.get(link)
            self._limits[link] = limit
            if before is not None and before != limit:
                yield Insight(
                    name="mesh.run_limit",
                    target=link,
                    value=limit,
                    message=f"dead after {limit} probes missed in a row (was {before}); "
                    f"up to {loss:.2%} loss is normal here",
                )

    def _observations(self, found: int) -> Iterator[Observation]:
        for r in self.readings:
            yield Observation(name="link.loss_in", value=r.loss_in, target=r.link)
            yield Observation(name="link.loss_out", value=r.loss_out, target=r.link)
            yield Observation(name="link.missed_in", value=r.missed_in, unit="{probe}", target=r.link)
            yield Observation(name="link.missed_out", value=r.missed_out, unit="{probe}", target=r.link)
            yield Observation(name="link.silence", value=r.silence, unit="s", target=r.link)
            if r.rtt is not None:
                yield Observation(name="link.rtt", value=r.rtt, unit="s", target=r.link)
            yield Observation(name="node.alive", value=float(r.peer_alive), target=r.peer)
        mine = self.engine.node_id
        yield Observation(name="node.reachable", value=found, unit="{node}", target=mine)
        yield Observation(name="node.overslept", value=self.engine.stalled(), unit="s", target=mine)

    def _remember_neighbours(self) -> None:
        """Who links to whom, remembered from when the links were in use."""
        for a, b in self.engine.edges():
            self._neighbours.setdefault(a, set()).add(b)
            self._neighbours.setdefault(b, set()).add(a)

    def _well(self, reading: LinkReading, rules: tuple[str, ...]) -> bool | None:
        """What the thresholds say of a link; None while it is out of use, or the fault may be here."""
        if self.distrusts_itself or self.engine.stalled():
            return None
        if rules:
            return False
        score = max(reading.score_in, reading.score_out)
        return True if score < _CALM_SCORE and not reading.drained else None

    def _suspects_itself(self, broken: dict[str, tuple[str, ...]]) -> bool:
        """One link is dead, and no other link works either or looks as if it did.

        Links die some probes apart, because each has a limit of its own; a link that has begun to
        miss counts, or the first of them would be acted upon.
        """
        seen = [r for r in self.readings if r.probes]
        dead = [r for r in seen if any(rule.startswith("dead") for rule in broken[r.link])]
        return bool(dead) and all(
            r in dead or r.missed_in >= _SUSPECT_RUN or r.missed_out >= _SUSPECT_RUN for r in seen
        )

    def _usable_again(
        self, state: LinkState, reading: LinkReading, edges: Sequence[tuple[str, str]], now: float
    ) -> str:
        """Why a drained link may be used again, in words; empty where it may not."""
        if not reading.peer_alive:
            self._peer_died.add(reading.link)
            return ""
        if reading.link in self._peer_died and reading.good >= _FRESH_LIFE:
            return f"it was drained because {reading.peer} had died, which lives again"
        if reading.good >= state.SOME_PROBES and not self._other_way(reading, edges):
            return f"there is no other way to {reading.peer}, and its last probes came through"
        return "it has been good for long enough" if state.recovered(now, reading.good) else ""

    def _other_way(self, reading: LinkReading, edges: Sequence[tuple[str, str]]) -> bool:
        dead = {other.peer for other in self.readings if not other.peer_alive}
        return reading.peer in reachable(self.engine.node_id, [e for e in edges if not dead.intersection(e)])

    def _node_finding(self, reading: LinkReading, rules: tuple[str, ...]) -> Iterator[Finding]:
        if not reading.drained:
            self._peer_died.discard(reading.link)
        if reading.peer_alive or "dead.in" not in rules:
            return
        self._peer_died.add(reading.link)
        yield Finding(
            target=reading.peer,
            problem="node.dead",
            evidence=(
                Evidence(
                    metric="link.missed_in",
                    value=reading.missed_in,
                    threshold=run_limit(reading.baseline_loss),
                    unit="{probe}",
                    rule="silent here, and no other node says that it hears it",
                ),
            ),
            message=f"{reading.peer} is silent on every link, for {reading.silence:.2f} s on {reading.link}",
        )

    def _rest(self, cycle: Cycle, link: str) -> float:
        """How long a link rests at least that was drained just now."""
        knowledge = cycle.knowledge
        ends = link.split("~")
        links = {link_id(end, peer) for end in ends for peer in self._neighbours.get(end, ())}
        drained_at: dict[str, object] = {}
        for each in links - {link}:
            key = DRAINED_AT + each
            times = [knowledge.fact(key), *knowledge.facts_elsewhere(key).values()]
            drained_at[each] = max((at for at in times if isinstance(at, float)), default=None)
        return rest_of_the_sick(link, drained_at, time.time())

    def _dead_elsewhere(self) -> Iterator[Finding]:
        if not isinstance(self.engine, Overhears):
            return
        # Asked in every cycle: only who was heard before can be missed, also by a leader that is new.
        unheard = self.engine.unheard()
        if self.distrusts_itself or not self._leads():
            return
        for node in unheard:
            yield Finding(
                target=node,
                problem="node.dead",
                evidence=(
                    Evidence(
                        metric="node.heard_by",
                        value=0,
                        threshold=1,
                        unit="{node}",
                        rule="it was heard, and no node that can be reached says that it hears it",
                    ),
                ),
                message=f"{node} is heard by none of the nodes that can be reached",
            )

    def _restore(self, cycle: Cycle) -> None:
        if not isinstance(self.engine, _Learns):
            return
        for link in self.engine.normals():
            kept: list[Normal] = []
            for direction in ("in", "out"):
                lost = cycle.knowledge.fact(f"mesh.normal.{link}.{direction}.lost")
                total = cycle.knowledge.fact(f"mesh.normal.{link}.{direction}.total")
                if isinstance(lost, float) and isinstance(total, float) and 0 <= lost <= total and total >= 1:
                    kept.append(Normal(lost, total))
            if len(kept) == 2:
                self.engine.restore(link, (kept[0], kept[1]))
