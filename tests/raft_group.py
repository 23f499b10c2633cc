"""Five nodes that agree over a lossy messenger, the hands that break them, and a record of it all."""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from mapek_domains.raft.embedded.engine import EmbeddedEngine
from mapek_domains.raft.embedded.replica import Replica
from mapek_domains.raft.plugin import domain
from mapek_domains.raft.session import RaftSession
from mapek_domains.raft.settings import RaftSettings
from mapek_runtime.loop.domain import DomainContext, Find
from tests.lossy_messenger import LossyMessenger
from tests.raft_history import Recording

__all__ = ["FAST", "NODES", "Group", "Nobody", "electing", "finding", "group", "until"]

P = TypeVar("P")

NODES = ("node-1", "node-2", "node-3", "node-4", "node-5")
FAST = RaftSettings(heartbeat=0.01, election_least=0.06, election_most=0.12, patience=0.4)


class Nobody:
    """A supervisor of no loops."""

    async def crashed(self, node_id: str) -> None:
        """Nothing runs."""

    async def restarted(self, node_id: str) -> None:
        """Nothing runs."""


class Group:
    """The nodes of one process, their links, and what was asked of them."""

    def __init__(
        self, session: RaftSession, messenger: LossyMessenger, leaders: set[tuple[int, str]]
    ) -> None:
        self.session = session
        self.messenger = messenger
        self.recording = Recording(session)
        self.leaders = leaders
        """(term, node) whenever a node said that it was elected, or was seen to lead."""
        self.down: set[str] = set()
        self._lost: set[str] = set()
        self._seen: dict[str, int] = {}
        self._log: dict[int, tuple[int, bytes, str]] = {}
        """Index → term and command of what was ever final, and who was the first to know."""

    def running(self) -> list[str]:
        """The nodes that are not down."""
        return [node for node in NODES if node not in self.down]

    def runs(self, node: str) -> bool:
        """Whether it is not down."""
        return node not in self.down

    def leader(self) -> str | None:
        """Who leads in the newest term, as it says itself."""
        standings = {node: self.session.engine.standing(node) for node in self.running()}
        leading = [(s.term, node) for node, s in standings.items() if s.leader == node]
        self.leaders.update(leading)
        return max(leading)[1] if leading else None

    def crash(self, *nodes: str) -> None:
        """They are gone at once, with what is in memory."""
        for node in nodes:
            if node not in self.down:
                self.down.add(node)
                self._seen.pop(node, None)
                self.messenger.crash(node)
                self.session.crashed(node)

    def restart(self, *nodes: str) -> None:
        """They are back, with what is on disk."""
        for node in nodes:
            if node in self.down:
                self.down.discard(node)
                self.messenger.restart(node)
                self.recording.restarted(node)
                self.session.restarted(node)

    def lose(self, node: str) -> None:
        """Its disk is gone, and it is restarted with an empty one; not of a third one at the same time.

        Of five journals two may be lost, until the others have let these nodes vote again.
        """
        self._lost -= {other for other in self.running() if self.session.engine.standing(other).votes}
        if len(self._lost - {node}) < 2:
            self._lost.add(node)
            self.crash(node)
            for journal in (self._engine._folder / node).glob("*.journal"):
                journal.unlink()
            self.restart(node)

    async def settle(self, limit: float = 20.0) -> None:
        """Mend everything, and wait until all nodes have come equally far."""
        self.messenger.heal()
        self.restart(*NODES)
        await until(self.agreed, "all nodes know the same leader, term and last entry", limit)

    def agreed(self) -> bool:
        """Whether all nodes know the same leader, term and last entry."""
        self.leader()
        standings = [self.session.engine.standing(node) for node in NODES]
        replicas = [replica for node in NODES if (replica := self._engine.replica(node)) is not None]
        applied = {replica.raftLastApplied for replica in replicas}
        same = {(s.leader, s.term, s.commit_index) for s in standings}
        return len(same) == 1 and standings[0].leader is not None and applied == {standings[0].commit_index}

    def same_everywhere(self) -> None:
        """Fails unless all nodes hold the same entries, and have decided the same by them."""
        replicas = {node: self._engine.replica(node) for node in NODES}
        logs: dict[int, dict[str, tuple[bytes, int]]] = {}
        states: dict[bytes, list[str]] = {}
        for node, replica in replicas.items():
            assert replica is not None, f"{node} is down"
            for command, index, term in replica.journal[:]:
                if index <= replica.commit_index:
                    logs.setdefault(index, {})[node] = command, term
            states.setdefault(replica.decisions.dump(), []).append(node)
        for index, entries in logs.items():
            assert len(set(entries.values())) == 1, f"entry {index} is not the same everywhere: {entries}"
        assert len(states) == 1, f"these decided differently by the same log: {list(states.values())}"

    @property
    def _engine(self) -> EmbeddedEngine:
        engine = self.session.engine
        assert isinstance(engine, EmbeddedEngine)
        return engine

    async def watch(self) -> None:
        """Look at all nodes, all the time, as nobody in the group can."""
        while True:
            self.leader()
            for node in NODES:
                replica = self._engine.replica(node)
                if replica is not None:
                    self._final(node, replica)
                    if replica.is_leader:
                        self._acknowledged(node, replica)
            await asyncio.sleep(0.002)

    def _final(self, node: str, replica: Replica) -> None:
        """What a node once held to be final is the same for all nodes, and for ever."""
        journal = replica.journal
        for index in range(max(journal.first, self._seen.get(node, 0)), replica.commit_index + 1):
            command, _, term = journal[index - journal.first]
            known = self._log.setdefault(index, (term, command, node))
            assert known[:2] == (term, command), (
                f"entry {index} of term {term} is final for {node}, and of term {known[0]} for {known[2]}"
            )
        self._seen[node] = replica.commit_index

    def _acknowledged(self, leader: str, replica: Replica) -> None:
        """A follower holds what the leader believes it does."""
        for other, match in replica._SyncObj__raftMatchIndex.items():
            follower = self._engine.replica(other.id)
            if follower is None or replica.peers[other.id].identity != follower.journal.birth.identity:
                # Down, or with a journal that the leader has not heard of.
                continue
            if match and follower.term <= replica.term:
                ours, theirs = replica.journal.term_at(match), follower.journal.term_at(match)
                assert ours == theirs or match < max(replica.journal.first, follower.journal.first), (
                    f"{leader} leads in term {replica.term} and believes that {other.id} holds what it does "
                    f"up to entry {match}, of term {ours}; there it holds one of term {theirs}"
                )


