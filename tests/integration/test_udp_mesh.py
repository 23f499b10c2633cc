"""The UDP mesh with its loops: real sockets on loopback, real time, bounded."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

from mapek_domains.mesh.plugin import domain
from mapek_domains.mesh.settings import MeshSettings
from mapek_domains.mesh.udp.demo import DemoSession
from mapek_domains.mesh.udp.session import UdpSession
from mapek_runtime import Cycle, Runtime
from mapek_runtime.errors import ConfigError, EngineUnavailable
from mapek_runtime.loop.domain import DomainContext, Fault
from mapek_runtime.trace import TracerProvider, use_provider


class Loops:
    """A supervisor: one runtime a node, kept while the node lives."""

    def __init__(self) -> None:
        self.session: UdpSession | None = None
        self.running: dict[str, Runtime] = {}
        self.cycles: list[Cycle] = []
        self.triggers: list[tuple[str, str]] = []

    def trigger(self, node_id: str, reason: str) -> None:
        self.triggers.append((node_id, reason))
        if node_id in self.running:
            self.running[node_id].trigger(reason)

    async def crashed(self, node_id: str) -> None:
        runtime = self.running.pop(node_id, None)
        if runtime is not None:
            await runtime.cancel()

    async def restarted(self, node_id: str) -> None:
        if self.session is not None and self.running:
            await self.start(node_id)

    async def start(self, node_id: str) -> None:
        assert self.session is not None
        runtime = Runtime(
            *self.session.plugins(node_id), node_id=node_id, interval=0.1, on_cycle=self.cycles.append
        )
        self.running[node_id] = await runtime.__aenter__()

    def actions(self) -> list[tuple[str, str, str]]:
        return [
            (cycle.node_id, outcome.action.name, outcome.action.target)
            for cycle in self.cycles
            for outcome in cycle.outcomes
        ]

    def failures(self) -> list[object]:
        return [failure for cycle in self.cycles for failure in cycle.failures]


@asynccontextmanager
async def mesh(
    *, nodes: int = 5, heal: bool = True, settings: MeshSettings | None = None
) -> AsyncIterator[tuple[DemoSession, Loops]]:
    loops = Loops()
    context = DomainContext(
        nodes=tuple(f"node-{number}" for number in range(1, nodes + 1)),
        supervisor=loops,
        rng=random.Random(1),
        trigger=loops.trigger,
    )
    async with domain.open(settings or MeshSettings(), context) as session:
        assert isinstance(session, DemoSession)
        loops.session = session
        await until(lambda: all(sum(node.nodes().values()) == nodes for node in session.nodes.values()))
        try:
            if heal:
                for name in context.nodes:
                    await loops.start(name)
            yield session, loops
        finally:
            for runtime in loops.running.values():
                await runtime.stop()


async def until(true: Callable[[], bool], *, limit: float = 8.0) -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + limit
    while not true():
        assert loop.time() < end, "it did not come true in time"
        await asyncio.sleep(0.01)


def fault(kind: str, target: str, **parameters: float) -> Fault:
    return Fault(number=1, kind=kind, target=target, at=0.0, duration=10.0, parameters=parameters)


@pytest.mark.slow
async def test_a_one_way_blackhole_is_routed_around_and_the_link_is_used_again() -> None:
    # Each way in a mesh of its own, beside one another: most of it is waiting.
    async with asyncio.TaskGroup() as group:
        group.create_task(heal_a_hole(reverse=0.0), name="forth")
        group.create_task(heal_a_hole(reverse=1.0), name="back")


async def heal_a_hole(*, reverse: float) -> None:
    async with mesh() as (session, loops):
        await asyncio.sleep(1.5)
        hole = fault("link.blackhole", "node-1~node-2", reverse=reverse)
        await session.inject(hole)
        await until(lambda: session.report().healed == 1)
        during = session.route("node-1", "node-2"), session.route("node-2", "node-1")
        await session.clear(hole)
        await until(lambda: session.route("node-1", "node-2") == ("node-1", "node-2"), limit=12.0)

    assert [len(route) for route in during] == [3, 3]
    # The owner drains it, and the other end too when the owner was a cycle later than itself.
    by_node = {node: [action[1] for action in loops.actions() if action[0] == node] for node in session.nodes}
    assert {action[2] for action in loops.actions()} == {"node-1~node-2"}
    assert ["drain", "undrain"] in (by_node["node-1"], by_node["node-2"])
    assert all(done in ([], ["drain", "undrain"]) for done in by_node.values())
    assert session.report().wrong_actions == 0
    assert session.report().repair_seconds[0] < 3.0
    assert loops.failures() == []


@pytest.mark.slow
async def test_a_bad_link_asks_for_a_cycle_at_each_end_once_until_it_was_well() -> None:
    hole = fault("link.blackhole", "node-1~node-2")
    async with mesh(heal=False) as (session, loops):
        await asyncio.sleep(1.5)
        loops.triggers.clear()
        asked = []
        for _ in range(2):
            await session.inject(hole)
            await until(lambda: len(loops.triggers) >= 2)
            await asyncio.sleep(0.5)
            asked.append(sorted(loops.triggers))
            await session.clear(hole)
            await asyncio.sleep(1.0)
            loops.triggers.clear()

    reason = "link node-1~node-2 looks bad"
    assert asked == [[("node-1", reason), ("node-2", reason)]] * 2


async def test_a_drain_is_verified_by_an_answer_over_the_new_way() -> None:
    async with mesh() as (session, loops):
        await asyncio.sleep(1.5)
        await session.inject(fault("link.blackhole", "node-1~node-2"))
        await until(lambda: any(cycle.outcomes for cycle in loops.cycles))
        drained = next(cycle for cycle in loops.cycles if cycle.outcomes)

        def verified() -> list[int]:
            return [
                cycle.number
                for cycle in loops.cycles
                if cycle.node_id == drained.node_id
                and any(i.name == "repair.verified" for i in cycle.insights)
            ]

        await until(lambda: bool(verified()))
        peer = {"node-1": "node-2", "node-2": "node-1"}[drained.node_id]
        answered = session.nodes[drained.node_id].answered(peer, drained.started)

    assert verified()[0] > drained.number
    assert answered


@pytest.mark.slow
async def test_without_the_loop_the_mesh_alone_heals_after_its_dead_time() -> None:
    async with mesh(heal=False) as (session, loops):
        await session.inject(fault("link.blackhole", "node-1~node-2"))
        await until(lambda: session.report().healed == 1)

    assert session.report().repair_seconds[0] > 2.0
    assert loops.actions() == []


async def test_a_crashed_node_is_restarted_by_its_lowest_neighbour() -> None:
    async with mesh() as (session, loops):
        await asyncio.sleep(1.5)
        await session.inject(fault("node.crash", "node-3"))
        await until(lambda: session.report().healed == 1)
        restarts = [action for action in loops.actions() if action[1] == "restart"]

    assert restarts == [("node-1", "restart", "node-3")]
    assert session.report().wrong_actions == 0


@pytest.mark.slow
async def test_a_node_whose_links_all_die_at_once_does_not_act_on_itself() -> None:
    async with mesh() as (session, loops):
        await asyncio.sleep(1.5)
        for peer in ("node-2", "node-3", "node-5"):
            session.emulator.set_down("node-1", peer, True)
        await asyncio.sleep(2.0)
        own = [action for action in loops.actions() if action[0] == "node-1"]
        found = {f.problem for cycle in loops.cycles if cycle.node_id == "node-1" for f in cycle.findings}
        rules = {r.rule for cycle in loops.cycles if cycle.node_id == "node-1" for r in cycle.rejections}

    assert own == []
    assert "node.isolated" in found
    assert "self-distrust" in rules


async def test_the_last_way_out_is_not_drained() -> None:
    settings = MeshSettings(links=(("node-1", "node-2"), ("node-2", "node-3"), ("node-3", "node-4")))
    async with mesh(nodes=4, settings=settings) as (session, loops):
        await asyncio.sleep(1.0)
        await session.inject(fault("link.blackhole", "node-2~node-3"))
        await asyncio.sleep(1.5)
        rules = {r.rule for cycle in loops.cycles for r in cycle.rejections}

    assert loops.actions() == []
    assert "last way out" in rules


@pytest.mark.slow
async def test_ten_percent_loss_everywhere_and_no_fault_drains_nothing() -> None:
    async with mesh(settings=MeshSettings(loss=0.1)) as (session, loops):
        await asyncio.sleep(5.0)

    assert loops.actions() == []
    assert session.report().sent > 0


@pytest.mark.slow
async def test_ten_minutes_of_ten_percent_loss_drain_nothing() -> None:
    async with mesh(settings=MeshSettings(loss=0.1)) as (_, loops):
        await asyncio.sleep(600.0)

    assert loops.actions() == []


@pytest.mark.slow
async def test_a_link_that_flaps_once_a_second_gets_at_most_two_actions_a_minute() -> None:
    async with mesh() as (session, loops):
        for _ in range(60):
            session.emulator.set_down("node-1", "node-2", True)
            await asyncio.sleep(0.5)
            session.emulator.set_down("node-1", "node-2", False)
            await asyncio.sleep(0.5)

    assert 1 <= len(loops.actions()) <= 2


async def test_a_message_over_three_hops_is_one_trace_over_three_nodes() -> None:
    class Ended(SpanProcessor):
        def __init__(self) -> None:
            self.spans: list[ReadableSpan] = []

        def on_end(self, span: ReadableSpan) -> None:
            self.spans.append(span)

    ended = Ended()
    provider = TracerProvider()
    provider.add_span_processor(ended)
    chain = MeshSettings(
        links=(("node-1", "node-2"), ("node-2", "node-3"), ("node-3", "node-4")), traffic=0.0
    )
    with use_provider(provider):
        async with (
            mesh(nodes=4, heal=False, settings=chain) as (session, _),
            session.subscribe("node-4", "news") as news,
        ):
            # Without a span of the sender there is no trace to be part of.
            await session.send("node-1", "node-4", "news", b"untraced")
            with provider.get_tracer("test").start_as_current_span("asking"):
                await session.send("node-1", "node-4", "news", b"hello")
            async with asyncio.timeout(5.0):
                received = [await anext(news), await anext(news)]
    hops = [span for span in ended.spans if span.name == "mesh.message_forward"]

    assert received == [("node-1", b"untraced"), ("node-1", b"hello")]
    assert sorted(str((span.attributes or {})["source_node"]) for span in hops) == [
        "node-1",
        "node-2",
        "node-3",
    ]
    assert len({span.context.trace_id for span in hops if span.context}) == 1
    assert {(span.attributes or {})["destination"] for span in hops} == {"node-4"}


async def test_hostile_datagrams_are_dropped_and_counted_and_lose_nothing() -> None:
    rng = random.Random(3)
    async with mesh(heal=False) as (session, _):
        target = session.nodes["node-1"]
        friend = session.nodes["node-2"]
        address = target._port.address
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            for _ in range(200):
                stranger.sendto(rng.randbytes(rng.randint(0, 200)), address)
        for _ in range(200):
            friend._port.send(b"MK\x01" + rng.randbytes(rng.randint(0, 200)), address)
            friend._port.send(rng.randbytes(50), address)
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.5)
        counts = target.statistics()
        reached = target.nodes()

    assert counts["dropped.unknown_sender"] == 200
    assert counts["dropped.not_ours"] == 200
    assert counts.get("dropped.invalid", 0) + counts.get("dropped.undecodable", 0) == 200
    assert all(reached.values())


async def test_a_port_that_is_taken_is_named_with_what_would_be_right() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        context = DomainContext(nodes=("node-1",), supervisor=Loops(), rng=random.Random(1))
        with pytest.raises(ConfigError, match=rf"127\.0\.0\.1:{port}.*choose a free one"):
            async with domain.open(MeshSettings(listen=f"127.0.0.1:{port}"), context):
                pass


async def test_two_processes_of_one_node_each_find_one_another() -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as two,
    ):
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        ports = one.getsockname()[1], two.getsockname()[1]

    def context(name: str) -> DomainContext:
        return DomainContext(nodes=(name,), supervisor=Loops(), rng=random.Random(name))

    first = MeshSettings(listen=f"127.0.0.1:{ports[0]}", peers={"b": f"127.0.0.1:{ports[1]}"})
    second = MeshSettings(listen=f"127.0.0.1:{ports[1]}", peers={"a": f"127.0.0.1:{ports[0]}"})
    async with domain.open(first, context("a")) as here, domain.open(second, context("b")) as there:
        await until(lambda: here.route("a", "b") == ("a", "b") and there.route("b", "a") == ("b", "a"))
        with pytest.raises(EngineUnavailable, match="another process"):
            await here.nodes["a"].restart("b")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (MeshSettings(listen="7001"), "HOST:PORT"),
        (MeshSettings(listen="127.0.0.1:99999"), "HOST:PORT"),
        (MeshSettings(peers={"b": "127.0.0.1:7002"}), "no listen"),
        (MeshSettings(listen="127.0.0.1:0", peers={"node-1": "127.0.0.1:7002"}), "this node itself"),
        (MeshSettings(listen="127.0.0.1:0", peers={"b": "nowhere"}), "HOST:PORT"),
        (MeshSettings(links=(("node-1", "node-9"),)), "not a link between two nodes"),
    ],
    ids=["no host", "no such port", "no listen", "own peer", "bad peer", "bad link"],
)
async def test_wrong_settings_say_what_would_be_right(settings: MeshSettings, message: str) -> None:
    context = DomainContext(nodes=("node-1",), supervisor=Loops(), rng=random.Random(1))

    with pytest.raises(ConfigError, match=message):
        async with domain.open(settings, context):
            pass


@pytest.mark.parametrize("nodes", [1, 2, 3, 12])
async def test_a_mesh_of_any_size_converges_and_delivers(nodes: int) -> None:
    async with mesh(nodes=nodes, heal=False) as (session, _):
        await asyncio.sleep(1.0)
        report = session.report()

    assert report.delivered == report.sent
    assert (report.sent > 0) == (nodes > 1)
