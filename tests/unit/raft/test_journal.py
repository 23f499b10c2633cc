"""The journal: what comes back after a crash, and what is refused rather than believed."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapek_domains.raft.embedded.journal import Batch, Journal, JournalFile
from mapek_domains.raft.embedded.records import (
    HEAD,
    Birth,
    Commit,
    Cut,
    Damaged,
    Life,
    Put,
    Term,
    Voter,
    pack,
    scan,
)
from mapek_runtime.errors import ConfigError

BIRTH = Birth("node-1", 7, 99)


def fresh() -> Journal:
    journal = Journal(BIRTH)
    journal.begin_life()
    return journal


def written(journal: Journal, disk: bytes = b"") -> bytes:
    anew, data = journal.take()
    return data if anew else disk + data


def worked() -> tuple[Journal, bytes]:
    """A journal with entries, a vote and something final, and what is on its disk."""
    journal = fresh()
    disk = written(journal)
    journal.let_vote()
    journal.setCurrentTerm(3, "node-2")
    for index in range(2, 8):
        journal.add(b"\x00" + bytes(index), index, 3)
    disk = written(journal, disk)
    journal.deleteEntriesFrom(5)
    journal.add(b"\x00x", 6, 4)
    journal.setCurrentTerm(4, None)
    journal.setRaftCommitIndex(4)
    return journal, written(journal, disk)


def test_what_was_written_comes_back() -> None:
    journal, disk = worked()

    back = Journal(BIRTH, scan(disk))

    assert back[:] == journal[:]
    assert (back.first, back.last, len(back)) == (1, 6, 6)
    assert (back.getCurrentTerm(), back.getVotedForNodeId()) == (4, None)
    assert back.getRaftCommitIndex() == 4
    assert (back.life, back.votes) == (1, True)
    assert not back.pending


def test_a_new_journal_has_one_entry_and_no_vote() -> None:
    journal = fresh()

    assert journal[:] == [(b"\x01", 1, 0)]
    assert (journal.votes, journal.getVotedForNodeId(), journal.getCurrentTerm()) == (False, None, 0)
    assert journal.pending


def test_entries_that_a_snapshot_holds_are_gone_from_the_file_too() -> None:
    journal, disk = worked()

    journal.rest_on(b"snapshot")
    journal.deleteEntriesTo(3)
    shorter = written(journal, disk)
    back = Journal(BIRTH, scan(shorter))

    assert len(shorter) < len(disk)
    assert (back.first, back.last, back.base) == (4, 6, b"snapshot")
    assert (back.getCurrentTerm(), back.votes, back.getRaftCommitIndex()) == (4, True, 4)


def test_what_is_final_alone_is_written_once_a_second_and_not_at_once() -> None:
    journal, disk = worked()

    journal.setRaftCommitIndex(6)
    at_once = journal.pending
    journal.onOneSecondTimer()
    disk = written(journal, disk)
    journal.onOneSecondTimer()

    assert not at_once
    assert scan(disk).commit == 6
    assert not journal.pending


@given(st.data())
def test_a_file_cut_short_anywhere_gives_what_was_whole(data: st.DataObject) -> None:
    _, disk = worked()
    length = data.draw(st.integers(0, len(disk)))

    read = scan(disk[:length])

    assert read.length <= length
    # What is left is a beginning of what was written, never anything else.
    assert disk.startswith(disk[: read.length])
    assert scan(disk[: read.length]).length == read.length


@given(st.integers(0, 4096))
def test_a_file_that_grew_without_its_bytes_gives_what_was_whole(zeros: int) -> None:
    _, disk = worked()

    assert scan(disk + bytes(zeros)).length == len(disk)


def test_a_bit_that_changed_is_damage_and_no_other_vote() -> None:
    _, disk = worked()

    for place in range(len(disk)):
        for bit in range(8):
            changed = disk[:place] + bytes([disk[place] ^ (1 << bit)]) + disk[place + 1 :]
            with pytest.raises(Damaged):
                scan(changed)


def test_a_block_whose_bytes_never_came_is_cut_off() -> None:
    _, disk = worked()
    torn = disk + pack(Put(7, 4, b"\x00" + bytes(range(1, 256)) * 8))
    block = (len(torn) - 1) // 512 * 512

    assert scan(torn).length == len(torn)
    assert scan(torn[:block] + bytes(len(torn) - block)).length == len(disk)


@given(st.binary(min_size=1, max_size=200))
def test_bytes_that_nobody_wrote_are_damage(data: bytes) -> None:
    _, disk = worked()
    if not data.strip(b"\x00") or len(data) < 12:
        # Too short for a record, or zeros: a crash may leave that.
        assert scan(disk + data).length == len(disk)
        return

    with pytest.raises(Damaged):
        scan(disk + data)


@pytest.mark.parametrize(
    "records",
    [
        (Life(1),),
        (BIRTH, BIRTH),
        (BIRTH, Put(1, 0, b"\x01"), Put(3, 0, b"\x01")),
        (BIRTH, Put(1, 2, b"\x01"), Put(2, 1, b"\x01")),
        (BIRTH, Put(1, 0, b"\x01"), Put(2, 0, b"\x01"), Commit(2), Cut(2)),
        (BIRTH, Put(1, 0, b"\x01"), Cut(1)),
        (BIRTH, Put(1, 0, b"\x01"), Commit(2)),
        (BIRTH, Term(4), Term(3)),
    ],
    ids=[
        "no beginning", "two beginnings", "a gap", "a term goes back", "a final entry is cut",
        "the first entry is cut", "what is not there is final", "the term goes back",
    ],
)  # fmt: skip
def test_records_that_contradict_one_another_are_damage(records: tuple[Birth, ...]) -> None:
    with pytest.raises(Damaged):
        scan(HEAD + pack(*records))


def test_a_pickle_in_the_place_of_a_journal_is_damage() -> None:
    with pytest.raises(Damaged, match="does not begin"):
        scan(b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94")


# The file


def open_file(path: Path, *, node: str = "node-1", group: int = 7) -> tuple[JournalFile, Journal]:
    file = JournalFile(path, durable=True)
    return file, file.open(node, group)


def settle(file: JournalFile, journal: Journal) -> Batch:
    batch = journal.take()
    file.write([batch])
    return batch


def test_a_file_is_found_again_with_one_life_more(tmp_path: Path) -> None:
    path = tmp_path / "node-1" / "g.journal"
    file, journal = open_file(path)
    journal.let_vote()
    journal.setCurrentTerm(5, "node-3")
    settle(file, journal)
    journal.add(b"\x00a", 2, 5)
    settle(file, journal)
    # Gone before it was written.
    journal.add(b"\x00b", 3, 5)
    file.close()

    again, back = open_file(path)
    again.close()

    assert (back.life, back.votes, back.birth.identity) == (2, True, journal.birth.identity)
    assert (back.getCurrentTerm(), back.getVotedForNodeId(), back.last) == (5, "node-3", 2)


def test_what_a_crash_cut_short_is_cut_off_before_more_is_written(tmp_path: Path) -> None:
    path = tmp_path / "g.journal"
    file, journal = open_file(path)
    settle(file, journal)
    file.close()
    with path.open("ab") as torn:
        torn.write(pack(Voter())[:-1])

    file, journal = open_file(path)
    settle(file, journal)
    file.close()
    again, back = open_file(path)
    again.close()

    assert (back.life, back.votes) == (3, False)


def test_a_damaged_file_is_refused_and_the_message_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "g.journal"
    file, journal = open_file(path)
    settle(file, journal)
    file.close()
    data = bytearray(path.read_bytes())
    data[30] ^= 1
    path.write_bytes(data)

    with pytest.raises(ConfigError, match=r"g\.journal is damaged: .* move it away, and 'node-1' comes back"):
        open_file(path)


def test_the_journal_of_another_node_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "g.journal"
    file, journal = open_file(path)
    settle(file, journal)
    file.close()

    with pytest.raises(ConfigError, match="is that of 'node-1' in another group, and 'node-2' is to run"):
        open_file(path, node="node-2")


def test_a_journal_that_is_in_use_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "g.journal"
    file, _ = open_file(path)

    with pytest.raises(ConfigError, match="is in use by another process"):
        open_file(path)

    file.close()
    file, _ = open_file(path)
    file.close()


def test_a_file_holds_no_descriptor_after_it_is_closed(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir())), threading.active_count()

    for number in range(5):
        file, journal = open_file(tmp_path / f"{number}.journal")
        settle(file, journal)
        journal.rest_on(b"")
        settle(file, journal)
        file.close()

    assert (len(list(Path("/proc/self/fd").iterdir())), threading.active_count()) == before