@asynccontextmanager
async def group(
    state: Path | None = None, *, seed: int = 0, settings: RaftSettings = FAST
) -> AsyncIterator[Group]:
    """A group that keeps its journals under `state`, or as long as it is open."""
    messenger = LossyMessenger(NODES, seed)
    elected: set[tuple[int, str]] = set()
    context = DomainContext(
        nodes=NODES,
        supervisor=Nobody(),
        rng=random.Random(seed),
        state=state,
        find=finding(messenger),
        emit=electing(elected),
    )
    async with domain.open(settings, context) as session:
        assert isinstance(session, RaftSession)
        made = Group(session, messenger, elected)
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(made.watch(), context=contextvars.Context())
            try:
                yield made
            finally:
                watching.cancel()


def electing(leaders: set[tuple[int, str]]) -> Callable[[str, Mapping[str, Any]], None]:
    """Takes what a session tells, and keeps (term, node) of every election."""

    def emit(name: str, fields: Mapping[str, Any]) -> None:
        if name == "leader.elected":
            leaders.add((fields["term"], fields["node"]))

    return emit


def finding(*sessions: object) -> Find:
    """Finds the first of these that implements a protocol."""

    def find(protocol: type[P], /) -> P | None:
        return next((session for session in sessions if isinstance(session, protocol)), None)

    return find


async def until(true: Callable[[], bool], what: str, limit: float = 20.0) -> None:
    """Wait for a condition; `limit` is far more than it takes."""
    loop = asyncio.get_running_loop()
    end = loop.time() + limit
    while not true():
        assert loop.time() < end, f"not within {limit:g} s: {what}"
        await asyncio.sleep(0.005)
