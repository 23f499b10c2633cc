"""The exchange between nodes: who sends what to whom, and in which trace."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace

import pytest

from mapek_domains.crdt.gossip import TOPIC
from mapek_domains.crdt.messages import Again, Compare, Part, Sync, encode, step1, update_message
from mapek_domains.crdt.settings import CrdtSettings
from mapek_runtime import Cycle, Observation
from mapek_runtime.loop.knowledge import Incident
from mapek_runtime.testing import AutojumpClock, Recorder, run_cycle, tree
from tests.unit.crdt.net import fleet, incident, until


async def test_one_change_is_one_update_to_each_other_node_and_no_echo(autojump: AutojumpClock) -> None:
    async with fleet(5) as nodes:
        await until(nodes.is_one)
        nodes.net.seen.clear()
        nodes.knowledge["node-1"].close(incident(1))

        await nodes.publish()
        for _ in range(50):
            await asyncio.sleep(0.1)
            await nodes.publish()

        assert nodes.net.updates() == 4
        assert {source for source, _, kind in nodes.net.seen if kind == "update"} == {"node-1"}
        assert not any(kind.startswith("sync") for _, _, kind in nodes.net.seen)
        assert all(len(knowledge.incidents()) == 1 for knowledge in nodes.knowledge.values())


async def test_what_was_lost_comes_with_a_comparison(autojump: AutojumpClock) -> None:
    async with fleet(3) as nodes:
        await until(nodes.is_one)
        nodes.net.loss = 1.0
        nodes.knowledge["node-2"].remember("threshold", 0.5)
        await nodes.publish()
        nodes.net.heal()
        assert not nodes.is_one()

        await until(nodes.is_one)

        assert nodes.knowledge["node-3"].facts_elsewhere("threshold") == {"node-2": 0.5}


async def test_a_deletion_that_was_lost_comes_with_a_comparison(autojump: AutojumpClock) -> None:
    async with fleet(2, settings=CrdtSettings(incidents=64)) as nodes:
        for number in range(129):
            nodes.knowledge["node-1"].close(incident(number))
            await nodes.publish("node-1")
        await until(nodes.is_one)
        before = nodes.document("node-1").state()
        nodes.net.loss = 1.0
        nodes.document("node-1")._author._most_incidents = 1
        nodes.knowledge["node-1"].close(incident(200))
        await nodes.publish("node-1")
        nodes.net.heal()

        await until(nodes.is_one)

        assert nodes.document("node-2").state() != before
        assert nodes.document("node-2").incidents() == nodes.document("node-1").incidents()


async def test_a_comparison_without_news_costs_no_span(autojump: AutojumpClock, recorder: Recorder) -> None:
    async with fleet(4) as nodes:
        await until(nodes.is_one)

        await asyncio.sleep(60.0)

        assert nodes.net.seen
        assert not recorder.spans
        assert not nodes.net.traced


async def test_a_broadcast_and_its_merges_are_one_trace_under_the_cycle(
    autojump: AutojumpClock, recorder: Recorder
) -> None:
    class Closes:
        async def monitor(self, cycle: Cycle) -> list[Observation]:
            return []

        async def learn(self, cycle: Cycle) -> None:
            cycle.knowledge.close(incident(1))

    async with fleet(3) as nodes:
        (sharer,) = nodes.session.plugins("node-1")
        cycle = await run_cycle(Closes(), sharer, knowledge=nodes.knowledge["node-1"])
        await until(lambda: len(recorder.named("crdt.merge")) == 2)

        assert recorder.tree("peers", "changes", "type") == tree("""
            mape_k.cycle
              mape_k.monitor
              mape_k.analyze
              mape_k.plan
              mape_k.execute
              mape_k.knowledge
                crdt.broadcast peers=2 type=knowledge
                  crdt.merge changes=2 type=knowledge
                  crdt.merge changes=2 type=knowledge
        """)
        replicas = {span.attributes["replica_id"] for span in recorder.named("crdt.merge") if span.attributes}
        assert replicas == {"node-2", "node-3"}
        readings = {each.name: each.value for each in cycle.observations}
        assert readings == {"crdt.incidents": 0.0, "crdt.replicas": 3.0}


async def test_news_that_a_comparison_brings_is_a_merge_of_its_own(
    autojump: AutojumpClock, recorder: Recorder
) -> None:
    async with fleet(2) as nodes:
        await until(nodes.is_one)
        nodes.net.loss = 1.0
        nodes.knowledge["node-1"].close(incident(1))
        await nodes.publish()
        recorder.clear()
        nodes.net.heal()

        await until(nodes.is_one)

        merge = recorder.one("crdt.merge")
        assert merge.parent is None
        assert merge.attributes is not None
        assert merge.attributes["changes"] == 2
        assert nodes.net.traced["sync_step2"] == 0


async def test_a_message_that_comes_twice_is_merged_once(autojump: AutojumpClock, recorder: Recorder) -> None:
    async with fleet(2) as nodes:
        nodes.net.doubled = 1.0
        nodes.knowledge["node-1"].close(incident(1))

        await nodes.publish()
        await asyncio.sleep(1.0)

        assert len(recorder.named("crdt.merge")) == 1
        assert nodes.knowledge["node-2"].success_rate("drain") == 1.0


async def test_nobody_to_tell_is_no_broadcast(autojump: AutojumpClock, recorder: Recorder) -> None:
    async with fleet(1) as nodes:
        nodes.knowledge["node-1"].close(incident(1))
        await nodes.publish()

        assert not recorder.spans
        assert len(nodes.document("node-1").incidents()) == 1


async def test_an_update_without_what_it_builds_on_asks_for_it(autojump: AutojumpClock) -> None:
    async with fleet(2, settings=CrdtSettings(interval=3600.0)) as nodes:
        await asyncio.sleep(3000.0)
        nodes.net.loss = 1.0
        nodes.knowledge["node-1"].close(incident(1))
        await nodes.publish()
        nodes.net.heal()
        nodes.knowledge["node-1"].close(incident(2))
        await nodes.publish()
        await asyncio.sleep(1.0)

        gossip = nodes.session.gossip("node-2")
        assert gossip is not None
        assert gossip.counts["refused.early"] == 1
        assert nodes.is_one()
        assert len(nodes.knowledge["node-2"].incidents()) == 2


async def test_what_is_too_long_for_a_message_comes_in_parts_though_many_are_lost(
    autojump: AutojumpClock,
) -> None:
    async with fleet(2, seed=3) as nodes:
        await until(nodes.is_one)
        for number in range(900):
            nodes.knowledge["node-1"].close(incident(number))
        nodes.net.loss = 0.4
        await nodes.publish("node-1")

        await until(lambda: len(nodes.document("node-2").incidents()) == 900, limit=120.0)

        assert sum(count for (_, _, kind), count in nodes.net.seen.items() if kind == "part") > 10
        assert max(len(payload) for _, _, payload in nodes.net.log) <= nodes.net.most


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"KC",
        b"KC\x02abc",
        b"pickle",
        b"\x80\x04\x95",
        b"KC\x01" + b"\x91" * 50_00,
        encode(Compare(bytes(16))),
        encode(Sync(b"\x00\x00\x01\x00")),
        encode(Sync(b"\x00\x00\x05\xff\xff\xff\xff\xff")),
        encode(Sync(b"\x00\x02\xff\xff\xff")),
        encode(Sync(b"\x01\x02\x03")),
        encode(Sync(update_message(b"\xff" * 400))),
        encode(Part(1, 0, 4096, b"x" * 10_000)),
        encode(Part(1, 4000, 2, b"x")),
        encode(Again(7, [1, 2, 3])),
    ],
    ids=lambda payload: repr(payload[:16]),
)
async def test_hostile_bytes_change_nothing(autojump: AutojumpClock, payload: bytes) -> None:
    async with fleet(2) as nodes:
        nodes.knowledge["node-1"].close(incident(1))
        await nodes.publish()
        await until(nodes.is_one)
        document = nodes.document("node-1")
        before = document.whole(), document.state(), dict(document.view.values)

        nodes.net._deliver("node-2", "node-1", TOPIC, payload, {})
        await asyncio.sleep(60.0)

        assert (document.whole(), document.state(), dict(document.view.values)) == before
        nodes.knowledge["node-2"].close(incident(2))
        await nodes.publish()
        await until(lambda: len(document.incidents()) == 2)


async def test_questions_are_answered_as_often_as_is_decent(autojump: AutojumpClock) -> None:
    async with fleet(2) as nodes:
        for number in range(300):
            nodes.knowledge["node-1"].close(incident(number))
        await nodes.publish()
        await until(nodes.is_one)
        nodes.net.seen.clear()

        for _ in range(1000):
            nodes.net._deliver("node-2", "node-1", TOPIC, encode(Sync(step1(b"\x00"), True)), {})
        await asyncio.sleep(1.0)

        gossip = nodes.session.gossip("node-1")
        assert gossip is not None
        assert gossip.counts["refused.too_often"] > 900
        assert nodes.net.seen["node-1", "node-2", "sync_step1"] <= 20


async def test_a_merge_after_a_partition_is_told_once_by_each_node(autojump: AutojumpClock) -> None:
    async with fleet(4) as nodes:
        await until(nodes.is_one)
        await asyncio.sleep(30.0)
        nodes.net.split(["node-1", "node-2"], ["node-3", "node-4"])
        for second in range(60):
            nodes.knowledge[f"node-{1 + second % 4}"].close(incident(second))
            await nodes.publish()
            await asyncio.sleep(1.0)
        assert not nodes.events
        nodes.net.heal()

        await until(nodes.is_one)
        await asyncio.sleep(30.0)

        assert sorted(str(fields["node"]) for _, fields in nodes.events) == [
            f"node-{n}" for n in (1, 2, 3, 4)
        ]
        assert {name for name, _ in nodes.events} == {"knowledge.merged"}
        assert all(fields["changes"] >= 30 for _, fields in nodes.events)


async def test_ordinary_updates_are_not_told(autojump: AutojumpClock) -> None:
    async with fleet(3) as nodes:
        await until(nodes.is_one)
        await asyncio.sleep(30.0)
        for number in range(20):
            nodes.knowledge["node-1"].close(incident(number))
            await nodes.publish()
            await asyncio.sleep(1.0)

        assert not nodes.events


async def test_a_node_that_is_restarted_from_nothing_gets_its_own_back(autojump: AutojumpClock) -> None:
    async with fleet(3) as nodes:
        one = nodes.knowledge["node-1"]
        one.close(incident(1))
        one.close(incident(2, success=False, repair_seconds=None))
        one.remember("mesh.normal.a", 0.25)
        await nodes.publish()
        await until(nodes.is_one)
        life = nodes.document("node-1").life

        nodes.crash("node-1")
        nodes.knowledge["node-2"].close(incident(3))
        await nodes.publish("node-2", "node-3")
        await asyncio.sleep(5.0)
        nodes.restart("node-1")
        await until(nodes.is_one)

        again = nodes.knowledge["node-1"]
        assert again is not one
        assert nodes.document("node-1").life != life
        assert again.fact("mesh.normal.a") == 0.25
        assert [(each.opened - 1.7e9, each.node) for each in again.incidents()] == [
            (1.0, "node-1"),
            (2.0, "node-1"),
            (3.0, "node-2"),
        ]
        assert again.success_rate("drain") == pytest.approx(2 / 3)
        again.close(incident(4))
        await nodes.publish()
        await until(nodes.is_one)
        assert nodes.document("node-3").outcomes()["node-1", "drain", "node-1~node-2"] == (2, 1)
        assert again.success_rate("drain") == pytest.approx(3 / 4)
        assert nodes.knowledge["node-3"].success_rate("drain") == pytest.approx(3 / 4)


async def test_a_goal_of_one_node_holds_on_all_and_names_its_span(
    autojump: AutojumpClock, recorder: Recorder
) -> None:
    async with fleet(3) as nodes:
        with recorder.provider.get_tracer("test").start_as_current_span("slow loop") as span:
            nodes.knowledge["node-2"].set_goal("loss", 0.01, span_context=span.get_span_context())
        await nodes.publish()
        await until(nodes.is_one)

        assert [knowledge.goal("loss") for knowledge in nodes.knowledge.values()] == [0.01] * 3
        goal = nodes.knowledge["node-3"].goals()["loss"]
        assert (goal.author, goal.number) == ("node-2", 1)
        assert goal.span_context is not None
        assert goal.span_context.span_id == span.get_span_context().span_id
        nodes.knowledge["node-3"].set_goal("loss", 0.02)
        await nodes.publish()
        await until(nodes.is_one)
        assert {knowledge.goal("loss") for knowledge in nodes.knowledge.values()} == {0.02}


async def test_without_a_mesh_or_sockets_a_node_works_alone_and_says_so(
    autojump: AutojumpClock, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        async with fleet(2, mesh=False) as nodes:
            nodes.knowledge["node-1"].close(incident(1))
            await nodes.publish()

            assert len(nodes.document("node-1").incidents()) == 1
            assert not nodes.document("node-2").incidents()
    assert caplog.text.count("knowledge is shared with nobody") == 1


async def test_what_knowledge_had_before_is_shared_when_the_others_had_their_say(
    autojump: AutojumpClock,
) -> None:
    async with fleet(2) as nodes:
        old: Incident = replace(incident(1), node="")
        nodes.replica("node-1").detach()
        nodes.knowledge["node-1"]._learn(old)
        nodes.knowledge["node-1"].set_goal("loss", 0.5)
        nodes.replica("node-1").attach(nodes.knowledge["node-1"])
        await nodes.publish()
        assert not nodes.document("node-1").incidents()

        await until(lambda: nodes.replica("node-1").has_agreed)
        await nodes.publish()
        await until(nodes.is_one)

        assert [each.opened for each in nodes.knowledge["node-2"].incidents()] == [old.opened]
        # Its outcome was counted by an earlier life: others know it from the incident.
        assert not nodes.document("node-2").outcomes()
        assert nodes.knowledge["node-2"].success_rate("drain") == 1.0
        assert nodes.knowledge["node-2"].goal("loss") == 0.5


async def test_a_crash_forgets_what_was_not_committed(autojump: AutojumpClock) -> None:
    async with fleet(2) as nodes:
        nodes.knowledge["node-1"].close(incident(1))
        nodes.crash("node-1")

        assert nodes.session.replica("node-1") is None
        with contextlib.suppress(AssertionError):
            await nodes.session.publish("node-1")
        nodes.restart("node-1")
        await nodes.publish()
        await asyncio.sleep(5.0)

        assert not nodes.document("node-1").incidents()
        assert not nodes.document("node-2").incidents()
