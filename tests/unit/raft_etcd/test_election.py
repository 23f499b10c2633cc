"""Who leads: one node a term, another soon after it falls silent, and never one whose life is over."""

from __future__ import annotations

import asyncio
import logging
from collections import deque

import pytest
from opentelemetry.trace import StatusCode

from mapek_runtime.testing import Recorder
from tests.unit.raft_etcd.group import PREFIX, eventually, leader, process, processes
from tests.unit.raft_etcd.memory_etcd import MemoryEtcd, MemoryServer

pytestmark = pytest.mark.usefixtures("autojump")

LEADER = f"{PREFIX}/leader"


async def test_one_of_the_nodes_leads_and_all_know_it() -> None:
    async with process(MemoryEtcd(), "a", "b", "c") as session:
        leads = await leader(session, "a")

        assert {session.leader(node) for node in ("a", "b", "c")} == {leads}


async def test_a_leader_that_crashes_is_followed_by_another_in_a_later_term() -> None:
    async with process(MemoryEtcd(), "a", "b") as session:
        first = await leader(session, "a")
        term = session.engine.standing(first).term
        session.crashed(first)
        other = "b" if first == "a" else "a"
        second = await leader(session, other, first)

        assert second == other
        assert session.engine.standing(other).term > term
        assert session.leader(first) is None


async def test_a_crashed_node_that_led_is_not_taken_for_the_leader_any_more() -> None:
    async with process(MemoryEtcd(), "a", "b") as session:
        first = await leader(session, "a")
        other = "b" if first == "a" else "a"
        session.crashed(first)

        assert session.leader(other) is None


async def test_a_node_that_comes_back_leads_in_its_new_life_only() -> None:
    etcd = MemoryEtcd()
    async with process(etcd, "a") as session:
        await leader(session, "a")
        before = etcd.pairs[LEADER]
        session.crashed("a")
        session.restarted("a")
        at_once = session.leader("a")
        await leader(session, "a")

        assert at_once is None
        assert etcd.pairs[LEADER].created > before.created
        assert etcd.pairs[LEADER].value != before.value


async def test_a_leader_takes_its_leave_at_the_end() -> None:
    etcd = MemoryEtcd()
    async with process(etcd, "a") as a:
        async with process(etcd, "b") as b:
            await asyncio.sleep(1.0)
            first = await leader(a, "a")
            assert b.leader("b") == first
        if first == "b":
            await leader(a, "a", "b")
        leads = a.leader("a")

    assert leads == "a"
    assert etcd.pairs == {}


async def test_a_leader_that_cannot_reach_etcd_stops_before_another_begins() -> None:
    etcd = MemoryEtcd()
    server = MemoryServer(etcd)
    async with process(etcd, "a", servers=[server]) as a, process(etcd, "b") as b:
        if await leader(a, "a") != "a":
            b.crashed("b")
            await leader(a, "a", "b")
            b.restarted("b")
        server.hangs = True
        both = False
        while b.leader("b") != "b":
            both = both or (a.leader("a") == "a" and b.leader("b") == "b")
            await asyncio.sleep(0.01)

        assert not both
        assert a.leader("a") is None
        server.hangs = False
        assert await leader(a, "a") == "b"


async def test_a_leader_that_cannot_keep_its_lease_stops_before_etcd_has_noticed() -> None:
    etcd = MemoryEtcd()
    server = MemoryServer(etcd)
    async with process(etcd, "a", servers=[server]) as session:
        await leader(session, "a")
        # Its view goes on, and etcd has not come to it yet.
        server.faults["keep_alive"] = deque(["refused"] * 1000)
        ((lease, (_, timer)),) = etcd.leases.items()
        timer.cancel()
        await asyncio.sleep(3.0)

        assert LEADER in etcd.pairs
        assert etcd.pairs[LEADER].lease == lease
        assert session.leader("a") is None


async def test_a_leader_that_was_out_of_reach_for_a_moment_leads_on() -> None:
    etcd = MemoryEtcd()
    server = MemoryServer(etcd)
    async with process(etcd, "a", servers=[server]) as session:
        await leader(session, "a")
        term = session.engine.standing("a").term
        server.hangs = True
        await asyncio.sleep(0.9)
        server.hangs = False
        await asyncio.sleep(5.0)

        assert session.leader("a") == "a"
        assert session.engine.standing("a").term == term


