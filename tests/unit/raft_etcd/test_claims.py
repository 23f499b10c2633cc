"""Claims: one transaction decides, and an answer that is lost changes nothing."""

from __future__ import annotations

import asyncio
from collections import deque

import pytest

from mapek_domains.raft.etcd.store import KeyValue
from mapek_domains.raft.etcd.values import Claim, decoded
from mapek_runtime.errors import NoConsensus
from mapek_runtime.testing import Recorder
from tests.unit.raft_etcd.group import PREFIX, eventually, leader, process
from tests.unit.raft_etcd.memory_etcd import MemoryEtcd, MemoryServer

pytestmark = pytest.mark.usefixtures("autojump")

KEY = "drain a~b"
PATH = f"{PREFIX}/claims/{KEY}"


async def test_the_first_to_ask_gets_it() -> None:
    etcd = MemoryEtcd()
    async with process(etcd, "a", "b") as session:
        first = await session.claim("a", KEY, hold=5.0)
        second = await session.claim("b", KEY, hold=5.0)

        assert first.granted
        assert first.owner == "a"
        assert first.fence == etcd.pairs[PATH].modified
        assert not second.granted
        assert (second.owner, second.fence) == ("a", 0)
        assert session.claims("b") == {KEY: "a"}


async def test_a_claim_ends_by_itself_and_not_before_its_time() -> None:
    loop = asyncio.get_running_loop()
    async with process(MemoryEtcd(), "a", "b") as session:
        asked = loop.time()
        grant = await session.claim("a", KEY, hold=2.5)
        await eventually(lambda: session.claims("b") == {})
        ended = loop.time()

        assert grant.until == asked + 2.5
        assert grant.until <= ended <= asked + 3.1
        assert (await session.claim("b", KEY, hold=1.0)).granted


async def test_the_owner_may_claim_again_and_fences_grow() -> None:
    etcd = MemoryEtcd()
    async with process(etcd, "a", "b") as session:
        first = await session.claim("a", KEY, hold=2.0)
        other = await session.claim("b", "another", hold=2.0)
        await asyncio.sleep(1.5)
        again = await session.claim("a", KEY, hold=2.0)
        await asyncio.sleep(1.5)

        assert first.fence < other.fence < again.fence
        assert again.until > first.until
        assert session.claims("b")[KEY] == "a"


@pytest.mark.parametrize("behind", [False, True], ids=["known", "not known yet"])
async def test_a_shorter_claim_does_not_cut_short_what_was_granted(behind: bool) -> None:
    async with process(MemoryEtcd(), "a", "b") as session:
        await session.claim("a", KEY, hold=10.0)
        if behind:
            session.engine.view.claims.known.clear()
        short = await session.claim("a", KEY, hold=1.0)
        now = asyncio.get_running_loop().time()
        await asyncio.sleep(8.0)

        assert short.until == pytest.approx(now + 1.0, abs=0.1)
        assert not (await session.claim("b", KEY, hold=1.0)).granted


async def test_a_release_lets_others_have_it_at_once() -> None:
    etcd = MemoryEtcd()
    async with process(etcd, "a", "b") as session:
        grant = await session.claim("a", KEY, hold=60.0)
        await session.release("a", KEY, fence=grant.fence)

        assert session.claims("a") == {}
        assert (await session.claim("b", KEY, hold=60.0)).granted


@pytest.mark.parametrize("who", ["a", "b"])
async def test_a_release_of_another_grant_changes_nothing(who: str) -> None:
    async with process(MemoryEtcd(), "a", "b") as session:
        first = await session.claim("a", KEY, hold=60.0)
        second = await session.claim("a", KEY, hold=60.0)
        await session.release("a", KEY, fence=first.fence)
        if who == "b":
            await session.release("b", KEY, fence=second.fence)

        assert session.claims("a") == {KEY: "a"}


