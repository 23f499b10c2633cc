"""The life of an embedded group: how it ends, what is left of it, and where its files may be."""

from __future__ import annotations

import asyncio
import random
import threading
from pathlib import Path

import pytest

from mapek_domains.raft.plugin import domain
from mapek_domains.raft.session import RaftSession
from mapek_domains.raft.settings import RaftSettings
from mapek_runtime.errors import ConfigError
from mapek_runtime.loop.domain import DomainContext
from tests.lossy_messenger import LossyMessenger
from tests.raft_embedded import group, replica_of
from tests.raft_group import FAST, NODES, Nobody, finding


async def test_nothing_is_left_behind(tmp_path: Path) -> None:
    async with group(tmp_path / "first") as made:
        await made.settle()
    await asyncio.sleep(0)
    before = open_files(), threads(), len(asyncio.all_tasks())

    for number in range(3):
        async with group(tmp_path / str(number), settings=FAST) as made:
            await made.settle()
            made.crash("node-1")
            made.restart("node-1")
            await made.settle()

    assert (open_files(), threads(), len(asyncio.all_tasks())) == before


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def threads() -> set[str]:
    # Those of the loop's own pool come and stay; they are everybody's.
    return {thread.name for thread in threading.enumerate() if not thread.name.startswith("asyncio_")}


async def test_a_failure_of_whoever_uses_it_comes_out_as_it_was() -> None:
    with pytest.raises(LookupError, match="of the user"):
        async with group():
            raise LookupError("of the user")


async def test_a_node_that_runs_is_not_started_again(tmp_path: Path) -> None:
    async with group(tmp_path) as made:
        await made.settle()
        made.restart("node-1")
        await made.settle()
        grant = await made.session.claim("node-1", "k", hold=1.0)

        assert replica_of(made.session, "node-1").journal.life == 1
    assert grant.granted


async def test_a_group_that_ends_while_its_nodes_come_back_leaves_nothing(tmp_path: Path) -> None:
    async with group(tmp_path / "first") as made:
        await made.settle()
    before = open_files()

    async with group(tmp_path) as made:
        await made.settle()
        made.crash(*NODES)
        made.restart(*NODES)
        # Their journals are being opened.
        await asyncio.sleep(0)

    assert open_files() == before


@pytest.mark.parametrize("name", ["..", "/etc", "a/../../b", ".", "ä ö"])
async def test_a_nodes_name_does_not_lead_out_of_the_state(tmp_path: Path, name: str) -> None:
    context = DomainContext(
        nodes=(name,), supervisor=Nobody(), rng=random.Random(1), state=tmp_path / "state"
    )
    async with domain.open(RaftSettings(members=(name,)), context) as session:
        assert isinstance(session, RaftSession)
        await session.claim(name, "k", hold=1.0)

    assert names_in(tmp_path) == ["state"]
    assert len(names_in(tmp_path / "state" / "raft")) == 1


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def test_a_node_that_is_to_run_twice_is_refused(tmp_path: Path) -> None:
    context = DomainContext(
        nodes=("node-1",),
        supervisor=Nobody(),
        rng=random.Random(1),
        state=tmp_path,
        find=finding(LossyMessenger(NODES)),
    )
    settings = RaftSettings(members=NODES)
    async with domain.open(settings, context):
        with pytest.raises(ConfigError, match="is in use by another process"):
            async with domain.open(settings, context):
                pass
