"""Configuration: of two changes at a time one is second, and each is done once."""

from __future__ import annotations

import asyncio
from collections import deque

import pytest

from mapek_runtime.errors import MapekError, NoConsensus
from mapek_runtime.testing import Recorder
from tests.unit.raft_etcd.group import PREFIX, leader, process, processes
from tests.unit.raft_etcd.memory_etcd import MemoryEtcd, MemoryServer

pytestmark = pytest.mark.usefixtures("autojump")

PATH = f"{PREFIX}/configuration/mode"


async def test_its_epoch_grows_by_one_with_each_change() -> None:
    async with process(MemoryEtcd(), "a", "b") as session:
        before = session.configured("a", "mode")
        epochs = [await session.configure("a", "mode", value) for value in ("x", "y", "x")]

        assert before == ("", 0)
        assert epochs == [1, 2, 3]
        assert session.configured("b", "mode") == ("x", 3)


async def test_the_value_that_it_has_is_no_change(recorder: Recorder) -> None:
    etcd = MemoryEtcd()
    async with process(etcd, "a") as session:
        await leader(session, "a")
        await session.configure("a", "mode", "x")
        revision = etcd.revision
        recorder.clear()

        assert await session.configure("a", "mode", "x") == 1
        assert await session.configure("a", "mode", "x", expected=1) == 1
        assert etcd.revision == revision
        assert [(s.attributes or {})["entries"] for s in recorder.named("raft.commit")] == [0, 0]


async def test_a_process_that_does_not_know_of_a_change_yet_asks_etcd() -> None:
    etcd = MemoryEtcd()
    async with processes(etcd, "a", "b") as (a, b):
        await a.configure("a", "mode", "x")
        # A view that is behind.
        known = b.engine.view.configuration.known.pop("mode", None)
        epochs = await b.configure("b", "mode", "x"), await b.configure("b", "mode", "y")

        assert known is not None or not b.engine.view.configuration.known
        assert epochs == (1, 2)


@pytest.mark.parametrize("expected", [0, 2, 7])
async def test_a_change_of_another_epoch_than_expected_is_refused(expected: int) -> None:
    etcd = MemoryEtcd()
    async with process(etcd, "a") as session:
        await session.configure("a", "mode", "x")
        with pytest.raises(MapekError, match=f"is of epoch 1, and {expected} was expected"):
            await session.configure("a", "mode", "y", expected=expected)

        assert session.configured("a", "mode") == ("x", 1)


async def test_a_first_value_may_be_wanted_to_be_the_first() -> None:
    async with process(MemoryEtcd(), "a") as session:
        assert await session.configure("a", "mode", "x", expected=0) == 1


async def test_changes_at_the_same_time_all_happen_one_after_the_other() -> None:
    async with process(MemoryEtcd(), "a", "b") as session:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(session.configure(node, "mode", f"{node}{i}"))
                for node in ("a", "b")
                for i in range(5)
            ]

        assert sorted(task.result() for task in tasks) == list(range(1, 11))


@pytest.mark.parametrize("fault", ["refused", "lost", "late"])
async def test_a_change_whose_answer_is_lost_is_made_once(fault: str) -> None:
    etcd = MemoryEtcd()
    server = MemoryServer(etcd)
    async with process(etcd, "a", servers=[server], patience=5.0) as session:
        await leader(session, "a")
        server.faults["transact"] = deque([fault])
        epoch = await session.configure("a", "mode", "x")
        await asyncio.sleep(5.0)

        assert epoch == 1
        assert session.configured("a", "mode") == ("x", 1)
        assert etcd.pairs[PATH].version == 1


async def test_a_change_whose_answer_is_lost_is_found_in_the_history_when_others_follow() -> None:
    etcd = MemoryEtcd()
    server = MemoryServer(etcd)
    async with process(etcd, "a", servers=[server], patience=5.0) as a, process(etcd, "b") as b:
        await leader(a, "a")
        server.faults["transact"] = deque(["lost"])
        async with asyncio.TaskGroup() as group:
            first = group.create_task(a.configure("a", "mode", "x", expected=0))
            await asyncio.sleep(0.1)
            others = [await b.configure("b", "mode", value) for value in ("y", "z")]

        assert first.result() == 1
        assert others == [2, 3]
        assert a.configured("a", "mode") == ("z", 3)


async def test_a_change_that_never_came_is_made_after_those_of_others() -> None:
    etcd = MemoryEtcd()
    server = MemoryServer(etcd)
    server.late = 100.0
    async with process(etcd, "a", servers=[server], patience=5.0) as a, process(etcd, "b") as b:
        await leader(a, "a")
        server.faults["transact"] = deque(["late"])
        async with asyncio.TaskGroup() as group:
            first = group.create_task(a.configure("a", "mode", "x"))
            await asyncio.sleep(0.1)
            await b.configure("b", "mode", "y")
            await b.configure("b", "mode", "z")
        await asyncio.sleep(200.0)

        assert first.result() == 3
        assert a.configured("a", "mode") == ("x", 3)


async def test_what_nobody_can_know_any_more_is_no_consensus() -> None:
    etcd = MemoryEtcd()
    server = MemoryServer(etcd)
    async with process(etcd, "a", servers=[server], patience=5.0) as a, process(etcd, "b") as b:
        await leader(a, "a")
        server.faults["transact"] = deque(["lost"])
        refused: list[NoConsensus] = []

        async def ask() -> None:
            try:
                await a.configure("a", "mode", "x")
            except NoConsensus as error:
                refused.append(error)

        async with asyncio.TaskGroup() as group:
            group.create_task(ask())
            await asyncio.sleep(0.1)
            await b.configure("b", "mode", "y")
            await b.configure("b", "mode", "z")
            etcd.compacted = etcd.revision

        assert "has compacted the history" in str(refused[0])


async def test_what_somebody_else_wrote_is_left_alone() -> None:
    etcd = MemoryEtcd()
    async with process(etcd, "a") as session:
        etcd.put(PATH, b'{"v":1,"value":17}')
        with pytest.raises(MapekError, match="what is not this runtime's, and it is left alone"):
            await session.configure("a", "mode", "x")

        assert session.configured("a", "mode") == ("", 0)


async def test_a_change_is_told_with_its_revision(recorder: Recorder) -> None:
    etcd = MemoryEtcd()
    async with process(etcd, "a") as session:
        await leader(session, "a")
        recorder.clear()
        await session.configure("a", "mode", "x")

        assert recorder.one("raft.commit").attributes == {
            "entries": 1,
            "commit_index": etcd.pairs[PATH].modified,
        }