async def test_a_leader_that_etcd_has_kept_longer_than_promised_leads_on_in_its_term() -> None:
    etcd = MemoryEtcd()
    server = MemoryServer(etcd)
    async with process(etcd, "a", servers=[server]) as session:
        await leader(session, "a")
        term = session.engine.standing("a").term
        # As etcd does when its own leader changes.
        (lease,) = etcd.leases
        seconds, timer = etcd.leases[lease]
        timer.cancel()
        server.hangs = True
        await asyncio.sleep(10.0)
        meanwhile = session.leader("a")
        server.hangs = False
        await leader(session, "a")

        assert meanwhile is None
        assert seconds == 2
        assert session.engine.standing("a").term == term


async def test_a_campaign_is_a_trace_of_its_own_with_the_revision_as_term(recorder: Recorder) -> None:
    etcd = MemoryEtcd()
    async with processes(etcd, "a", "b") as (a, b):
        leads = await leader(a, "a")
        await leader(b, "b")
        term = etcd.pairs[LEADER].created

    spans = recorder.named("raft.leader_election")
    (won,) = (span for span in spans if (span.attributes or {})["won"])
    assert won.parent is None
    assert won.attributes == {
        "term": term,
        "candidate_id": leads,
        "won": True,
        "etcd.raft_term": etcd.raft_term,
    }
    assert {(span.attributes or {})["candidate_id"] for span in spans} <= {"a", "b"}


async def test_a_campaign_whose_answer_is_lost_is_won_once(recorder: Recorder) -> None:
    etcd = MemoryEtcd()
    server = MemoryServer(etcd)
    async with process(etcd, "a", servers=[server]) as session:
        # The name, and then the leadership.
        server.faults["transact"] = deque(["", "lost"])
        await eventually(lambda: session.engine.statistics("a").get("elections.won"))
        term = session.engine.standing("a").term

    span = recorder.one("raft.leader_election")
    assert (span.attributes or {})["won"] is True
    assert (span.attributes or {})["term"] == term
    assert len({change.key for _, change in etcd.history if change.key == LEADER}) == 1


async def test_a_campaign_that_nobody_answers_fails_and_another_follows(recorder: Recorder) -> None:
    etcd = MemoryEtcd()
    server = MemoryServer(etcd)
    async with process(etcd, "a", servers=[server]) as session:
        server.faults["transact"] = deque(["", *["refused"] * 200])
        await leader(session, "a")

    first, *_, last = recorder.named("raft.leader_election")
    assert first.status.status_code is StatusCode.ERROR
    assert last.status.status_code is StatusCode.UNSET


async def test_nobody_leads_while_the_leadership_holds_what_is_not_ours(
    caplog: pytest.LogCaptureFixture,
) -> None:
    etcd = MemoryEtcd()
    etcd.put(LEADER, b"somebody")
    async with process(etcd, "a") as session:
        await asyncio.sleep(10.0)
        meanwhile = session.leader("a")
        etcd.delete(LEADER)
        await leader(session, "a")

    assert meanwhile is None
    assert len([r for r in caplog.records if "not this runtime's" in r.getMessage()]) == 1


async def test_two_processes_of_one_name_are_told_of_and_one_of_them_leads(
    caplog: pytest.LogCaptureFixture,
) -> None:
    etcd = MemoryEtcd()
    async with process(etcd, "a") as first:
        await leader(first, "a")
        async with process(etcd, "a") as second:
            await asyncio.sleep(10.0)

            assert first.leader("a") == "a"
            assert second.leader("a") is None
    warnings = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "another process lives in etcd under the name 'a'" in warnings[0].getMessage()


async def test_a_life_that_etcd_gave_up_is_followed_by_another() -> None:
    etcd = MemoryEtcd()
    async with process(etcd, "a") as session:
        await leader(session, "a")
        for lease in tuple(etcd.leases):
            etcd.revoke(lease)
        await eventually(lambda: LEADER in etcd.pairs)
        await leader(session, "a")

        assert session.engine.statistics("a")["lives"] == 2


async def test_etcd_that_is_silent_has_no_leader_that_is_known() -> None:
    etcd = MemoryEtcd()
    server = MemoryServer(etcd)
    async with process(etcd, "a") as a, process(etcd, "b", servers=[server]) as b:
        await leader(a, "a")
        if a.leader("a") == "b":
            b.crashed("b")
            await leader(a, "a", "b")
            b.restarted("b")
        await leader(b, "b")
        server.hangs = True
        await asyncio.sleep(3.0)

        assert a.leader("a") == "a"
        assert b.leader("b") is None
