"""A domain that looks at the others from inside of a process, and tells what it sees as events.

For tests of several processes. Its events: `observer.reachable`, `observer.leader`, `observer.votes`
(whether the node has one) and `observer.facts` (what the other nodes remember) when they change;
`observer.heard` for each greeting. Each node greets, once, every other that it can reach, in a span of
its own, and answers a greeting: so each pair of processes shares traces.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import msgspec
from opentelemetry import trace

from mapek_domains.raft.session import RaftSession
from mapek_runtime import Cycle, Insight, SpanGroup
from mapek_runtime.loop.domain import Consensus, DomainContext, Messenger

__all__ = ["domain"]

TOPIC = "observer"
FACT = "observer.fact"
_EVERY = 0.1

observer = SpanGroup("observer")


@observer.span("greet")
def greeting(node_id: str, other: str) -> None:
    """A node greets another one."""


@observer.span("answer")
def answering(node_id: str, other: str) -> None:
    """A node was greeted, and answers."""


class ObserverSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the observer does beside looking."""

    greet: bool = True
    """Greet every node that can be reached."""
    fact: str = ""
    """What each node of this process remembers, for others to hear; empty: nothing."""


class Observer:
    """Looks at the nodes of this process."""

    def __init__(self, settings: ObserverSettings, context: DomainContext) -> None:
        self._settings = settings
        self._context = context
        self._seen: dict[tuple[str, str], Any] = {}

    def plugins(self, node_id: str) -> Sequence[object]:
        return (_Remembers(self._settings.fact, partial(self.tell, "observer.facts", node_id)),)

    async def look(self, node: str) -> None:
        greeted: set[str] = set()
        while True:
            messenger, consensus = self._context.find(Messenger), self._context.find(Consensus)
            if messenger is not None:
                reached = sorted(messenger.reachable(node))
                self.tell("observer.reachable", node, nodes=reached)
                greeted &= set(reached)
                for other in reached if self._settings.greet else ():
                    if other not in greeted:
                        greeted.add(other)
                        with greeting(node, other):
                            await messenger.send(node, other, TOPIC, b"hello")
            if consensus is not None:
                self.tell("observer.leader", node, leader=consensus.leader(node))
                if isinstance(consensus, RaftSession):
                    self.tell("observer.votes", node, votes=consensus.engine.standing(node).votes)
            await asyncio.sleep(_EVERY)

    async def listen(self, node: str) -> None:
        messenger = self._context.find(Messenger)
        assert messenger is not None, "the mesh opens first"
        async with messenger.subscribe(node, TOPIC) as messages:
            async for source, payload in messages:
                trace_id = f"{trace.get_current_span().get_span_context().trace_id:032x}"
                heard = {"node": node, "source": source, "text": payload.decode(), "trace_id": trace_id}
                self._context.emit("observer.heard", heard)
                if payload == b"hello":
                    with answering(node, source):
                        await messenger.send(node, source, TOPIC, b"hello yourself")

    def tell(self, event: str, node: str, **fields: Any) -> None:
        """Tell what has changed."""
        if self._seen.get((event, node)) != fields:
            self._seen[event, node] = fields
            self._context.emit(event, {"node": node, **fields})


class _Remembers:
    """Remembers one fact, and looks what the others remember."""

    name = "observer"

    def __init__(self, fact: str, tell: Callable[..., None]) -> None:
        self._fact = fact
        self._tell = tell

    async def learn(self, cycle: Cycle) -> Sequence[Insight]:
        if self._fact:
            cycle.knowledge.remember(FACT, self._fact)
        self._tell(facts=dict(cycle.knowledge.facts_elsewhere(FACT)))
        return ()


class ObserverDomain:
    """`domains = ["mesh", "tests.integration.observer:domain"]`."""

    name = "observer"
    settings = ObserverSettings

    @asynccontextmanager
    async def open(self, settings: ObserverSettings, context: DomainContext) -> AsyncIterator[Observer]:
        session = Observer(settings, context)
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(work, context=contextvars.Context())
                for node in context.nodes
                for work in (session.look(node), session.listen(node))
            ]
            try:
                yield session
            finally:
                for task in tasks:
                    task.cancel()


domain = ObserverDomain()
