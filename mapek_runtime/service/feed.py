"""The feed of the page: what it shows when it is opened, and what is told to it from then on.

Cycles and events are given shape when they happen, and the newest are kept. Everything else (the mesh,
health, cycles of other nodes) is looked at only while somebody listens.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from mapek_runtime.export.account import Statistics
from mapek_runtime.export.notice import Notices
from mapek_runtime.loop import Cycle, FaultInjector, RuntimeStatistics, Topology
from mapek_runtime.web.live import LiveEvents
from mapek_runtime.web.state import CycleShown, EventShown, Health, Mesh, NodeShown, State

from .controls import RunControls
from .cycle_shapes import show_cycle
from .elsewhere import Elsewhere
from .faults import FaultsInForce
from .mesh_shapes import alike, show_links, show_nodes, show_report
from .sentences import event_line
from .summary import law

if TYPE_CHECKING:
    from mapek_runtime.store import TraceStore

__all__ = ["Feed", "RunFacts", "Watched"]

logger = logging.getLogger(__name__)

CYCLES = 60
"""Kept of each node."""
EVENTS = 200
_MOST_CYCLES = 3000
"""Kept of all nodes, and shown when the page is opened; of more than fifty each has fewer."""
_MOST_NODES = 1000
"""Nodes elsewhere whose cycles are kept: a name is whatever a sender calls itself."""
_MESH_EVERY = 0.25
_EVERY = 1.0
_PRESENT = 10.0
"""Seconds after its last cycle for which a node of another process counts as alive."""


class Watched(Protocol):
    """The run, as the feed sees it."""

    def statistics(self) -> Mapping[str, RuntimeStatistics]:
        """The counts of each node's loop."""

    def topologies(self) -> Sequence[Topology]:
        """The domains that know who is connected to whom."""

    def injectors(self) -> Sequence[FaultInjector]:
        """The domains that can make faults."""

    def leader(self) -> str:
        """The node that leads; empty while none does."""

    def loop_lag_ms(self) -> Mapping[str, float]:
        """How late the event loop was: median, p99 and max."""

    def health(self) -> Mapping[str, Any]:
        """`status`, and `faults` of the loops by node."""

    def spans(self) -> Statistics:
        """Every term of the law."""


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What does not change while the run runs."""

    service: str
    version: str
    nodes: tuple[str, ...]
    """The nodes of this process."""
    domains: tuple[str, ...] = ()
    heal: bool = True
    dry_run: bool = False
    jaeger: str = ""
    """Base address of a Jaeger UI in which traces can be opened; empty: none."""


@dataclass(slots=True)
class _Stranger:
    """A node of another process, as far as its cycles say."""

    cycles: int = 0
    failed: int = 0
    actions: int = 0
    refused: int = 0
    heard: float = 0.0


class Feed:
    """Implements `StateSource`. `cycle` and `event` are called by the run; `run` runs as long as it does."""

    def __init__(
        self,
        facts: RunFacts,
        run: Watched,
        *,
        controls: RunControls,
        faults: FaultsInForce,
        store: TraceStore | None = None,
    ) -> None:
        self._facts = facts
        self._run = run
        self._controls = controls
        self._faults = faults
        self._store = store
        self._started = time.time_ns()
        # An id of an earlier process begins otherwise, even where the process ids are the same.
        self.live = LiveEvents(f"{self._started:x}.{os.getpid()}")
        self._cycles: dict[str, deque[CycleShown]] = {node: deque(maxlen=CYCLES) for node in facts.nodes}
        self._recent: deque[EventShown] = deque(maxlen=EVENTS)
        self._events = 0
        self._strangers: dict[str, _Stranger] = {}
        self._elsewhere = (
            None if store is None else Elsewhere(store, facts.service, facts.nodes, self._started)
        )
        self._mesh: Mesh | None = None
        self._mesh_told = 0.0
        self._halted: str | None = None
        self._stored = 0
        self._cpu = self._cpu_before = (time.monotonic(), time.process_time())
        self._notices = Notices(logger)

    # What happens

    def cycle(self, cycle: Cycle) -> None:
        """A cycle of a node of this process has ended."""
        self._tell(show_cycle(cycle, asyncio.get_running_loop().time()))

    def event(self, name: str, fields: Mapping[str, Any]) -> None:
        """Something else has happened; that a cycle ended is told by `cycle`."""
        if name == "cycle":
            return
        self._faults.note(name, fields)
        self._events += 1
        event = EventShown(
            id=self._events,
            time=str(time.time_ns()),
            name=name,
            # A copy: it is encoded later, or never.
            fields=dict(fields),
            line=event_line(name, fields),
        )
        self._recent.append(event)
        self.live.publish("event", event)

    # What is asked

    async def state(self) -> State:
        """Everything that the page shows when it is opened."""
        self._halted = await self._controls.halted()
        # Nothing is awaited from here on: all of it is of one moment, and the events go on from there.
        mesh = self._look()
        facts = self._facts
        most = self._most()
        return State(
            service=facts.service,
            version=facts.version,
            started=str(self._started),
            now=str(time.time_ns()),
            nodes=mesh.nodes,
            links=mesh.links,
            faults=mesh.faults,
            recent=tuple(self._recent),
            cycles={node: tuple(cycles)[-most:] for node, cycles in self._cycles.items()},
            halted=mesh.halted,
            controls=self._controls.offered(),
            report=show_report(self._run.injectors()),
            jaeger=facts.jaeger,
            health=self._health(),
            domains=facts.domains,
            heal=facts.heal,
            dry_run=facts.dry_run,
            last_event_id=self.live.last_id,
        )

    # What is looked at while somebody listens

    async def run(self) -> None:
        """Tell whoever listens, until cancelled."""
        looks = (
            (_MESH_EVERY, self._tell_mesh),
            (_EVERY, self._tell_health),
            (_EVERY, self._tell_elsewhere),
        )
        async with asyncio.TaskGroup() as group:
            for period, tell in looks:
                group.create_task(
                    self._repeat(period, tell), name=f"feed {tell.__name__}", context=contextvars.Context()
                )

    async def _repeat(self, period: float, tell: Callable[[], Awaitable[None]]) -> None:
        while True:
            await self.live.somebody()
            try:
                await tell()
            except Exception as error:  # noqa: BLE001 - a page that is not told is no reason to stop healing
                self._notices.warn(
                    tell.__name__, "the page is not told something: %s: %s", type(error).__name__, error,
                    error=error,
                )  # fmt: skip
            await asyncio.sleep(period)

    async def _tell_mesh(self) -> None:
        mesh = self._look()
        now = time.monotonic()
        before = self._mesh
        # Counts and round trips move all the time: a second is often enough for them.
        if before is None or not alike(before, mesh) or (mesh != before and now - self._mesh_told >= _EVERY):
            self._mesh, self._mesh_told = mesh, now
            self.live.show("mesh", mesh)
        if self._store is not None:
            last = self._store.statistics().last
            if last != self._stored:
                self._stored = last
                self.live.show("stored", {"last": last})

    async def _tell_health(self) -> None:
        self._halted = await self._controls.halted()
        self.live.show("health", self._health())

    async def _tell_elsewhere(self) -> None:
        if self._elsewhere is None:
            return
        for cycle in await self._elsewhere.news():
            if cycle.node not in self._cycles and not self._has_room():
                self._notices.warn("nodes", "more than %d nodes: the page leaves others out", _MOST_NODES)
                continue
            stranger = self._strangers.setdefault(cycle.node, _Stranger())
            stranger.cycles = max(stranger.cycles + 1, cycle.cycle)
            stranger.failed += not cycle.success
            stranger.actions += sum(action.success is not None for action in cycle.actions)
            stranger.refused += len(cycle.rejected)
            stranger.heard = time.monotonic()
            self._tell(cycle)

    # Inside

    def _tell(self, cycle: CycleShown) -> None:
        kept = self._cycles.setdefault(cycle.node, deque(maxlen=CYCLES))
        kept.append(cycle)
        while len(kept) > self._most():
            kept.popleft()
        self.live.publish("cycle", cycle)

    def _most(self) -> int:
        """How many cycles of each node are kept and shown."""
        return max(_MOST_CYCLES // max(len(self._cycles), 1), 3)

    def _has_room(self) -> bool:
        """Whether one more node has a place; where all are taken, who is silent the longest makes it."""
        if len(self._cycles) < _MOST_NODES:
            return True
        silent = min(self._strangers, key=lambda name: self._strangers[name].heard, default=None)
        if silent is None or time.monotonic() - self._strangers[silent].heard < _PRESENT:
            return False
        del self._strangers[silent], self._cycles[silent]
        return True

    def _look(self) -> Mesh:
        topologies = self._run.topologies()
        nodes = show_nodes(self._facts.nodes, topologies, self._run.statistics(), self._run.leader())
        now = time.monotonic()
        strangers = tuple(
            NodeShown(
                id=name,
                alive=now - stranger.heard < _PRESENT,
                cycles=stranger.cycles,
                failed=stranger.failed,
                actions=stranger.actions,
                refused=stranger.refused,
            )
            for name, stranger in self._strangers.items()
        )
        return Mesh(
            nodes=(*nodes, *strangers),
            links=show_links(topologies),
            faults=self._faults.shown(),
            halted=self._halted,
        )

    def _health(self) -> Health:
        health = self._run.health()
        lag = self._run.loop_lag_ms()
        spans = self._run.spans()
        stored = None
        if self._store is not None:
            counts = self._store.statistics()
            stored = {
                "path": str(self._store.path),
                "spans": counts.spans,
                "bytes": counts.bytes,
                "oldest": str(counts.oldest),
                "newest": str(counts.newest),
            }
        return Health(
            status=str(health.get("status", "ok")),
            faults=health.get("faults", {}),
            loop_lag_ms={
                "p50": lag.get("median", 0.0),
                "p99": lag.get("p99", 0.0),
                "max": lag.get("max", 0.0),
            },
            spans=law(spans),
            sinks={
                name: {**sink._asdict(), "dropped": dict(sink.dropped)} for name, sink in spans.sinks.items()
            },
            store=stored,
            cpu=self._cpu_share(),
            report=show_report(self._run.injectors()),
        )

    def _cpu_share(self) -> float:
        """The share of a core that the process used since the last look."""
        now, used = time.monotonic(), time.process_time()
        before, used_before = self._cpu
        if now - before < 0.2:
            # Two pages that open together: too short a time says nothing.
            before, used_before = self._cpu_before
        else:
            self._cpu_before, self._cpu = self._cpu, (now, used)
        return round((used - used_before) / max(now - before, 0.001), 4)
