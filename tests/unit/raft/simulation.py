"""A group of replicas in a world of its own: clock, disks and network are simulated, and seeded.

Messages are lost, doubled and late, so that later ones overtake; disks take their time, and a crash loses
what they have not taken; nodes are cut off, and lose their journals. After every step it is checked that
nothing of what Raft promises is broken: see `World.check`.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pysyncobj import syncobj as library

from mapek_domains.raft.commands import Claim, Configure, Release, Request, encode
from mapek_domains.raft.embedded.candidacy import Timing
from mapek_domains.raft.embedded.journal import Batch, Journal
from mapek_domains.raft.embedded.outlet import Outgoing
from mapek_domains.raft.embedded.records import Birth, scan
from mapek_domains.raft.embedded.replica import Replica
from mapek_domains.raft.embedded.wire import FrameError, Propose, decode, group_of

__all__ = ["Node", "World", "world"]

TIMING = Timing(0.05, 0.3, 0.6)
Stored = tuple[bytes, int, int]


@dataclass
class Node:
    """A node while it lives."""

    replica: Replica
    due: float = 0.0
    writing: bool = False
    waiting: list[tuple[Batch | None, list[Outgoing]]] = field(default_factory=list)
    checked: int = 0


class World:
    """The nodes, what is on their disks, and what is on its way between them."""

    def __init__(self, seed: int, size: int) -> None:
        self.now = 1000.0
        self.rng = random.Random(seed)
        self.names = tuple(f"n{number}" for number in range(1, size + 1))
        self.disks: dict[str, bytes] = {}
        self.nodes: dict[str, Node] = {}
        self.loss = self.doubled = self.delay = self.disk_delay = 0.0
        self.apart: set[frozenset[str]] = set()
        self.deaf: set[tuple[str, str]] = set()
        self.refused: Counter[str] = Counter()
        self.leaders: dict[int, str] = {}
        self.final: dict[int, Stored] = {}
        self.states: dict[int, bytes] = {}
        self.numbers: Counter[str] = Counter()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._births = 0
        for name in self.names:
            self.start(name)

    def clock(self) -> float:
        return self.now

    # Faults

    def start(self, name: str) -> None:
        """Begin a life from what is on the disk."""
        group = group_of(self.names)
        if name in self.disks:
            read = scan(self.disks[name])
            assert read.birth is not None
            journal = Journal(read.birth, read)
        else:
            self._births += 1
            journal = Journal(Birth(name, group, self._births))
        journal.begin_life()
        rng = random.Random(self.rng.getrandbits(32))
        node = self.nodes[name] = Node(Replica(name, self.names, journal, TIMING, rng))
        self._at(0.0, lambda: self._wake(name, node))

    def crash(self, name: str) -> None:
        """Everything that is not on the disk is gone."""
        self.nodes.pop(name, None)

    def lose(self, name: str) -> None:
        """The disk as well."""
        self.crash(name)
        self.disks.pop(name, None)

    def part(self, *islands: set[str]) -> None:
        """Messages pass only within an island."""
        self.apart = {
            frozenset((a, b))
            for a in self.names
            for b in self.names
            if a != b and not any({a, b} <= island for island in islands)
        }

    def heal(self) -> None:
        """All live, and hear each other well."""
        self.apart, self.deaf = set(), set()
        self.loss = self.doubled = self.delay = self.disk_delay = 0.0
        for name in self.names:
            if name not in self.nodes:
                self.start(name)

    # What is asked

    def claim(self, name: str, key: str) -> None:
        """A node asks for a key, by way of whoever it takes for the leader."""
        self.ask(name, lambda request: Claim(request, key, 1_000_000))

    def ask(self, name: str, make: Callable[[Request], Any]) -> None:
        """A node asks once; nothing says that it is heard."""
        node = self.nodes.get(name)
        if node is None:
            return
        self.numbers[name] += 1
        command = encode(make(Request(name, 1, self.numbers[name])))
        leader = node.replica.leader
        if leader == name:
            node.replica.submit(command)
        elif leader is not None:
            node.replica.send(leader, Propose(command))
        self._step(name, node)

    def anything(self) -> None:
        """Some node asks for something."""
        name, key = self.rng.choice(self.names), f"key {self.rng.randrange(4)}"
        match self.rng.randrange(4):
            case 0:
                fence = self.rng.randrange(1, 2 + max(self.final, default=1))
                self.ask(name, lambda request: Release(request, key, fence))
            case 1:
                value = str(self.rng.randrange(100))
                self.ask(name, lambda request: Configure(request, key, value))
            case _:
                self.claim(name, key)

    # Time

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while self._events and self._events[0][0] <= end:
            at, _, event = heapq.heappop(self._events)
            self.now = max(self.now, at)
            event()
        self.now = end

    def until(self, true: Callable[[], bool], seconds: float = 30.0) -> None:
        """Let time pass until it is so."""
        end = self.now + seconds
        while not true():
            assert self.now < end, "it did not come true in time"
            self.run(0.01)

    def leader(self) -> str | None:
        """Who leads in the newest term."""
        leading = [(node.replica.term, name) for name, node in self.nodes.items() if node.replica.is_leader]
        return max(leading)[1] if leading else None

    def agree(self) -> bool:
        """Whether all live, know one leader, and have come equally far."""
        replicas = [node.replica for node in self.nodes.values()]
        heads = {(r.leader, r.term, r.commit_index, r.journal.last, r.raftLastApplied) for r in replicas}
        return len(replicas) == len(self.names) and len(heads) == 1 and replicas[0].leader is not None

    def _at(self, later: float, event: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (self.now + later, self._count, event))

    def _wake(self, name: str, node: Node) -> None:
        if self.nodes.get(name) is node and self.now >= node.due:
            self._step(name, node)

    def _step(self, name: str, node: Node) -> None:
        due = node.replica.tick()
        node.due = self.now + max(due, 0.001)
        self._at(max(due, 0.001), lambda: self._wake(name, node))
        self._settle(name, node)
        self.check(name, node)

    def _settle(self, name: str, node: Node) -> None:
        replica = node.replica
        outgoing, replica.outbox = replica.outbox, []
        batch = replica.journal.take() if replica.journal.pending else None
        if batch is not None or outgoing:
            node.waiting.append((batch, outgoing))
        self._write(name, node)

    def _write(self, name: str, node: Node) -> None:
        while node.waiting and not node.writing:
            batch, outgoing = node.waiting[0]
            if batch is not None and self.disk_delay:
                node.writing = True
                self._at(self.rng.random() * self.disk_delay, lambda: self._written(name, node))
                return
            node.waiting.pop(0)
            self._done(name, node, batch, outgoing)

    def _written(self, name: str, node: Node) -> None:
        if self.nodes.get(name) is node:
            node.writing = False
            batch, outgoing = node.waiting.pop(0)
            self._done(name, node, batch, outgoing)
            self._write(name, node)

    def _done(self, name: str, node: Node, batch: Batch | None, outgoing: list[Outgoing]) -> None:
        if batch is not None:
            anew, data = batch
            self.disks[name] = data if anew else self.disks[name] + data
        for each in outgoing:
            self._send(name, each.to, node.replica.message(each))

    def _send(self, source: str, to: str, message: bytes) -> None:
        for _ in range(1 + (self.rng.random() < self.doubled)):
            if self.rng.random() >= self.loss:
                late = self.rng.random() ** 4 * self.delay
                self._at(0.001 + late, lambda: self._deliver(source, to, message))

    def _deliver(self, source: str, to: str, message: bytes) -> None:
        node = self.nodes.get(to)
        if node is None or frozenset((source, to)) in self.apart or (source, to) in self.deaf:
            return
        try:
            frame = decode(message)
        except FrameError as error:
            self.refused[error.reason] += 1
            return
        refused, urgent = node.replica.receive(source, frame)
        self.refused[refused] += bool(refused)
        if urgent or node.replica.journal.pending:
            self._step(to, node)
        else:
            self._settle(to, node)
            self.check(to, node)

    # What must hold

    def check(self, name: str, node: Node) -> None:
        """Raft's promises (figure 3 of the paper), as far as this step of this node could break them."""
        replica = node.replica
        for change in replica.changes:
            if change.what == "won":
                assert self.leaders.setdefault(change.term, name) == name, "two leaders in one term"
                for index, entry in self.final.items():
                    assert index < replica.journal.first or self._entry(replica, index) == entry, (
                        f"{name} leads in term {change.term} without the final entry {index}"
                    )
        replica.changes.clear()
        replica.commits.clear()
        commit = replica.commit_index
        for index in range(max(node.checked + 1, replica.journal.first), commit + 1):
            entry = self._entry(replica, index)
            assert self.final.setdefault(index, entry) == entry, f"two final entries at {index}"
        node.checked = commit
        if replica.applied:
            replica.applied.clear()
            at, dump = replica.raftLastApplied, replica.decisions.dump()
            assert self.states.setdefault(at, dump) == dump, f"two states after entry {at}"
        if replica.is_leader:
            self._check_acknowledged(replica)

    def _check_acknowledged(self, leader: Replica) -> None:
        for node, match in leader._SyncObj__raftMatchIndex.items():
            disk = self.disks.get(node.id)
            other = self.nodes.get(node.id)
            if other is None or disk is None or other.replica.term != leader.term:
                continue
            if leader.peers[node.id].identity != other.replica.journal.birth.identity:
                continue
            log = other.replica.journal
            assert match <= log.last, f"{node.id} is said to hold {match}, and its log ends at {log.last}"
            if match >= max(log.first, leader.journal.first):
                assert log.term_at(match) == leader.journal.term_at(match)

    def _entry(self, replica: Replica, index: int) -> Stored:
        place = index - replica.journal.first
        assert 0 <= place < len(replica.journal), f"there is no entry {index}"
        return replica.journal[place]


@contextmanager
def world(seed: int = 0, size: int = 5) -> Iterator[World]:
    """A world; inside the block the library's clock is its own."""
    real = library.monotonicTime
    made: list[World] = []
    library.monotonicTime = lambda: made[0].now if made else 1000.0
    try:
        made.append(World(seed, size))
        yield made[0]
    finally:
        library.monotonicTime = real