async def test_only_the_leader_gets_what_is_for_the_leader() -> None:
    async with process(MemoryEtcd(), "a", "b") as session:
        leads = await leader(session, "a")
        other = "b" if leads == "a" else "a"
        refused = await session.claim(other, KEY, hold=5.0, leader_only=True)
        granted = await session.claim(leads, KEY, hold=5.0, leader_only=True)

        assert not refused.granted
        assert refused.reason == f"only the leader may have it, and {leads} leads"
        assert granted.granted
        assert granted.term == refused.term == session.engine.standing("a").term


async def test_a_leader_whose_life_is_over_in_etcd_is_refused() -> None:
    etcd = MemoryEtcd()
    async with process(etcd, "a") as session:
        await leader(session, "a")
        etcd.delete(f"{PREFIX}/leader")
        grant = await session.claim("a", KEY, hold=5.0, leader_only=True)
        again = await leader(session, "a")

        assert not grant.granted or grant.term == session.engine.standing("a").term
        assert again == "a"


@pytest.mark.parametrize("fault", ["refused", "lost", "late"])
async def test_a_claim_whose_answer_is_lost_is_granted_once(fault: str) -> None:
    etcd = MemoryEtcd()
    server = MemoryServer(etcd)
    async with process(etcd, "a", servers=[server], patience=5.0) as session:
        await leader(session, "a")
        server.faults["transact"] = deque([fault])
        grant = await session.claim("a", KEY, hold=30.0)
        await asyncio.sleep(5.0)

        assert grant.granted
        assert grant.fence == etcd.pairs[PATH].modified
        assert [c for _, c in etcd.history if c.key == PATH] == [etcd.pairs[PATH]]


async def test_a_grant_whose_answer_is_lost_is_of_the_term_in_which_it_was_given() -> None:
    etcd = MemoryEtcd()
    server = MemoryServer(etcd)
    async with process(etcd, "a", servers=[server], patience=5.0) as session:
        await leader(session, "a")
        term = session.engine.standing("a").term
        server.faults["transact"] = deque(["lost"])
        async with asyncio.TaskGroup() as group:
            claim = group.create_task(session.claim("a", KEY, hold=30.0, leader_only=True))
            await asyncio.sleep(0.1)
            etcd.delete(f"{PREFIX}/leader")
            await leader(session, "a")

        assert session.engine.standing("a").term > term
        assert claim.result().term == term


async def test_what_is_on_its_way_when_a_claim_is_released_does_not_bring_it_back() -> None:
    etcd = MemoryEtcd()
    server = MemoryServer(etcd)
    server.late = 3.0
    async with process(etcd, "a", servers=[server], patience=5.0) as session:
        await leader(session, "a")
        server.faults["transact"] = deque(["late"])
        grant = await session.claim("a", KEY, hold=30.0)
        await session.release("a", KEY, fence=grant.fence)
        await asyncio.sleep(10.0)

        assert session.claims("a") == {}
        assert PATH not in etcd.pairs


async def test_what_is_on_its_way_when_a_claim_is_refused_does_not_come_to_pass() -> None:
    etcd = MemoryEtcd()
    server = MemoryServer(etcd)
    server.late = 3.0
    async with process(etcd, "a", servers=[server], patience=5.0) as a, process(etcd, "b") as b:
        await leader(a, "a")
        leases = set(etcd.leases)
        server.faults["transact"] = deque(["late"])
        server.faults["revoke"] = deque(["refused"] * 5)
        async with asyncio.TaskGroup() as group:
            late = group.create_task(a.claim("a", KEY, hold=30.0))
            await asyncio.sleep(0.1)
            first = await b.claim("b", KEY, hold=30.0)
        left = set(etcd.leases) - leases
        await b.release("b", KEY, fence=first.fence)
        await asyncio.sleep(10.0)

        assert not late.result().granted
        assert left == {c.lease for _, c in etcd.history if c.key == PATH and isinstance(c, KeyValue)}
        assert b.claims("b") == {}


async def test_after_a_grant_the_node_knows_of_it_however_late_its_view_is() -> None:
    etcd = MemoryEtcd()
    server = MemoryServer(etcd)
    async with process(etcd, "a", servers=[server], patience=5.0) as session:
        await leader(session, "a")
        server.break_watches()
        server.faults["read"] = deque(["refused"] * 10)
        await session.claim("a", KEY, hold=5.0)

        assert session.claims("a") == {KEY: "a"}


