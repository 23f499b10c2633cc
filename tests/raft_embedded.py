"""The embedded engine in a test: five nodes on the UDP mesh, whose frames are kept, and five over a messenger
in memory, whose faults are the test's.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mapek_domains.mesh.plugin import domain as mesh_domain
from mapek_domains.mesh.settings import MeshSettings
from mapek_domains.mesh.udp.demo import DemoSession
from mapek_domains.raft.embedded.engine import EmbeddedEngine
from mapek_domains.raft.embedded.records import scan
from mapek_domains.raft.embedded.replica import Replica
from mapek_domains.raft.embedded.wire import Frame, decode
from mapek_domains.raft.plugin import domain
from mapek_domains.raft.session import RaftSession
from mapek_domains.raft.settings import RaftSettings
from mapek_runtime.loop.domain import DomainContext
from tests.lossy_messenger import LossyMessenger
from tests.raft_group import NODES, Nobody, finding, until

__all__ = ["CALM", "STEADY", "Events", "Group", "Meshed", "entries_of", "group", "meshed", "replica_of"]

CALM = RaftSettings(heartbeat=0.1, election_least=1.0, election_most=2.0, patience=60.0)
"""For what is about spans: a busy machine is to elect nobody else meanwhile."""
STEADY = RaftSettings(patience=20.0)
Events = list[tuple[str, Mapping[str, Any]]]


class Tapped:
    """A mesh's messenger, and all that was sent by it."""

    def __init__(self, mesh: DemoSession) -> None:
        self.most = mesh.most
        self.reachable = mesh.reachable
        self.subscribe = mesh.subscribe
        self.sent: list[tuple[str, str, Frame]] = []
        self._mesh = mesh

    async def send(self, source: str, destination: str, topic: str, payload: bytes) -> None:
        self.sent.append((source, destination, decode(payload)))
        await self._mesh.send(source, destination, topic, payload)


class Crashes:
    """Tells the consensus of a crash, as the service does."""

    session: RaftSession | None = None

    async def crashed(self, node_id: str) -> None:
        if self.session is not None:
            self.session.crashed(node_id)

    async def restarted(self, node_id: str) -> None:
        if self.session is not None:
            self.session.restarted(node_id)


@dataclass
class Meshed:
    """Five nodes on the UDP mesh that agree."""

    mesh: DemoSession
    tap: Tapped
    session: RaftSession
    state: Path
    events: Events = field(default_factory=list)

    def replica(self, node: str) -> Replica:
        return replica_of(self.session, node)

    @property
    def leader(self) -> str:
        leader = next((node for node in NODES if self.session.leader(node) == node), None)
        assert leader is not None
        return leader

    def agreed(self) -> bool:
        leaders = {self.session.leader(node) for node in NODES}
        commits = {self.session.engine.standing(node).commit_index for node in NODES}
        return len(leaders) == len(commits) == 1 and None not in leaders


@asynccontextmanager
async def meshed(state: Path) -> AsyncIterator[Meshed]:
    events: Events = []
    crashes = Crashes()
    context = DomainContext(
        nodes=NODES,
        supervisor=crashes,
        rng=random.Random(1),
        state=state,
        emit=lambda name, fields: events.append((name, fields)),
    )
    async with mesh_domain.open(MeshSettings(traffic=0.0), context) as mesh:
        assert isinstance(mesh, DemoSession)
        await until(lambda: all(len(mesh.reachable(node)) == 4 for node in NODES), "all links are up")
        tap = Tapped(mesh)
        async with domain.open(CALM, replace(context, find=finding(tap))) as session:
            assert isinstance(session, RaftSession)
            crashes.session = session
            made = Meshed(mesh, tap, session, state, events)
            await until(made.agreed, "a leader is elected")
            yield made


class Group:
    """Five nodes over a messenger in memory."""

    def __init__(self, session: RaftSession, messenger: LossyMessenger, events: Events) -> None:
        self.session = session
        self.messenger = messenger
        self.events = events

    def leader(self) -> str | None:
        """Who leads in the newest term, as it says itself."""
        standings = {node: self.session.engine.standing(node) for node in NODES}
        return max(((s.term, node) for node, s in standings.items() if s.leader == node), default=(0, None))[
            1
        ]

    def crash(self, *nodes: str) -> None:
        for node in nodes:
            self.messenger.crash(node)
            self.session.crashed(node)

    def restart(self, *nodes: str) -> None:
        for node in nodes:
            self.messenger.restart(node)
            self.session.restarted(node)

    async def settle(self) -> None:
        """Mend the links, and wait until all know the same."""
        self.messenger.heal()
        await until(self.agreed, "all nodes know the same", 60.0)

    def agreed(self) -> bool:
        replicas = [self.session.engine.replica(node) for node in NODES]  # type: ignore[attr-defined]
        if None in replicas:
            return False
        same = {(r.leader, r.term, r.commit_index, r.raftLastApplied) for r in replicas}
        first = replicas[0]
        # A final entry of this very term: what was decided before it is final as well.
        return len(same) == 1 and first.leader and first.journal.term_at(first.commit_index) == first.term


@asynccontextmanager
async def group(
    state: Path | None = None, *, seed: int = 0, settings: RaftSettings = STEADY
) -> AsyncIterator[Group]:
    messenger = LossyMessenger(NODES, seed)
    events: Events = []
    context = DomainContext(
        nodes=NODES,
        supervisor=Nobody(),
        rng=random.Random(seed),
        state=state,
        find=finding(messenger),
        emit=lambda name, fields: events.append((name, fields)),
    )
    async with domain.open(settings, context) as session:
        assert isinstance(session, RaftSession)
        yield Group(session, messenger, events)


def replica_of(session: RaftSession, node: str) -> Replica:
    engine = session.engine
    assert isinstance(engine, EmbeddedEngine)
    replica = engine.replica(node)
    assert replica is not None
    return replica


def entries_of(state: Path, node: str) -> list[tuple[bytes, int, int]]:
    """The log of a node, as its file has it."""
    (path,) = (state / "raft" / node).glob("*.journal")
    return scan(path.read_bytes()).entries
