"""Which node manages which target: shares, and never two for one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import AsyncExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapek_domains.raft.etcd.fleet import digest, share, surplus, wanted
from mapek_domains.raft.etcd.session import EtcdSession
from mapek_domains.raft.etcd.store import KeyValue
from mapek_domains.raft.etcd.values import Managing, decoded
from tests.unit.raft_etcd.group import PREFIX, eventually, process, processes
from tests.unit.raft_etcd.memory_etcd import MemoryEtcd, MemoryServer

TARGETS = tuple(f"t{number}" for number in range(10))
names = st.sets(st.text(min_size=1, max_size=8), max_size=20)


def dealt_out(sessions: Sequence[EtcdSession], nodes: Sequence[str]) -> list[str]:
    """All that is owned, those that are owned twice twice."""
    return sorted(t for session, node in zip(sessions, nodes, strict=True) for t in session.owned(node))


@given(targets=st.integers(0, 1000), nodes=st.integers(1, 50))
def test_shares_are_enough_for_all_and_no_more_than_that(targets: int, nodes: int) -> None:
    assert (share(targets, nodes) - 1) * nodes < targets or targets == 0
    assert share(targets, nodes) * nodes >= targets


@given(mine=names, free=names, most=st.integers(0, 30), node=st.sampled_from(["a", "b"]))
def test_a_node_gives_back_and_takes_up_to_its_share(
    mine: set[str], free: set[str], most: int, node: str
) -> None:
    given_back = surplus(mine, most, node)
    taken = wanted(free - mine, len(mine) - len(given_back), most, node)

    assert len(given_back) == max(len(mine) - most, 0)
    assert set(given_back) <= mine
    assert len(taken) == min(len(free - mine), max(most - len(mine), 0))
    assert set(taken) <= free - mine


def test_the_order_of_a_list_makes_no_difference() -> None:
    assert digest(("a", "b")) == digest(("b", "a")) != digest(("a",))
    assert digest(()) == ""


@pytest.mark.usefixtures("autojump")
async def test_one_node_manages_all() -> None:
    async with process(MemoryEtcd(), "a", fleet=TARGETS) as session:
        await eventually(lambda: session.owned("a") == frozenset(TARGETS))


@pytest.mark.usefixtures("autojump")
async def test_nothing_is_shared_out_where_nothing_is_configured() -> None:
    etcd = MemoryEtcd()
    async with process(etcd, "a") as session:
        await asyncio.sleep(10.0)

        assert session.owned("a") == frozenset()
        assert not [key for key in etcd.pairs if "/fleet/" in key]


@pytest.mark.usefixtures("autojump")
async def test_nodes_that_join_get_their_share() -> None:
    etcd = MemoryEtcd()
    async with AsyncExitStack() as stack:
        sessions = []
        for count, node in enumerate("abcd", start=1):
            sessions.append(await stack.enter_async_context(process(etcd, node, fleet=TARGETS)))
            nodes = "abcd"[:count]
            await eventually(lambda nodes=nodes: dealt_out(sessions, nodes) == sorted(TARGETS))  # type: ignore[misc]
            most = -(-len(TARGETS) // count)
            await eventually(
                lambda nodes=nodes, most=most: all(  # type: ignore[misc]
                    len(session.owned(node)) <= most for session, node in zip(sessions, nodes, strict=True)
                )
            )


@pytest.mark.usefixtures("autojump")
async def test_what_a_silent_node_had_is_taken_over_and_never_owned_twice() -> None:
    etcd = MemoryEtcd()
    async with processes(etcd, "a", "b", "c", fleet=TARGETS) as sessions:
        await eventually(lambda: dealt_out(sessions, "abc") == sorted(TARGETS))
        lost = sessions[0].owned("a")
        sessions[0].crashed("a")
        while dealt_out(sessions[1:], "bc") != sorted(TARGETS):
            together = dealt_out(sessions, "abc")
            assert len(together) == len(set(together))
            await asyncio.sleep(0.01)

        taken = [
            (change.key, decoded(change.value, Managing).owner)
            for _, change in etcd.history
            if isinstance(change, KeyValue) and change.key.removeprefix(f"{PREFIX}/fleet/") in lost
        ]
        assert lost
        for target in lost:
            owners = [owner for key, owner in taken if key == f"{PREFIX}/fleet/{target}"]
            assert owners[-1] in "bc"
            assert owners.count("b") + owners.count("c") - (owners[0] in "bc") <= 2


@pytest.mark.usefixtures("autojump")
async def test_a_node_that_cannot_reach_etcd_stops_before_others_take_over() -> None:
    etcd = MemoryEtcd()
    server = MemoryServer(etcd)
    async with (
        process(etcd, "a", servers=[server], fleet=TARGETS) as a,
        process(etcd, "b", fleet=TARGETS) as b,
    ):
        await eventually(lambda: len(a.owned("a")) == len(b.owned("b")) == 5)
        server.hangs = True
        while len(b.owned("b")) < len(TARGETS):
            assert not a.owned("a") & b.owned("b")
            await asyncio.sleep(0.005)
        server.hangs = False
        await eventually(lambda: len(a.owned("a")) == len(b.owned("b")) == 5)

        assert dealt_out((a, b), "ab") == sorted(TARGETS)


@pytest.mark.usefixtures("autojump")
async def test_a_change_is_told_of_to_who_waits() -> None:
    etcd = MemoryEtcd()
    seen: list[frozenset[str]] = []
    async with process(etcd, "a", fleet=TARGETS) as a:

        async def follow() -> None:
            async for owned in a.own("a"):
                seen.append(owned)  # noqa: PERF401 - one by one, as they come

        following = asyncio.create_task(follow())
        await eventually(lambda: seen[-1:] == [frozenset(TARGETS)])
        async with process(etcd, "b", fleet=TARGETS):
            await eventually(lambda: len(seen[-1]) == 5)
        a.crashed("a")
        await eventually(lambda: not seen[-1])
        following.cancel()

    assert seen[0] == frozenset()


@pytest.mark.usefixtures("autojump")
async def test_nodes_with_other_targets_do_not_count() -> None:
    etcd = MemoryEtcd()
    async with (
        process(etcd, "a", fleet=TARGETS) as a,
        process(etcd, "b", fleet=("u",)) as b,
        process(etcd, "c"),
    ):
        await eventually(lambda: a.owned("a") == frozenset(TARGETS) and b.owned("b") == {"u"})


@pytest.mark.usefixtures("autojump")
async def test_a_target_that_holds_what_is_not_ours_is_nobodys() -> None:
    etcd = MemoryEtcd()
    etcd.put(f"{PREFIX}/fleet/t3", b"mine")
    async with process(etcd, "a", fleet=TARGETS) as session:
        await eventually(lambda: len(session.owned("a")) == 9)
        await asyncio.sleep(5.0)

        assert session.owned("a") == frozenset(TARGETS) - {"t3"}
        assert etcd.pairs[f"{PREFIX}/fleet/t3"].value == b"mine"


@pytest.mark.usefixtures("autojump")
@pytest.mark.parametrize("fault", ["refused", "lost", "late"])
async def test_answers_that_are_lost_change_nothing(fault: str) -> None:
    etcd = MemoryEtcd()
    server = MemoryServer(etcd)
    async with (
        process(etcd, "a", servers=[server], fleet=TARGETS) as a,
        process(etcd, "b", fleet=TARGETS) as b,
    ):
        for _ in range(10):
            server.faults["transact"] = deque([fault] * 3)
            await asyncio.sleep(3.0)
            assert not a.owned("a") & b.owned("b")
        server.faults.clear()
        await eventually(lambda: dealt_out((a, b), "ab") == sorted(TARGETS))
