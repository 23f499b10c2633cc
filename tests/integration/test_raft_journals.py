"""What nodes of the embedded engine keep on disk: leaders lost, whole groups restarted, disks lost, damaged,
full and slow.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from mapek_domains.raft.embedded import journal as journal_module
from mapek_domains.raft.embedded.engine import EmbeddedEngine
from mapek_runtime.errors import ConfigError, NoConsensus
from tests.raft_embedded import CALM, entries_of, group, replica_of
from tests.raft_group import NODES, until


@pytest.mark.slow
async def test_the_leader_is_lost_twenty_times_and_no_claim_is(tmp_path: Path) -> None:
    granted: dict[str, tuple[str, int]] = {}
    async with group(tmp_path, seed=5) as made:
        for number in range(20):
            await made.settle()
            leader = made.leader()
            assert leader is not None
            node = next(node for node in NODES if node != leader)
            made.crash(leader)
            grant = await made.session.claim(node, f"k{number}", hold=600.0)
            granted[f"k{number}"] = node, grant.fence
            made.restart(leader)
        await made.settle()
        terms = [fields["term"] for name, fields in made.events if name == "leader.elected"]
        claims = [dict(replica_of(made.session, node).decisions.claims) for node in NODES]
    logs = [entries_of(tmp_path, node) for node in NODES]

    assert len(terms) == len(set(terms)) >= 21
    for each in claims:
        assert {key: (held.owner, held.fence) for key, held in each.items()} == granted
    shortest = min(len(log) for log in logs)
    assert len({tuple(log[:shortest]) for log in logs}) == 1


async def test_the_whole_group_comes_back_with_what_it_decided(tmp_path: Path) -> None:
    async with group(tmp_path) as made:
        await made.settle()
        grant = await made.session.claim("node-2", "k", hold=600.0)
        epoch = await made.session.configure("node-3", "n", "v")
        await made.settle()
        term = made.session.engine.standing("node-1").term
    async with group(tmp_path) as made:
        await made.settle()
        again = await made.session.claim("node-2", "k", hold=600.0)
        refused = await made.session.claim("node-1", "k", hold=1.0)
        found = made.session.configured("node-1", "n")

    assert again.granted
    assert again.fence > grant.fence
    assert again.term > term
    assert (refused.granted, refused.owner) == (False, "node-2")
    assert found == ("v", epoch)


async def test_without_a_state_a_crash_keeps_the_disk_and_the_end_leaves_nothing() -> None:
    async with group() as made:
        await made.settle()
        await made.session.claim("node-1", "k", hold=600.0)
        made.crash(*NODES)
        made.restart(*NODES)
        await made.settle()
        engine = made.session.engine
        assert isinstance(engine, EmbeddedEngine)
        folder = engine._folder
        claims = made.session.claims("node-5")
        lives = {replica_of(made.session, node).journal.life for node in NODES}

        assert folder.is_dir()

    assert (claims, lives) == ({"k": "node-1"}, {2})
    assert not folder.exists()


async def test_a_node_that_lost_its_journal_is_let_in_again(tmp_path: Path) -> None:
    async with group(tmp_path) as made:
        await made.settle()
        await made.session.claim("node-1", "k", hold=600.0)
        node = next(node for node in NODES if node != made.leader())
        made.crash(node)
        for file in (tmp_path / "raft" / node).iterdir():
            file.unlink()
        made.restart(node)
        await until(lambda: made.session.engine.standing(node).votes, "it has a vote again")
        await made.settle()

        assert made.session.claims(node) == {"k": "node-1"}


async def test_a_damaged_journal_stops_the_start(tmp_path: Path) -> None:
    async with group(tmp_path) as made:
        await made.settle()
    (path,) = (tmp_path / "raft" / "node-3").glob("*.journal")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)

    with pytest.raises(ConfigError, match=r"node-3/.*\.journal is damaged: .* move it away"):
        async with group(tmp_path):
            pass


async def test_a_journal_that_is_damaged_while_its_node_is_down_keeps_that_node_out(tmp_path: Path) -> None:
    async with group(tmp_path) as made:
        await made.settle()
        made.crash("node-3")
        (path,) = (tmp_path / "raft" / "node-3").glob("*.journal")
        await until(lambda: may_be_written(path), "the file is let go of")
        path.write_bytes(b"\x00" + path.read_bytes()[1:])
        made.messenger.restart("node-3")
        made.session.restarted("node-3")

        with pytest.raises(NoConsensus, match=r"node-3 takes no part any more: .* is damaged"):
            await made.session.claim("node-3", "k", hold=1.0)
        grant = await made.session.claim("node-1", "k", hold=1.0)

    assert grant.granted


def may_be_written(path: Path) -> bool:
    file = journal_module.JournalFile(path, durable=False)
    try:
        file._hold()
    except ConfigError:
        return False
    file.close()
    return True


async def test_a_node_whose_disk_is_full_is_out_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write = journal_module.JournalFile.write
    full = False

    def broken(self: journal_module.JournalFile, batches: Any) -> None:
        if full and self._path.parent.name == "node-4":
            raise OSError(28, "No space left on device")
        write(self, batches)

    monkeypatch.setattr(journal_module.JournalFile, "write", broken)
    async with group(tmp_path) as made:
        await made.settle()
        full = True
        grant = await made.session.claim("node-1", "k", hold=60.0)
        await until(lambda: "raft.failed" in dict(made.events), "node-4 is out")
        with pytest.raises(NoConsensus, match=r"node-4 takes no part any more: .*No space left"):
            await made.session.claim("node-4", "k", hold=1.0)

    assert grant.granted
    assert "No space left on device" in caplog.text


@pytest.mark.slow
async def test_a_slow_disk_deposes_no_leader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = journal_module.JournalFile.write
    slow: str | None = None

    def slowly(self: journal_module.JournalFile, batches: Any) -> None:
        if self._path.parent.name == slow:
            # Longer than any node waits for a sign of life.
            time.sleep(1.2 * CALM.election_most)
        write(self, batches)

    monkeypatch.setattr(journal_module.JournalFile, "write", slowly)
    async with group(tmp_path, settings=CALM) as made:
        await made.settle()
        leader, term = made.leader(), made.session.engine.standing("node-1").term
        slow = leader
        grant = await made.session.claim("node-1", "k", hold=60.0)
        after, slow = made.leader(), None

    assert (grant.granted, grant.term, after) == (True, term, leader)
