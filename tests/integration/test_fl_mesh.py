"""Nodes that learn together over the real UDP mesh: sockets of loopback, real time, waits with a limit."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from opentelemetry.sdk.trace import ReadableSpan

from mapek_domains.fl.plugin import learning
from mapek_domains.fl.session import FlSession
from mapek_domains.fl.settings import FlSettings
from mapek_domains.fl.wire import Model, Part, Upload, decode
from mapek_domains.mesh.plugin import domain as mesh
from mapek_domains.mesh.settings import MeshSettings
from mapek_domains.mesh.udp.demo import DemoSession
from mapek_domains.mesh.udp.session import UdpSession
from mapek_runtime import Action, Cycle, Finding, Outcome
from mapek_runtime.loop.domain import DomainContext, Fault
from mapek_runtime.testing import Recorder, run_cycle
from tests.unit.fl.toy import Toy

NAMES = tuple(f"node-{number}" for number in range(1, 6))
WISHES = dict(zip(NAMES, (1.0, 2.0, 3.0, 4.0, 5.0), strict=True))
QUICK = FlSettings(interval=0.3, gap=0.1, deadline=2.0)


@dataclass
class Here:
    """What is open, and what went over the mesh."""

    learner: Toy
    mesh: Any = None
    fl: Any = None
    sent: list[tuple[str, str, Any]] = field(default_factory=list)
    events: list[Mapping[str, Any]] = field(default_factory=list)

    # The supervisor, as the service is one: it tells the session of crashes.

    async def crashed(self, node_id: str) -> None:
        if self.fl is not None:
            self.fl.crashed(node_id)

    async def restarted(self, node_id: str) -> None:
        if self.fl is not None:
            self.fl.restarted(node_id)

    def find(self, protocol: type[Any], /) -> Any:
        return next((each for each in (self.mesh, self.fl) if isinstance(each, protocol)), None)

    def emit(self, name: str, fields: Mapping[str, Any]) -> None:
        if name == "round.finished":
            self.events.append(fields)

    def rounds(self) -> dict[str, int]:
        return {name: node.version.round for name, node in self.fl.nodes.items()}

    def listen(self, session: UdpSession) -> None:
        """Be a witness of what the session sends."""
        send = session.send

        async def witnessed(source: str, destination: str, topic: str, payload: bytes) -> None:
            if topic == "fl":
                self.sent.append((source, destination, decode(payload)))
            await send(source, destination, topic, payload)

        session.send = witnessed  # type: ignore[method-assign]


@asynccontextmanager
async def learners(
    learner: Toy,
    fl: FlSettings = QUICK,
    settings: MeshSettings | None = None,
    *,
    nodes: Sequence[str] = NAMES,
    state: Path | None = None,
) -> AsyncIterator[Here]:
    here = Here(learner)
    context = DomainContext(
        nodes=tuple(nodes), supervisor=here, rng=random.Random(1), emit=here.emit, find=here.find, state=state
    )
    async with mesh.open(settings or MeshSettings(traffic=0.0), context) as session:
        assert isinstance(session, UdpSession)
        await until(lambda: all(sum(node.nodes().values()) == len(nodes) for node in session.nodes.values()))
        here.mesh = session
        here.listen(session)
        async with learning(fl, context, learner) as opened:
            here.fl = opened
            yield here


async def until(true: Callable[[], bool], *, limit: float = 30.0) -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + limit
    while not true():
        assert loop.time() < end, "it did not come true in time"
        await asyncio.sleep(0.01)


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(count)
        ]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def attributes(span: ReadableSpan) -> Mapping[str, Any]:
    return span.attributes or {}


async def test_five_nodes_learn_over_links_that_lose_a_tenth() -> None:
    learner = Toy(WISHES)
    async with learners(learner, settings=MeshSettings(traffic=0.0, loss=0.1)) as here:
        await until(lambda: len(here.events) >= 12)
        await until(lambda: min(here.rounds().values()) >= 12)
        numbers = [float(node.weights[0][0, 0]) for node in here.fl.nodes.values()]

    assert {event["clients"] for event in here.events} <= {2, 3, 4, 5}
    assert sum(event["clients"] for event in here.events[:12]) >= 50
    # Half the way to the mean of all wishes with each round.
    assert numbers == pytest.approx([3.0] * 5, abs=0.2)
    assert not any("dropped.failed" in here.fl.counts(name) for name in NAMES)


async def test_a_round_is_one_trace_over_five_nodes_and_its_values_are_those_on_the_wire() -> None:
    learner = Toy(WISHES)
    with Recorder() as recorder:
        async with learners(learner, FlSettings(interval=0.5, deadline=5.0)) as here:
            await until(lambda: len(here.events) >= 1 and min(here.rounds().values()) >= 1)

    (root,) = [
        span
        for span in recorder.named("fl.aggregation")
        if attributes(span)["round"] == 1 and not span.parent
    ]
    assert root.context
    mine = [
        span for span in recorder.spans if span.context and span.context.trace_id == root.context.trace_id
    ]
    trained = {attributes(span)["client_id"]: span for span in mine if span.name == "fl.local_training"}
    uploads = [attributes(span) for span in mine if span.name == "fl.model_upload"]
    wire = {source: message for source, _, message in here.sent if isinstance(message, Upload)}

    assert set(trained) == set(NAMES)
    assert {attributes(span)["client_id"] for span in mine if span.name == "fl.model_download"} == set(NAMES)
    assert attributes(root)["clients"] == 5
    assert attributes(root)["loss"] == pytest.approx(sum(m.loss for m in wire.values()) / 5)
    assert {u["client_id"]: u["model_size_bytes"] for u in uploads} == {
        source: len(message.model.data) for source, message in wire.items()
    }
    # What is trained elsewhere hangs below the hops on which the model came.
    names = {span.context.span_id: span.name for span in mine if span.context}
    for name, span in trained.items():
        assert span.parent is not None
        above = names[span.parent.span_id]
        assert above == ("fl.aggregation" if name == "node-1" else "mesh.message_forward")


async def test_a_cycle_that_acted_has_a_round_below_its_knowledge_phase() -> None:
    class Acts:
        async def analyze(self, cycle: Cycle) -> Sequence[Finding]:
            return (Finding(target="x", problem="broken"),)

        async def plan(self, cycle: Cycle) -> Sequence[Action]:
            return (Action(name="mend", target="x"),)

        async def execute(self, cycle: Cycle, action: Action) -> Outcome:
            return Outcome(action=action, success=True)

    with Recorder() as recorder:
        async with learners(Toy(WISHES), FlSettings(interval=1000.0, gap=0.2)) as here:
            await asyncio.sleep(0.3)
            await run_cycle(Acts(), *here.fl.plugins("node-4"), node="node-4")
            await until(lambda: len(here.events) == 1 and min(here.rounds().values()) == 1)

    knowledge, aggregation = recorder.one("mape_k.knowledge"), recorder.one("fl.aggregation")
    assert knowledge.context
    assert aggregation.context
    assert aggregation.context.trace_id == knowledge.context.trace_id
    by_id = {span.context.span_id: span for span in recorder.spans if span.context}
    way, span = list[str](), aggregation
    while span.parent is not None:
        span = by_id[span.parent.span_id]
        way.append(span.name)
    assert way[-2:] == ["mape_k.knowledge", "mape_k.cycle"]
    assert set(way[:-2]) == {"mesh.message_forward"}


@pytest.mark.slow
async def test_a_coordinator_that_crashes_is_followed_by_another_and_comes_back(tmp_path: Path) -> None:
    async with learners(Toy(WISHES), state=tmp_path) as here:
        session = here.mesh
        assert isinstance(session, DemoSession)
        await until(lambda: len(here.events) >= 3)
        await session.inject(Fault(number=1, kind="node.crash", target="node-1", at=0.0, duration=60.0))
        assert "node-1" not in here.fl.nodes
        gone = len(here.events)
        await until(lambda: len(here.events) >= gone + 3)
        second = here.fl.nodes["node-2"].version.coordinator
        await session.restart("node-1")
        await until(lambda: here.fl.nodes["node-1"].version.round >= here.events[-1]["round"] - 1)
        back = len(here.events)
        await until(lambda: len(here.events) >= back + 3 and here.events[-1]["clients"] == 5)

    assert second == "node-2"
    rounds = [event["round"] for event in here.events]
    assert rounds == sorted(rounds)
    assert here.learner.forgotten == ["node-1"]


async def test_a_model_of_many_datagrams_goes_round_the_mesh() -> None:
    class Long(Toy):
        def initial(self) -> Any:
            return np.zeros((2, 3), np.float32), np.zeros(100_000, np.float32)

    async with learners(Long(WISHES), settings=MeshSettings(traffic=0.0, loss=0.02)) as here:
        await until(lambda: len(here.events) >= 2)

    assert sum(isinstance(message, Part) for _, _, message in here.sent) >= 2 * 27 * 10
    assert not any(isinstance(message, Upload | Model) for _, _, message in here.sent)
    assert max(event["clients"] for event in here.events) == 5


async def test_nodes_of_several_processes_learn_as_those_of_one() -> None:
    names = ("a", "b", "c")
    addresses = {name: f"127.0.0.1:{port}" for name, port in zip(names, free_ports(3), strict=True)}
    everyone: list[Here] = []
    async with AsyncExitStack() as stack:
        for name in names:
            here = Here(Toy({name: float(ord(name) - ord("a"))}))
            everyone.append(here)
            context = DomainContext(
                nodes=(name,), supervisor=here, rng=random.Random(name), emit=here.emit, find=here.find
            )
            peers = {other: address for other, address in addresses.items() if other != name}
            settings = MeshSettings(listen=addresses[name], peers=peers)
            here.mesh = await stack.enter_async_context(mesh.open(settings, context))
            here.fl = await stack.enter_async_context(learning(QUICK, context, here.learner))
        await until(lambda: all(min(here.rounds().values()) >= 8 for here in everyone))
        numbers = [
            float(here.fl.nodes[name].weights[0][0, 0]) for name, here in zip(names, everyone, strict=True)
        ]

    assert numbers == pytest.approx([1.0] * 3, abs=0.2)
    assert all(isinstance(here.fl, FlSession) for here in everyone)
