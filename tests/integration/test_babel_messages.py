"""Messages over a real Babel mesh: the kernel carries them over the routes that babeld has installed.

Skipped with the reason where rights or programs are missing.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from opentelemetry import trace

from mapek_domains.mesh.babel.identity import MESSAGE_PORT
from mapek_domains.mesh.babel.loops import BabelLoops
from mapek_domains.mesh.babel.session import BabelSession
from mapek_domains.mesh.engine import Overhears, link_id
from mapek_domains.mesh.lab import BabelSettings, Lab, require
from mapek_domains.mesh.lab.namespace import node_socket
from mapek_domains.mesh.probe import LinkProbe
from mapek_domains.mesh.settings import MeshSettings
from mapek_domains.mesh.udp.wire import MAX_DATAGRAM, Data, encode
from mapek_runtime.errors import EngineUnavailable
from mapek_runtime.loop.domain import DomainContext, FollowsNodes, Messenger
from mapek_runtime.testing import Recorder
from tests.integration.running import start

FAST = BabelSettings(hello=0.2, update=1.0)
SLOW = BabelSettings(hello=2.0, update=8.0)
"""Babel alone notices nothing for longer than a test takes."""


@pytest.fixture(scope="module", autouse=True)
def rights() -> None:
    try:
        require()
    except EngineUnavailable as error:
        pytest.skip(str(error))


class Service:
    """What the service does with the mesh when a node crashes."""

    session: BabelSession

    async def crashed(self, node_id: str) -> None:
        self.session.crashed(node_id)

    async def restarted(self, node_id: str) -> None:
        self.session.restarted(node_id)


@asynccontextmanager
async def mesh(settings: BabelSettings = FAST) -> AsyncIterator[BabelSession]:
    """Six nodes that know one another; no loop heals anything."""
    service = Service()
    async with Lab(settings=settings) as lab:
        context = DomainContext(nodes=lab.topology.nodes, supervisor=service, rng=random.Random(1))
        service.session = BabelSession(lab, context, MeshSettings(engine="babel", traffic=0.0))
        async with service.session as session:
            await session.converged(40.0)
            yield session


async def eventually(condition: Callable[[], bool], what: str, limit: float = 20.0) -> None:
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, f"not within {limit:g} s: {what}"
        await asyncio.sleep(0.02)


async def heard(messages: AsyncIterator[tuple[str, bytes]]) -> tuple[str, bytes]:
    async with asyncio.timeout(20.0):
        return await anext(messages)


async def test_a_message_over_three_hops_is_one_datagram_and_one_span() -> None:
    with Recorder() as recorder:
        async with mesh() as session, session.subscribe("n6", "news") as news:
            assert isinstance(session, Messenger)
            assert isinstance(session, FollowsNodes)
            assert len(session.route("n1", "n6")) == 4
            assert session.reachable("n1") == ["n2", "n3", "n4", "n5", "n6"]
            recorder.clear()

            await session.send("n1", "n6", "news", b"outside any span")
            assert await heard(news) == ("n1", b"outside any span")
            with recorder.provider.get_tracer("test").start_as_current_span("sender"):
                await session.send("n1", "n6", "news", b"inside of one")
            assert await heard(news) == ("n1", b"inside of one")
            arrived_in = trace.get_current_span().get_span_context()

    sender, hop = recorder.one("sender"), recorder.one("mesh.message_forward")
    assert hop.context is not None
    assert sender.context is not None
    assert dict(hop.attributes or {}) == {
        "source_node": "n1",
        "destination": "n6",
        "message_id": (hop.attributes or {})["message_id"],
    }
    assert hop.parent is not None
    assert hop.parent.span_id == sender.context.span_id
    assert (arrived_in.trace_id, arrived_in.span_id) == (hop.context.trace_id, hop.context.span_id)


async def test_messages_of_every_size_arrive_whole_from_everywhere() -> None:
    rng = random.Random(5)
    async with mesh() as session:
        for destination in ("n6", "n1"):
            async with session.subscribe(destination, "news") as news:
                for source in session.nodes:
                    for size in (0, 1, 1400, 1500, session.most):
                        body = rng.randbytes(size)
                        await session.send(source, destination, "news", body)
                        assert await heard(news) == (source, body)
        with pytest.raises(ValueError, match="at most 15000"):
            await session.send("n1", "n6", "news", bytes(session.most + 1))
        with pytest.raises(EngineUnavailable, match="'n9' does not run here"):
            await session.send("n9", "n6", "news", b"")
        await session.send("n1", "n9", "news", b"")

        assert session.nodes["n1"].messages.counts["dropped.no_route"] == 1


@pytest.mark.slow
async def test_a_lossy_link_loses_some_messages_and_harms_none() -> None:
    rng = random.Random(6)
    sent = [b"%d " % number + rng.randbytes(rng.choice((10, 3000))) for number in range(200)]
    got: list[bytes] = []
    async with mesh(SLOW) as session, session.subscribe("n2", "news") as news:
        assert session.route("n1", "n2") == ("n1", "n2")
        await session.lab.drop("n1~n2", towards="n2", share=0.3)
        for body in sent:
            await session.send("n1", "n2", "news", body)
            await asyncio.sleep(0.002)
        counts = session.nodes["n2"].messages.counts
        await session.lab.heal("n1~n2")
        await session.send("n1", "n2", "news", b"the end")
        while (body := (await heard(news))[1]) != b"the end":
            got.append(body)

    assert 0 < len(got) < len(sent)
    assert len(set(got)) == len(got)
    assert set(got) < set(sent)
    assert [name for name in counts if name.startswith("dropped")] == []


@pytest.mark.slow
async def test_messages_find_the_way_around_a_blackhole_that_the_loop_has_found() -> None:
    async with Lab(settings=SLOW) as lab, BabelLoops(lab) as loops:
        session = loops.session
        await session.converged(60.0)
        # Until the detectors trust the links, they want longer runs of misses.
        await asyncio.sleep(1.0)
        before = session.route("n1", "n6")
        async with session.subscribe("n6", "news") as news:
            await lab.drop(link_id(*before[:2]), towards=before[1])
            got = asyncio.create_task(heard(news), name="heard")
            sent = 0
            while not got.done():
                sent += 1
                await session.send("n1", "n6", "news", b"%d" % sent)
                await asyncio.sleep(0.02)
            source, body = await got
        after = session.route("n1", "n6")

    assert source == "n1"
    # The first ones are lost: nothing is kept, and nothing is sent again.
    assert int(body) > 1
    assert {target for _, target in loops.carried_out("drain")} == {link_id(*before[:2])}
    assert after[1] != before[1]


async def test_a_node_without_its_babeld_is_not_reachable_and_is_heard_again_after_its_restart() -> None:
    async with mesh() as session, session.subscribe("n6", "news") as news:
        n6 = session.nodes["n6"]
        await session.crash("n6")
        await eventually(lambda: not n6.running, "the crash is seen")
        gone = session.reachable("n6")
        await session.send("n6", "n1", "news", b"from a dead node")
        await session.send("n1", "n6", "news", b"to a dead node")
        await eventually(lambda: "n6" not in session.reachable("n1"), "no route to it")

        await session.mesh.restart("n6")
        await eventually(
            lambda: "n6" in session.reachable("n1") and "n1" in session.reachable("n6"), "routes", 60.0
        )
        # Nodes on the way may still be without a route, and a message may be lost.
        heard_again = asyncio.ensure_future(heard(news))
        while not heard_again.done():
            await session.send("n1", "n6", "news", b"to a living one")
            await asyncio.wait([heard_again], timeout=0.5)

        assert heard_again.result() == ("n1", b"to a living one")
        assert gone == ()
        assert n6.messages.counts["dropped.not_running"] == 1


async def test_a_node_that_falls_silent_is_missed_by_those_that_are_not_its_neighbours() -> None:
    async with mesh() as session:
        n1 = session.nodes["n1"]
        assert isinstance(n1, Overhears)
        await eventually(lambda: set(n1.nodes()) == set(session.nodes), "n1 has heard of all")
        assert n1.unheard() == []

        await session.crash("n6")
        await session.crash("n3")
        await eventually(lambda: n1.unheard() == ["n6"], "n6 is missed; n3 is a neighbour")
        await session.mesh.restart("n6")
        await eventually(lambda: n1.unheard() == [], "n6 is heard again")


async def test_where_the_kernel_has_no_route_a_message_is_dropped_and_counted() -> None:
    async with mesh() as session:
        for plan in session.lab.topology.of("n6"):
            await session.lab.cut(plan.link, at="n6")
        await eventually(lambda: session.reachable("n6") == [], "n6 alone")

        def dropped() -> int:
            return session.nodes["n6"].messages.counts["dropped.no_route"]

        while not dropped():
            # babeld has told of it a moment before the kernel has done it.
            await session.send("n6", "n1", "news", b"")
            await asyncio.sleep(0.02)


async def test_hostile_datagrams_are_dropped_and_counted_and_lose_nothing() -> None:
    rng = random.Random(8)
    good = {"id": 1, "source": "n2", "destination": "n1", "ttl": 3, "topic": "news", "payload": b"x"}
    async with mesh() as session, session.subscribe("n1", "news") as news:
        topology, counts = session.lab.topology, session.nodes["n1"].messages.counts
        n2 = session.nodes["n2"]._kernel._socket
        assert n2 is not None

        def say(datagram: bytes) -> None:
            n2.send(topology.identity("n1"), MESSAGE_PORT, datagram)

        def forged(**fields: object) -> bytes:
            return encode(Data(**{**good, **fields}))  # type: ignore[arg-type] # of many types

        for _ in range(20):
            say(rng.randbytes(rng.randint(0, 300)))
        say(b"MK\x02" + forged()[3:])
        say(forged() + bytes(3))
        say(b"MK\x01" + b"\x91" * 5000)
        say(b"MK\x01" + bytes(MAX_DATAGRAM))
        say(encode(LinkProbe(1, interval=1.0, now=0.0).next_probe(0.0)))
        say(forged(source="n3"))
        say(forged(destination="n6"))
        with node_socket(session.lab.namespace("n2"), topology.identity("n2"), 0) as stranger:
            stranger.sendto(forged(), (topology.identity("n1"), MESSAGE_PORT))
        link = topology.link("n1~n2")
        with node_socket(session.lab.namespace("n2"), link.address("n2"), MESSAGE_PORT) as outsider:
            outsider.sendto(forged(), (topology.identity("n1"), MESSAGE_PORT))
        say(forged(payload=b"an honest one"))
        last = await heard(news)

    assert last == ("n2", b"an honest one")
    assert counts["dropped.not_ours"] == 20
    assert counts["dropped.version"] == 1
    assert counts["dropped.undecodable"] + counts["dropped.invalid"] == 2
    assert counts["dropped.too_long"] == 1
    assert counts["dropped.no_message"] == 1
    assert counts["dropped.wrong_node"] == 2
    assert counts["dropped.stranger"] == 1
    assert counts["dropped.unknown_sender"] == 1
    assert counts["delivered"] == 1


@pytest.mark.slow
async def test_agreement_knowledge_and_learning_work_over_babel(tmp_path: Path) -> None:
    process = await start(
        tmp_path, "--domains", "mesh,raft,crdt,fl", "--chaos", "--seed", "5", "--duration", "40", "--no-web",
        MAPEK_MESH_ENGINE="babel", MAPEK_FL_INTERVAL="3",
    )  # fmt: skip
    async with asyncio.timeout(150.0):
        out, err = await process.communicate()
    events = [json.loads(line) for line in out.splitlines()]
    named = Counter(event["event"] for event in events)

    assert process.returncode == 0, err.decode()[-3000:]
    terms = [event["term"] for event in events if event["event"] == "leader.elected"]
    assert terms == sorted(set(terms))
    assert named["round.finished"] >= 1
    # The seed's third fault: a node is killed, and started again, once, as the nodes have agreed.
    crashed = {e["target"] for e in events if e["event"] == "fault.injected" and e["kind"] == "node.crash"}
    restarted = [event["target"] for event in events if event["event"] == "node.restarted"]
    assert crashed == {"n4"}
    assert restarted == ["n4"]
    summary = events[-1]
    assert summary["event"] == "summary"
    assert summary["cycles_failed"] == 0
    assert summary["faults_healed"] + summary["faults_harmless"] >= 1
