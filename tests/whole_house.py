"""Raft, knowledge that is shared, learning, and a loop for each node, over a messenger that can be broken.

All of it lives in one process and in virtual time. What went over the links is kept, with the span that each
message says it comes from: a witness that does not ask the spans themselves.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import propagate, trace
from opentelemetry.context.context import Context

from mapek_domains.crdt.plugin import domain as crdt
from mapek_domains.crdt.settings import CrdtSettings
from mapek_domains.fl.plugin import learning
from mapek_domains.fl.session import FlSession
from mapek_domains.fl.settings import FlSettings
from mapek_domains.raft.commands import Command, decode
from mapek_domains.raft.embedded.engine import EmbeddedEngine
from mapek_domains.raft.embedded.wire import REGULAR
from mapek_domains.raft.plugin import domain as raft
from mapek_domains.raft.session import RaftSession
from mapek_domains.raft.settings import RaftSettings
from mapek_runtime import Action, Cycle, Finding, Insight, Outcome
from mapek_runtime.config import LoopSettings
from mapek_runtime.loop import Consensus, DomainContext, FollowsNodes, Knowledge
from mapek_runtime.service.nodes import NodeLoops
from mapek_runtime.service.sessions import Sessions
from tests.lossy_messenger import LossyMessenger
from tests.unit.fl.toy import Toy

__all__ = ["NODES", "House", "Sent", "house"]

NODES = ("node-1", "node-2", "node-3")
_HEADER = 55
_NOTHING = b" " * _HEADER


@dataclass(frozen=True, slots=True)
class Sent:
    """A message, and the span that it says it comes from: (trace, span), or None."""

    source: str
    destination: str
    topic: str
    span: tuple[int, int] | None


class TracedMessenger(LossyMessenger):
    """Carries `traceparent` before each payload, keeps what was sent; the domain of the menders, too."""

    def __init__(self, nodes: Sequence[str], seed: int, mender: Callable[[str], Mender]) -> None:
        super().__init__(nodes, seed)
        self.log: list[Sent] = []
        self._mender = mender

    def plugins(self, node_id: str) -> Sequence[object]:
        """See `DomainSession`."""
        return (self._mender(node_id),)

    async def send(self, source: str, destination: str, topic: str, payload: bytes) -> None:
        """See `Messenger`."""
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        header = carrier.get("traceparent", "").encode().ljust(_HEADER) or _NOTHING
        here = trace.get_current_span().get_span_context()
        span = (here.trace_id, here.span_id) if here.is_valid else None
        self.log.append(Sent(source, destination, topic, span))
        await super().send(source, destination, topic, header + payload)

    @asynccontextmanager
    async def subscribe(self, node_id: str, topic: str) -> AsyncIterator[AsyncIterator[tuple[str, bytes]]]:
        """See `Messenger`."""
        async with super().subscribe(node_id, topic) as messages:
            yield _traced(messages)


async def _traced(messages: AsyncIterator[tuple[str, bytes]]) -> AsyncIterator[tuple[str, bytes]]:
    async for source, message in messages:
        header = message[:_HEADER].decode().strip()
        parent = propagate.extract({"traceparent": header}, Context()) if header else Context()
        token = otel_context.attach(parent)
        try:
            yield source, message[_HEADER:]
        finally:
            otel_context.detach(token)


class Mender:
    """Acts in every cycle in which it finds work: what it does is claimed, and remembered."""

    def __init__(self, house: House, node_id: str) -> None:
        self._house = house
        self._node_id = node_id

    async def analyze(self, cycle: Cycle) -> Iterable[Finding]:
        if not self._house.work.pop(self._node_id, 0):
            return ()
        target = f"part-{len(self._house.claimed)}"
        assert cycle.span_context is not None
        self._house.claimed[f"mend {target}"] = self._node_id, cycle.span_context.trace_id
        return (Finding(target=target, problem="part.broken"),)

    async def plan(self, cycle: Cycle) -> Iterable[Action]:
        return [
            Action(name="mend", target=each.target, finding=each, exclusive=True) for each in cycle.findings
        ]

    async def execute(self, cycle: Cycle, action: Action) -> Outcome:
        await asyncio.sleep(0.01)
        return Outcome(action=action, success=True)

    async def learn(self, cycle: Cycle) -> Iterable[Insight]:
        for outcome in cycle.outcomes:
            cycle.knowledge.remember("mended", outcome.action.target)
        return ()


class House:
    """All of it; `work` says which nodes are to find something, `claimed` who did, in which trace."""

    def __init__(self, seed: int) -> None:
        self.messenger = TracedMessenger(NODES, seed, lambda node: Mender(self, node))
        self.sessions = Sessions()
        self.work: dict[str, int] = {}
        self.claimed: dict[str, tuple[str, int]] = {}
        self.entries: dict[int, Command] = {}
        """What was final when the story ended."""
        self.down: set[str] = set()
        self.loops = NodeLoops(
            settings=LoopSettings(interval=0.5),
            plugins=self.sessions.plugins,
            knowledge=lambda _node: Knowledge(),
            consensus=lambda: self.sessions.find(Consensus),
            followers=lambda: self.sessions.all(FollowsNodes),
        )
        self.sessions.add(self.messenger)
        self._rng = random.Random(seed)

    def context(self) -> DomainContext:
        """What a domain is opened with."""
        return DomainContext(
            nodes=NODES,
            supervisor=self.loops,
            rng=random.Random(self._rng.getrandbits(64)),
            state=None,
            emit=self._emit,
            trigger=self.loops.trigger,
            find=self.sessions.find,
        )

    def act(self, node: str) -> None:
        """Let the node find something to mend, now."""
        self.work[node] = 1
        self.loops.trigger(node, "something broke")

    async def crash(self, node: str) -> None:
        """It is gone at once."""
        if node not in self.down:
            self.down.add(node)
            self.messenger.crash(node)
            await self.loops.crashed(node)

    async def restart(self, node: str) -> None:
        """It is back."""
        if node in self.down:
            self.down.discard(node)
            self.messenger.restart(node)
            await self.loops.restarted(node)

    def log(self) -> dict[int, Command]:
        """Index → command of what is final, as the node that knows most of it says."""
        session = self.sessions.find(Consensus)
        assert isinstance(session, RaftSession)
        engine = session.engine
        assert isinstance(engine, EmbeddedEngine)
        replicas = [replica for node in NODES if (replica := engine.replica(node)) is not None]
        most = max(replicas, key=lambda each: each.commit_index)
        first = most.journal.first
        entries = {index: most.journal[index - first][0] for index in range(first, most.commit_index + 1)}
        return {index: decode(entry[1:]) for index, entry in entries.items() if entry[:1] == REGULAR}

    def _emit(self, name: str, fields: Mapping[str, Any]) -> None:
        """Nobody listens."""


@asynccontextmanager
async def house(seed: int) -> AsyncIterator[House]:
    """Everything open, and the loops running."""
    made = House(seed)
    settings = RaftSettings(heartbeat=0.01, election_least=0.06, election_most=0.12, patience=0.4)
    wishes = {node: float(number) for number, node in enumerate(NODES, 1)}
    fast = FlSettings(interval=2.0, gap=0.1, deadline=0.5)
    async with (
        raft.open(settings, made.context()) as consensus,
        crdt.open(CrdtSettings(interval=1.0), made.context()) as shared,
        learning(fast, made.context(), Toy(wishes)) as learned,
    ):
        assert isinstance(learned, FlSession)
        for session in (consensus, shared, learned):
            made.sessions.add(session)
        await made.loops.start(NODES)
        try:
            yield made
            await made.loops.stop()
        finally:
            await made.loops.cancel()
