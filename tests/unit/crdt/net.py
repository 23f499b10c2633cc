"""A mesh in memory that loses, doubles and delays messages, and nodes that share knowledge over it."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from opentelemetry import context as otel_context
from opentelemetry import propagate, trace
from opentelemetry.context.context import Context

from mapek_domains.crdt.document import Document
from mapek_domains.crdt.messages import Part, Sync, YSyncMessageType, decode, read_sync
from mapek_domains.crdt.plugin import domain
from mapek_domains.crdt.replica import Replica
from mapek_domains.crdt.session import CrdtSession
from mapek_domains.crdt.settings import CrdtSettings
from mapek_runtime.errors import EngineUnavailable
from mapek_runtime.loop.domain import DomainContext, Messenger
from mapek_runtime.loop.knowledge import Incident, Knowledge

P = TypeVar("P")


def incident(number: int, **changes: Any) -> Incident:
    values: dict[str, Any] = {
        "target": "node-1~node-2",
        "problem": "link.dead",
        "opened": 1.7e9 + number,
        "action": "drain",
        "closed": 1.7e9 + number + 2.25,
        "repair_seconds": 2.25,
        "success": True,
        "trace_id": f"{number + 1:032x}",
    }
    return Incident(**{**values, **changes})


def leaves(document: Document) -> dict[tuple[str, str, str], object]:
    """Every (root, shelf, key) of the engine's document and its text, without any code of ours."""
    return {
        (kind, name, key): value
        for kind, root in document._engine.roots.items()
        for name, shelf in root.items()
        for key, value in shelf.items()
    }


class Lane:
    """The messages for one node on one topic."""

    def __init__(self) -> None:
        self.waiting: asyncio.Queue[tuple[str, bytes, dict[str, str]]] = asyncio.Queue()

    async def __aiter__(self) -> AsyncIterator[tuple[str, bytes]]:
        while True:
            source, payload, carrier = await self.waiting.get()
            token = otel_context.attach(propagate.extract(carrier, Context()))
            try:
                yield source, payload
            finally:
                otel_context.detach(token)


class Net:
    """A `Messenger` whose links can be cut; `seen` counts frames by (source, destination, kind)."""

    most = 15_000

    def __init__(self, nodes: Iterable[str], rng: random.Random | None = None) -> None:
        self.nodes = set(nodes)
        self.rng = rng or random.Random(0)
        self.loss = self.doubled = 0.0
        self.latest = 0.0
        self.parts: list[set[str]] = []
        self.seen: Counter[tuple[str, str, str]] = Counter()
        self.traced: Counter[str] = Counter()
        self.log: list[tuple[str, str, bytes]] = []
        self._lanes: dict[tuple[str, str], list[Lane]] = {}

    def split(self, *parts: Iterable[str]) -> None:
        self.parts = [set(part) for part in parts]

    def heal(self) -> None:
        self.parts = []
        self.loss = self.doubled = self.latest = 0.0

    def updates(self) -> int:
        return sum(count for (_, _, kind), count in self.seen.items() if kind == "update")

    def reachable(self, node_id: str) -> Sequence[str]:
        if node_id not in self.nodes:
            raise EngineUnavailable(node_id)
        return sorted(other for other in self.nodes - {node_id} if self._joined(node_id, other))

    def _joined(self, a: str, b: str) -> bool:
        return not self.parts or any({a, b} <= part for part in self.parts)

    async def send(self, source: str, destination: str, topic: str, payload: bytes) -> None:
        if len(payload) > self.most:
            raise ValueError(len(payload))
        self.seen[source, destination, kind_of(payload)] += 1
        self.log.append((source, destination, payload))
        carrier: dict[str, str] = {}
        if trace.get_current_span().get_span_context().is_valid:
            propagate.inject(carrier)
            self.traced[kind_of(payload)] += 1
        for _ in range(1 + (self.rng.random() < self.doubled)):
            if not self._joined(source, destination) or self.rng.random() < self.loss:
                continue
            delay = self.rng.uniform(0.0, self.latest)
            loop = asyncio.get_running_loop()
            loop.call_later(delay, self._deliver, source, destination, topic, payload, carrier)

    def _deliver(self, source: str, destination: str, topic: str, payload: bytes, carrier: Any) -> None:
        if destination in self.nodes:
            for lane in self._lanes.get((destination, topic), ()):
                lane.waiting.put_nowait((source, payload, carrier))

    @asynccontextmanager
    async def subscribe(self, node_id: str, topic: str) -> AsyncIterator[AsyncIterator[tuple[str, bytes]]]:
        lane = Lane()
        self._lanes.setdefault((node_id, topic), []).append(lane)
        try:
            yield aiter(lane)
        finally:
            self._lanes[node_id, topic].remove(lane)


def kind_of(payload: bytes) -> str:
    frame = decode(payload)
    if isinstance(frame, Sync):
        kind = read_sync(frame.message).kind
        return "update" if kind is YSyncMessageType.SYNC_UPDATE else kind.name.lower()
    return "part" if isinstance(frame, Part) else type(frame).__name__.lower()


class Nobody:
    async def crashed(self, node_id: str) -> None: ...

    async def restarted(self, node_id: str) -> None: ...


class Fleet:
    """Nodes with their Knowledge; a test plays their loops."""

    def __init__(self, session: CrdtSession, net: Net, events: list[tuple[str, Mapping[str, Any]]]) -> None:
        self.session = session
        self.net = net
        self.events = events
        self.knowledge: dict[str, Knowledge] = {}
        for node in sorted(net.nodes):
            self.enter(node)

    def enter(self, node: str) -> None:
        self.knowledge[node] = Knowledge()
        self.replica(node).attach(self.knowledge[node])

    def replica(self, node: str) -> Replica:
        replica = self.session.replica(node)
        assert replica is not None
        return replica

    def document(self, node: str) -> Document:
        return self.replica(node).document

    def crash(self, node: str) -> None:
        self.net.nodes.discard(node)
        self.session.crashed(node)

    def restart(self, node: str) -> None:
        self.net.nodes.add(node)
        self.session.restarted(node)
        self.enter(node)

    async def publish(self, *nodes: str) -> None:
        for node in nodes or tuple(self.knowledge):
            await self.session.publish(node)

    def is_one(self, *nodes: str) -> bool:
        """Whether these nodes, or all that live, are in the same state."""
        chosen = nodes or tuple(node for node in self.knowledge if self.session.replica(node) is not None)
        return len({self.document(node).digest() for node in chosen}) == 1


@asynccontextmanager
async def fleet(
    count: int = 3,
    *,
    state: Path | None = None,
    settings: CrdtSettings | None = None,
    seed: int = 0,
    mesh: bool = True,
) -> AsyncIterator[Fleet]:
    nodes = tuple(f"node-{number}" for number in range(1, count + 1))
    net = Net(nodes, random.Random(seed))
    events: list[tuple[str, Mapping[str, Any]]] = []

    def find(protocol: type[P], /) -> P | None:
        return net if mesh and protocol is Messenger else None  # type: ignore[return-value]

    context = DomainContext(
        nodes=nodes,
        supervisor=Nobody(),
        rng=random.Random(seed),
        state=state,
        emit=lambda name, fields: events.append((name, fields)),
        find=find,
    )
    async with domain.open(settings or CrdtSettings(), context) as session:
        # The first step of every task: they listen.
        await asyncio.sleep(0.001)
        yield Fleet(session, net, events)


async def until(true: Callable[[], bool], *, limit: float = 60.0) -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + limit
    while not true():
        assert loop.time() < end, "it did not come true in time"
        await asyncio.sleep(0.02)
