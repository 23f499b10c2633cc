"""Shared knowledge over a real UDP mesh: a partition, crashes, and loops that share what they learn."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from mapek_domains.crdt.plugin import domain as crdt
from mapek_domains.crdt.session import CrdtSession
from mapek_domains.crdt.settings import CrdtSettings
from mapek_domains.crdt.update import read_state
from mapek_domains.mesh.plugin import domain as mesh
from mapek_domains.mesh.settings import MeshSettings
from mapek_domains.mesh.udp.demo import DemoSession
from mapek_runtime import Cycle, Insight, Knowledge, Runtime
from mapek_runtime.loop.domain import DomainContext
from mapek_runtime.loop.knowledge import Incident
from mapek_runtime.testing import Recorder
from tests.unit.crdt.net import incident, kind_of, leaves

P = TypeVar("P")
NAMES = tuple(f"node-{number}" for number in range(1, 6))


class Closes:
    """Closes the incidents it is given, one a cycle."""

    def __init__(self) -> None:
        self.todo: list[Incident] = []
        self.counts = True

    async def learn(self, cycle: Cycle) -> Sequence[Insight]:
        if self.todo:
            cycle.knowledge.close(self.todo.pop(0))
        if self.counts:
            cycle.knowledge.remember("cycles", cycle.number)
        return ()


class Five:
    """Five nodes with their loops in one process."""

    def __init__(self, stack: AsyncExitStack, state: Path | None) -> None:
        self.stack = stack
        self.state = state
        self.events: list[tuple[str, Mapping[str, Any]]] = []
        self.loops: dict[str, Runtime] = {}
        self.closers = {name: Closes() for name in NAMES}
        self.mesh: DemoSession
        self.crdt: CrdtSession
        self.sent: list[tuple[str, str, str]] = []

    async def open(self) -> None:
        context = DomainContext(
            nodes=NAMES,
            supervisor=self,
            rng=random.Random(1),
            state=self.state,
            emit=lambda name, fields: self.events.append((name, fields)),
            find=self._find,
        )
        session = await self.stack.enter_async_context(mesh.open(MeshSettings(traffic=0.0), context))
        assert isinstance(session, DemoSession)
        self.mesh = session
        self._count_messages()
        await self.until(lambda: all(sum(node.nodes().values()) == 5 for node in session.nodes.values()))
        self.crdt = await self.stack.enter_async_context(crdt.open(CrdtSettings(interval=0.5), context))
        for name in NAMES:
            await self.restarted(name)

    def _find(self, protocol: type[P], /) -> P | None:
        return self.mesh if isinstance(self.mesh, protocol) else None

    def _count_messages(self) -> None:
        real = self.mesh.send

        async def send(source: str, destination: str, topic: str, payload: bytes) -> None:
            if topic == "crdt":
                self.sent.append((source, destination, kind_of(payload)))
            await real(source, destination, topic, payload)

        self.mesh.send = send  # type: ignore[method-assign]

    async def crashed(self, node_id: str) -> None:
        loop = self.loops.pop(node_id, None)
        if loop is not None:
            await loop.cancel()
        self.crdt.crashed(node_id)

    async def restarted(self, node_id: str) -> None:
        if self.crdt.replica(node_id) is None:
            self.crdt.restarted(node_id)
        loop = Runtime(
            self.closers[node_id],
            *self.crdt.plugins(node_id),
            node_id=node_id,
            interval=0.1,
            knowledge=Knowledge(),
        )
        self.loops[node_id] = await loop.__aenter__()

    async def stop(self) -> None:
        for loop in self.loops.values():
            await loop.stop()

    def documents(self) -> list[Any]:
        replicas = [self.crdt.replica(name) for name in NAMES]
        return [replica.document for replica in replicas if replica is not None]

    def is_one(self) -> bool:
        documents = self.documents()
        return len(documents) == len(self.loops) and len({document.digest() for document in documents}) == 1

    async def until(self, true: Callable[[], bool], limit: float = 60.0) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + limit
        while not true():
            assert loop.time() < end, "it did not come true in time"
            await asyncio.sleep(0.02)

    def know(self, name: str) -> set[float]:
        return {each.opened for each in self.loops[name].knowledge.incidents()}


@asynccontextmanager
async def five(state: Path | None = None) -> AsyncIterator[Five]:
    async with AsyncExitStack() as stack:
        here = Five(stack, state)
        await here.open()
        try:
            yield here
        finally:
            await here.stop()


@pytest.mark.slow
async def test_after_a_partition_all_nodes_know_the_same_and_nothing_is_lost() -> None:
    with Recorder() as recorder:
        async with five() as here:
            await here.until(lambda: sum(len(each.facts()) for each in here.documents()) >= 25)
            sides = {"node-1", "node-2"}, {"node-3", "node-4", "node-5"}
            cut = [(a, b) for a, b in here.mesh._pairs if (a in sides[0]) != (b in sides[0])]
            for a, b in cut:
                here.mesh.emulator.set_down(a, b, True)
            await here.until(lambda: set(here.mesh.reachable("node-1")) == {"node-2"})
            for number in range(40):
                here.closers[NAMES[number % 5]].todo.append(incident(number))
            await here.until(lambda: not any(closer.todo for closer in here.closers.values()))
            await asyncio.sleep(2.0)
            apart = {name: here.know(name) for name in NAMES}
            for a, b in cut:
                here.mesh.emulator.set_down(a, b, False)

            everything = {1.7e9 + number for number in range(40)}
            await here.until(lambda: all(here.know(name) == everything for name in NAMES))
            for closer in here.closers.values():
                closer.counts = False
            await here.until(here.is_one)

            documents = here.documents()
            assert all(known != everything for known in apart.values())
            assert all(leaves(document) == leaves(documents[0]) for document in documents)
            assert all(document.view.values == documents[0].view.values for document in documents)
            # The engine's own word, sorted: it lists the clients in any order.
            assert len({repr(sorted(read_state(document.state()).items())) for document in documents}) == 1
            outcomes = documents[0].outcomes()
            assert {node: counts for (node, _, _), counts in outcomes.items()} == dict.fromkeys(NAMES, (8, 0))
            merged = [fields for name, fields in here.events if name == "knowledge.merged"]
            assert {str(fields["node"]) for fields in merged} == set(NAMES)

            # No echo: each broadcast went to as many as it says, and nothing else was an update.
            await here.stop()
            here.loops.clear()
            updates = sum(kind == "update" for _, _, kind in here.sent)
    broadcasts = [span.attributes or {} for span in recorder.named("crdt.broadcast")]
    assert sum(int(str(each["peers"])) for each in broadcasts) == updates
    spans = {span.context.span_id: span for span in recorder.spans}
    for span in recorder.named("crdt.broadcast"):
        assert span.parent is not None
        assert spans[span.parent.span_id].name == "mape_k.knowledge"
    traced = [span for span in recorder.named("crdt.merge") if span.parent is not None]
    assert traced
    for span in traced:
        above = spans[span.parent.span_id]  # type: ignore[union-attr]
        while above.name == "mesh.message_forward":
            assert above.parent is not None
            above = spans[above.parent.span_id]
        assert above.name == "crdt.broadcast"


async def test_a_node_comes_back_from_its_disk_and_from_the_others(tmp_path: Path) -> None:
    async with five(tmp_path) as here:
        for number in range(10):
            here.closers[NAMES[number % 5]].todo.append(incident(number))
        everything = {1.7e9 + number for number in range(10)}
        await here.until(lambda: all(here.know(name) == everything for name in NAMES))
        await here.until((tmp_path / "crdt" / "node-2.log").exists)
        await here.mesh.crash("node-2")
        here.closers["node-1"].todo.append(incident(10))
        await here.until(lambda: len(here.know("node-1")) == 11)

        await here.mesh.restart("node-2")

        await here.until(lambda: len(here.know("node-2")) == 11)
        replica = here.crdt.replica("node-2")
        assert replica is not None
        own = [each for each in here.loops["node-2"].knowledge.incidents() if each.node == "node-2"]
        assert len(own) == 2
        here.closers["node-2"].todo.append(incident(11))
        await here.until(lambda: all(len(here.know(name)) == 12 for name in NAMES))
        counts = here.documents()[4].outcomes()["node-2", "drain", "node-1~node-2"]
        assert counts == (3, 0)


async def test_everything_is_on_disk_when_the_process_ends_and_one_alone_has_it_back(tmp_path: Path) -> None:
    async with five(tmp_path) as here:
        for number in range(10):
            here.closers[NAMES[number % 5]].todo.append(incident(number))
        everything = {1.7e9 + number for number in range(10)}
        await here.until(lambda: all(here.know(name) == everything for name in NAMES))

    context = DomainContext(nodes=("node-3",), supervisor=here, rng=random.Random(2), state=tmp_path)
    async with crdt.open(CrdtSettings(), context) as session:
        replica = session.replica("node-3")
        assert replica is not None
        await here.until(lambda: len(replica.document.incidents()) == 10)
        knowledge = Knowledge()
        replica.attach(knowledge)
        assert {each.opened for each in knowledge.incidents()} == everything
        assert knowledge.facts_elsewhere("cycles").keys() == {"node-1", "node-2", "node-4", "node-5"}
        assert knowledge.fact("cycles") is not None
