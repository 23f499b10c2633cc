"""What a span of Raft costs: claims that are traced and claims that are not take turns, a few at a time.

* Alone: one span of a frame with entries, made and ended, and nothing else.
* Where nothing waits: five nodes over the mesh's message plane, or an etcd, in memory, on a loop whose time
  jumps, so that the machine's sleep is not in it.
* In place, on whatever group it is: there the process sleeps between two messages and wakes with cold caches,
  so that all it does costs more, spans too.

In the last two the spans of the messages count as well, and what is done to carry their context.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import random
import statistics
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext
from typing import TypeVar

from opentelemetry import trace
from opentelemetry.trace import NoOpTracerProvider

from mapek_domains.mesh.udp.messages import MessagePlane, Subscription
from mapek_domains.mesh.udp.wire import MAX_PAYLOAD, Data
from mapek_domains.raft import spans
from mapek_domains.raft.plugin import domain as raft_domain
from mapek_domains.raft.session import RaftSession
from mapek_domains.raft.settings import RaftSettings
from mapek_runtime.loop.domain import DomainContext
from mapek_runtime.trace import TracerProvider, use_provider

from . import measure
from .raft_groups import NODES, Told, granted, wait
from .variants import Discard

__all__ = ["Cost", "alone", "in_memory", "process_clock", "tracing"]

_TURN = 10
"""Claims after which it is the other's turn."""
_SPANS = 500
"""Of a turn, where they are made alone."""
_WARM = 4
"""Turns that do not count."""
_HOP = 50e-6
"""Seconds of the loop's own time that a message takes, and at most as long takes a write."""
P = TypeVar("P")


class Cost:
    """What was found, turn by turn; microseconds of CPU time."""

    def __init__(self) -> None:
        self.traced: list[float] = []
        """Of a claim."""
        self.untraced: list[float] = []
        self.spans = 0.0
        """Of a claim, with the one that it is asked in."""

    @property
    def a_span(self) -> list[float]:
        """What each span cost, by two turns that were neighbours."""
        return [(on - off) / self.spans for on, off in zip(self.traced, self.untraced, strict=True)]

    @property
    def share(self) -> float:
        """The part of a traced claim's CPU time that its tracing is."""
        traced, untraced = statistics.median(self.traced), statistics.median(self.untraced)
        return (traced - untraced) / traced


async def tracing(session: RaftSession, node: str, turns: int, clock: Callable[[], int]) -> Cost:
    """Let `node` claim, so many turns traced and so many not; `clock` gives nanoseconds of CPU time."""
    counted, cost = Discard(), Cost()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(counted)
    tracer = provider.get_tracer("benchmarks")

    async def ask(*, traced: bool) -> float:
        with use_provider(provider if traced else NoOpTracerProvider()):
            began = clock()
            for _ in range(_TURN):
                with tracer.start_as_current_span("benchmark") if traced else nullcontext():
                    await granted(session, node, "traced")
            return (clock() - began) / _TURN / 1e3

    for number in range(-_WARM, turns):
        if number == 0:
            counted.ended = 0
        # The other way round each time: what grows with time is in both.
        for traced in (number % 2 == 0, number % 2 == 1):
            # A loop of jumping time must see some pass.
            await asyncio.sleep(_HOP)
            took = await asyncio.create_task(ask(traced=traced), context=contextvars.Context())
            if number >= 0:
                (cost.traced if traced else cost.untraced).append(took)
    cost.spans = counted.ended / (turns * _TURN)
    return cost


def alone(turns: int) -> list[float]:
    """Microseconds of one span of a frame with entries, in the trace of a claim, beside not recorded."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(Discard())
    cause = trace.set_span_in_context(provider.get_tracer("benchmarks").start_span("benchmark"))

    def turn(used: trace.TracerProvider) -> float:
        with use_provider(used):
            began = measure.clock()
            for _ in range(_SPANS):
                with spans.log_replication("node-2", 1).under(cause):
                    pass
            return (measure.clock() - began) / _SPANS / 1e3

    turn(provider)
    return [turn(provider) - turn(NoOpTracerProvider()) for _ in range(turns)]


def in_memory(engine: str, turns: int) -> Cost:
    """Where nothing waits: neither for a socket, nor for a disk, nor for the time."""
    # Of the tests, which are not installed with the package.
    from tests.virtual_time import in_virtual_time

    found: list[Cost] = []

    async def claims() -> None:
        async with _over_links() if engine == "embedded" else _over_etcd() as session:
            await wait(lambda: None not in {session.leader(node) for node in NODES})
            follower = next(node for node in NODES if node != session.leader(node))
            found.append(await tracing(session, follower, turns, measure.clock))

    gc.collect()
    in_virtual_time(claims, seed=1, slowest=_HOP)
    return found[0]


def process_clock() -> int:
    """CPU time of the process: also that of the threads that write the journals."""
    return time.process_time_ns()


@asynccontextmanager
async def _over_links() -> AsyncIterator[RaftSession]:
    messenger = _InMemory(NODES)

    def find(protocol: type[P], /) -> P | None:
        return messenger if isinstance(messenger, protocol) else None

    context = DomainContext(nodes=NODES, supervisor=Told(), rng=random.Random(1), find=find)
    async with raft_domain.open(RaftSettings(), context) as session:
        assert isinstance(session, RaftSession)
        yield session


@asynccontextmanager
async def _over_etcd() -> AsyncIterator[RaftSession]:
    from tests.unit.raft_etcd.group import process
    from tests.unit.raft_etcd.memory_etcd import MemoryEtcd

    async with process(MemoryEtcd(), *NODES) as session:
        yield session


class _InMemory:
    """A `Messenger` by the mesh's own message plane; a message is one hop."""

    most = MAX_PAYLOAD

    def __init__(self, nodes: Sequence[str]) -> None:
        self._planes = {node: self._plane(node) for node in nodes}

    async def send(self, source: str, destination: str, topic: str, payload: bytes) -> None:
        """See `Messenger`."""
        traced = trace.get_current_span().get_span_context().is_valid
        self._planes[source].send(destination, topic, payload, traced=traced)

    def reachable(self, node_id: str) -> Sequence[str]:
        """All others."""
        return [node for node in self._planes if node != node_id]

    @asynccontextmanager
    async def subscribe(self, node_id: str, topic: str) -> AsyncIterator[AsyncIterator[tuple[str, bytes]]]:
        """See `Messenger`."""
        subscription = Subscription()
        with self._planes[node_id].receiving(topic, subscription.put):
            try:
                yield subscription
            finally:
                subscription.close()

    def _plane(self, node: str) -> MessagePlane:
        def transmit(peer: str, frame: Data) -> None:
            asyncio.get_running_loop().call_later(_HOP, self._planes[peer].arrived, frame)

        return MessagePlane(node, next_hop=lambda destination: destination, transmit=transmit)