async def test_without_an_answer_there_is_no_consensus_and_asking_again_is_safe() -> None:
    etcd = MemoryEtcd()
    server = MemoryServer(etcd)
    async with process(etcd, "a", servers=[server]) as session:
        await leader(session, "a")
        server.hangs = True
        began = asyncio.get_running_loop().time()
        with pytest.raises(NoConsensus, match=r"no majority of the etcd servers answers \(a:1: "):
            await session.claim("a", KEY, hold=5.0)
        waited = asyncio.get_running_loop().time() - began
        server.hangs = False
        grant = await session.claim("a", KEY, hold=5.0)

        assert waited == pytest.approx(1.0)
        assert grant.granted


async def test_a_lease_that_ended_under_a_claim_is_made_anew() -> None:
    etcd = MemoryEtcd()
    server = MemoryServer(etcd)
    server.late = 2.0
    async with process(etcd, "a", servers=[server], patience=20.0) as session:
        await leader(session, "a")
        # The lease of one second is over before the transaction comes through.
        server.faults["transact"] = deque(["refused"] * 30)
        grant = await session.claim("a", KEY, hold=1.0)

        assert grant.granted
        assert asyncio.get_running_loop().time() < grant.until


async def test_no_lease_is_left_behind_by_claims_that_came_to_nothing() -> None:
    etcd = MemoryEtcd()
    async with process(etcd, "a", "b") as session:
        await leader(session, "a")
        before = len(etcd.leases)
        grant = await session.claim("a", KEY, hold=60.0)
        for _ in range(5):
            await session.claim("b", KEY, hold=60.0)
            grant = await session.claim("a", KEY, hold=60.0)
        await eventually(lambda: len(etcd.leases) == before + 1)
        await session.release("a", KEY, fence=grant.fence)

        assert len(etcd.leases) == before


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x80\x04K\x01.",
        b"",
        b"{}",
        b'{"v":2,"owner":"a","request":"r","seconds":5}',
        b'{"v":1,"owner":1,"request":"r","seconds":5}',
        b"x" * 100_000,
    ],
    ids=["a pickle", "nothing", "no fields", "a newer format", "a wrong type", "oversized"],
)
async def test_what_somebody_else_wrote_is_left_alone(garbage: bytes) -> None:
    etcd = MemoryEtcd()
    async with process(etcd, "a") as session:
        etcd.put(PATH, garbage)
        grant = await session.claim("a", KEY, hold=5.0)

        assert not grant.granted
        assert "what is not this runtime's" in grant.reason
        assert session.claims("a") == {}
        assert etcd.pairs[PATH].value == garbage
        assert sum(session.engine.view.refused.values()) == 1


async def test_a_commit_is_told_with_the_revision_that_etcd_has(recorder: Recorder) -> None:
    etcd = MemoryEtcd()
    async with process(etcd, "a", "b") as session:
        await leader(session, "a")
        recorder.clear()
        grant = await session.claim("a", KEY, hold=5.0)
        await session.claim("b", KEY, hold=5.0)
        await session.release("a", KEY, fence=grant.fence)

    taken, refused, released = recorder.named("raft.commit")
    assert taken.attributes == {"entries": 1, "commit_index": grant.fence}
    assert (refused.attributes or {})["entries"] == 0
    (gone,) = (at for at, c in etcd.history if c.key == PATH and at > grant.fence)
    assert released.attributes == {"entries": 1, "commit_index": gone}


async def test_a_value_says_who_has_it_and_no_more() -> None:
    etcd = MemoryEtcd()
    async with process(etcd, "a") as session:
        await session.claim("a", KEY, hold=5.0)
        claim = decoded(etcd.pairs[PATH].value, Claim)

        assert (claim.v, claim.owner, claim.seconds) == (1, "a", 5)
        assert len(claim.request) == 16
