"""The etcd engine while its servers and its processes are killed, hang, and come back.

Nothing here asserts how fast that goes: `python -m benchmarks.raft` measures it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aetcd
import pytest

from mapek_domains.raft.etcd.session import EtcdSession
from mapek_runtime.errors import EngineUnavailable, NoConsensus
from tests.integration.etcd_cluster import EtcdCluster, require_etcd
from tests.integration.etcd_session import eventually, leader, serving, session

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
TARGETS = tuple(f"target-{number}" for number in range(12))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    try:
        require_etcd()
    except EngineUnavailable as error:
        pytest.skip(str(error))
    with EtcdCluster(tmp_path_factory.mktemp("etcd")) as servers:
        yield servers


@pytest.fixture(autouse=True)
def all_servers_run(cluster: EtcdCluster) -> Iterator[None]:
    yield
    cluster.restore()


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    """A fleet of its own for each test."""
    return f"/{quote(request.node.name[:100], safe='').replace('%', '-')}"


@pytest.mark.slow
async def test_a_server_that_hangs_is_passed_over(cluster: EtcdCluster, prefix: str) -> None:
    async with session(cluster, prefix, "a", "b", patience=20.0) as consensus:
        await leader(consensus, "a")
        for number in range(3):
            server = serving(cluster, consensus)
            server.pause()
            grant = await consensus.claim("a", f"key {number}", hold=30.0)
            epoch = await consensus.configure("b", "mode", f"{number}")
            assert serving(cluster, consensus) is not server
            server.resume()

            assert grant.granted
            assert epoch == number + 1


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
async def test_etcds_leader_is_killed_and_nothing_is_lost(
    cluster: EtcdCluster, prefix: str, kills: int
) -> None:
    async with session(cluster, prefix, "a", "b", patience=30.0) as consensus:
        await leader(consensus, "a")
        fences = []
        for number in range(kills):
            killed = await asyncio.to_thread(cluster.leader)
            killed.kill()
            grant = await consensus.claim("a", f"key {number}", hold=600.0)
            fences.append(grant.fence)
            epoch = await consensus.configure("a", "round", f"{number}")
            await asyncio.to_thread(cluster.restore)

            assert grant.granted
            assert epoch == number + 1
        await leader(consensus, "a")
        assert fences == sorted(set(fences))
        assert consensus.claims("b", "key") == {f"key {number}": "a" for number in range(kills)}


async def test_a_minority_decides_nothing_and_goes_on_when_the_others_are_back(
    cluster: EtcdCluster, prefix: str
) -> None:
    async with session(cluster, prefix, "a", patience=1.0) as consensus:
        await leader(consensus, "a")
        grant = await consensus.claim("a", "key", hold=600.0)
        for server in cluster.servers[:2]:
            server.kill()
        with pytest.raises(NoConsensus, match="no majority of the etcd servers answers"):
            await consensus.claim("a", "another", hold=600.0)
        with pytest.raises(NoConsensus):
            await consensus.release("a", "key", fence=grant.fence)
        await eventually(lambda: consensus.leader("a") is None)
        await asyncio.to_thread(cluster.restore)
        await leader(consensus, "a")
        again = await asked_until_answered(consensus, "a", "another")

        assert again


@pytest.mark.slow
async def test_a_majority_that_hangs_decides_nothing_either(cluster: EtcdCluster, prefix: str) -> None:
    async with session(cluster, prefix, "a", patience=1.0) as consensus:
        await leader(consensus, "a")
        for server in cluster.servers[1:]:
            server.pause()
        with pytest.raises(NoConsensus):
            await consensus.claim("a", "key", hold=600.0)
        await eventually(lambda: consensus.leader("a") is None)
        for server in cluster.servers[1:]:
            server.resume()
        await leader(consensus, "a")

        assert await asked_until_answered(consensus, "a", "key")


async def test_a_leading_process_that_is_killed_is_followed_by_another(
    cluster: EtcdCluster, prefix: str
) -> None:
    async with runtime(cluster, prefix, "a") as (killed, told):
        await eventually(lambda: told and told[-1]["leads"] and len(told[-1]["owned"]) == len(TARGETS))
        async with session(cluster, prefix, "b", fleet=TARGETS, patience=20.0) as consensus:
            assert await leader(consensus, "b") == "a"
            term = consensus.engine.standing("b").term
            await eventually(lambda: len(consensus.owned("b")) == len(TARGETS) // 2)
            killed.kill()
            await leader(consensus, "b", "a")
            await eventually(lambda: consensus.owned("b") == frozenset(TARGETS))

            assert consensus.leader("b") == "b"
            assert consensus.engine.standing("b").term > term


async def test_a_process_that_stood_still_does_not_lead_or_manage_when_it_goes_on(
    cluster: EtcdCluster, prefix: str
) -> None:
    async with runtime(cluster, prefix, "a") as (stopped, a):
        await eventually(lambda: a and a[-1]["leads"] and len(a[-1]["owned"]) == len(TARGETS))
        async with runtime(cluster, prefix, "b") as (_, b):
            await eventually(lambda: b and len(b[-1]["owned"]) == len(a[-1]["owned"]) == 6)
            stopped.send_signal(signal.SIGSTOP)
            await eventually(lambda: b[-1]["leads"] and len(b[-1]["owned"]) == len(TARGETS))
            stopped.send_signal(signal.SIGCONT)
            await eventually(lambda: not a[-1]["leads"] and len(b[-1]["owned"]) == len(a[-1]["owned"]) == 6)

    for target in (None, *TARGETS):
        for first in spans_of(a, target):
            for second in spans_of(b, target):
                assert first[1] <= second[0] or second[1] <= first[0], (target, first, second)


async def test_three_runtimes_share_a_fleet_and_take_over_what_one_had(
    cluster: EtcdCluster, prefix: str
) -> None:
    nodes = ("a", "b", "c")
    async with AsyncExitStack() as stack:
        sessions = {
            node: await stack.enter_async_context(session(cluster, prefix, node, fleet=TARGETS))
            for node in nodes
        }

        def shares() -> list[int]:
            return [len(each.owned(node)) for node, each in sessions.items()]

        await eventually(lambda: shares() == [4, 4, 4])
        lost = sessions["a"].owned("a")
        sessions["a"].crashed("a")
        while sorted(shares()) != [0, 6, 6]:
            owned = [target for node, each in sessions.items() for target in each.owned(node)]
            assert len(owned) == len(set(owned))
            await asyncio.sleep(0.005)
        sessions["a"].restarted("a")
        await eventually(lambda: shares() == [4, 4, 4])
        history = await owners(cluster, f"{prefix}/fleet/")

    assert len(lost) == 4
    assert set(history) == set(TARGETS)
    for target, changes in history.items():
        # Each owner of a target begins after the one before has ended, at every revision that there was.
        for before, after in pairwise(changes):
            assert (before == "") != (after == ""), (target, changes)
    for target in lost:
        assert history[target].count("b") + history[target].count("c") >= 1


async def asked_until_answered(consensus: EtcdSession, node: str, key: str) -> bool:
    """Ask again until a majority answers; whether it was granted."""
    for _ in range(30):
        try:
            return (await consensus.claim(node, key, hold=30.0)).granted
        except NoConsensus:
            continue
    return False


async def owners(cluster: EtcdCluster, prefix: str) -> dict[str, list[str]]:
    """Of each target all owners there ever were, empty for none, as another client is told by etcd."""
    found: dict[str, list[str]] = defaultdict(list)
    host, _, port = cluster.endpoints[0].rpartition(":")
    async with aetcd.Client(host=host, port=int(port), timeout=20) as client:
        await client.put(f"{prefix}the end".encode(), b"")
        async for event in await client.watch_prefix(prefix.encode(), start_revision=1):
            target = event.kv.key.decode().removeprefix(prefix)
            if target == "the end":
                return found
            found[target].append(json.loads(event.kv.value)["owner"] if event.kind == "PUT" else "")
    raise AssertionError("the end did not come")


def spans_of(told: Sequence[dict[str, Any]], target: str | None) -> Iterator[tuple[float, float]]:
    """When a process led (`target` None) or managed a target: from each line that says so to the last look
    before the next one."""
    for line, after in pairwise([*told, {"leads": False, "owned": [], "last": float("inf")}]):
        if line["leads"] if target is None else target in line["owned"]:
            yield line["at"], after["last"]


@asynccontextmanager
async def runtime(
    cluster: EtcdCluster, prefix: str, node: str
) -> AsyncIterator[tuple[asyncio.subprocess.Process, list[dict[str, Any]]]]:
    """A process of its own with that node, and what it says."""
    told: list[dict[str, Any]] = []
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.integration.etcd_runtime", node, prefix, ",".join(TARGETS),
        *cluster.endpoints,
        stdout=asyncio.subprocess.PIPE, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "domains")))},
    )  # fmt: skip
    assert process.stdout is not None
    stdout = process.stdout

    async def listen() -> None:
        async for line in stdout:
            told.append(json.loads(line))  # noqa: PERF401 - one by one, as they come

    async with asyncio.TaskGroup() as group:
        group.create_task(listen())
        try:
            yield process, told
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
