"""A cluster behind one client: who is asked, who is asked next, and what it says when nobody answers."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Sequence

import pytest

from mapek_domains.raft.etcd.client import EtcdClient, opened
from mapek_domains.raft.etcd.settings import EtcdEngine
from mapek_domains.raft.etcd.store import CallFailed, Get, LeaseGone, Put
from mapek_runtime.errors import EngineUnavailable
from tests.unit.raft_etcd.memory_etcd import MemoryEtcd, MemoryServer


def three(etcd: MemoryEtcd) -> list[MemoryServer]:
    return [MemoryServer(etcd, f"{name}:1") for name in "abc"]


def asked(servers: Sequence[MemoryServer]) -> list[int]:
    return [sum(server.calls.values()) for server in servers]


@pytest.mark.usefixtures("autojump")
async def test_one_server_is_asked_as_long_as_it_answers() -> None:
    servers = three(MemoryEtcd())
    client = EtcdClient(servers, first=4)
    for _ in range(5):
        await client.transact((), (Get("k"),))

    assert asked(servers) == [0, 5, 0]


@pytest.mark.usefixtures("autojump")
async def test_the_next_one_is_asked_when_it_fails() -> None:
    servers = three(MemoryEtcd())
    servers[0].down = True
    client = EtcdClient(servers)
    for _ in range(5):
        await client.transact((), (Get("k"),))

    assert asked(servers) == [1, 5, 0]
    assert client.trouble == "a:1: refused"


@pytest.mark.usefixtures("autojump")
async def test_a_hung_server_costs_all_calls_one_limit_together() -> None:
    servers = three(MemoryEtcd())
    servers[0].hangs = True
    client = EtcdClient(servers)
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(client.transact((), (Get("k"),)))
    took = loop.time() - began
    await client.transact((), (Get("k"),))

    assert took < 0.6
    assert asked(servers) == [20, 21, 0]


@pytest.mark.usefixtures("autojump")
async def test_it_asks_until_somebody_answers() -> None:
    servers = three(MemoryEtcd())
    for server in servers:
        server.down = True
    client = EtcdClient(servers)
    asking = asyncio.create_task(client.transact((), (Get("k"),)))
    await asyncio.sleep(10.0)
    servers[1].down = False
    answer = await asking

    assert answer.attempts > 100
    assert answer.attempts < 1000
    assert client.counts["calls_failed"] == answer.attempts - 1


@pytest.mark.usefixtures("autojump")
async def test_what_every_server_would_refuse_is_not_asked_again() -> None:
    servers = three(MemoryEtcd())
    client = EtcdClient(servers)
    with pytest.raises(LeaseGone):
        await client.transact((), (Put("k", b"v", 7),))
    with pytest.raises(LeaseGone):
        await client.keep_alive(7)

    assert asked(servers) == [2, 0, 0]


@pytest.mark.usefixtures("autojump")
async def test_a_watch_that_breaks_turns_the_others_away_too() -> None:
    servers = three(MemoryEtcd())
    client = EtcdClient(servers)

    async def follow() -> None:
        async with client.watch("/", 1) as batches:
            servers[0].hangs = True
            async for _ in batches:
                pass

    with pytest.raises(CallFailed, match="fallen silent"):
        await follow()
    await client.transact((), (Get("k"),))

    assert servers[0].calls["transact"] == 0
    assert servers[1].calls["transact"] == 1


@pytest.mark.usefixtures("autojump")
async def test_a_lost_answer_is_known_by_the_number_of_attempts() -> None:
    server = MemoryServer(MemoryEtcd())
    server.faults["transact"] = deque(["lost"])
    client = EtcdClient([server])

    assert (await client.transact((), (Get("k"),))).attempts == 2
    assert (await client.transact((), (Get("k"),))).attempts == 1


async def test_without_aetcd_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("grpc_server", "messages", "access"):
        monkeypatch.delitem(sys.modules, f"mapek_domains.raft.etcd.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "aetcd", None)
    with pytest.raises(EngineUnavailable) as caught:
        async with opened(EtcdEngine(), "a"):
            pass

    said = str(caught.value)
    assert said.startswith("raft: engine 'etcd' needs the package aetcd, which cannot be imported")
    assert "pip install 'mapek-runtime[etcd]'" in said
    assert "'embedded' is the default" in said
