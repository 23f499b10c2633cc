"""Snapshots: sent in chunks, put together again, and believed only when they are whole and right."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapek_domains.raft.commands import Claim, Request
from mapek_domains.raft.decisions import Decisions
from mapek_domains.raft.embedded.journal import Journal
from mapek_domains.raft.embedded.records import Birth
from mapek_domains.raft.embedded.snapshots import (
    MOST_SNAPSHOT,
    Snapshot,
    Snapshots,
    pack_snapshot,
    read_snapshot,
)
from mapek_domains.raft.embedded.wire import MOST_CHUNK, Chunk

BEFORE = (b"\x01", 8, 2)
LAST = (b"\x01", 9, 3)


def taken(claims: int = 500) -> Snapshots:
    """A leader with a snapshot of several chunks."""
    decisions = Decisions()
    for number in range(claims):
        request = Request("node-1", 1, number, number)
        decisions.apply(number + 2, 1, Claim(request, f"a key of some length, number {number}", 5))
    snapshots = Snapshots(Journal(Birth("node-1", 1, 1)), decisions)
    snapshots.serialize((None, LAST, BEFORE, None), 8)
    return snapshots


def chunks(leader: Snapshots, node: str = "node-2") -> list[Chunk]:
    sent: list[Chunk] = []
    while True:
        data = leader.getTransmissionData(node)
        assert data is not None
        chunk, first, last = data
        assert first == (not sent)
        sent.append(chunk)
        if last:
            return sent


def follower() -> Snapshots:
    return Snapshots(Journal(Birth("node-2", 1, 2)), Decisions())


def test_a_snapshot_arrives_in_chunks_that_fit() -> None:
    leader, receiver = taken(), follower()

    sent = chunks(leader)
    became = [receiver.take_chunk(chunk) for chunk in sent]
    _, last, before, _ = receiver.deserialize()

    assert len(sent) > 1
    assert max(len(chunk.data) for chunk in sent) <= MOST_CHUNK
    assert became == [""] * (len(sent) - 1) + ["whole"]
    assert (before, last) == (BEFORE, LAST)
    assert receiver._decisions.dump() == leader._decisions.dump()
    # It begins anew for the next who needs it.
    assert chunks(leader) == sent


@given(st.data())
def test_a_chunk_that_is_lost_doubled_or_late_gives_no_snapshot_but_the_one_that_was_sent(
    data: st.DataObject,
) -> None:
    leader, receiver = taken(), follower()
    sent = chunks(leader)
    arriving = data.draw(st.lists(st.sampled_from(sent), max_size=12))

    for chunk in arriving:
        if receiver.take_chunk(chunk) == "whole":
            assert receiver.received is not None
            assert receiver.received.state == leader._decisions.dump()
            receiver.received = None
    # Whatever came before, the next whole one is taken.
    assert [receiver.take_chunk(chunk) for chunk in sent][-1] == "whole"


@given(st.data())
def test_a_snapshot_that_changed_on_its_way_is_refused(data: st.DataObject) -> None:
    leader, receiver = taken(20), follower()
    (sent,) = chunks(leader)
    place = data.draw(st.integers(0, len(sent.data) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda byte: byte != sent.data[place]))
    changed = sent.data[:place] + bytes([other]) + sent.data[place + 1 :]

    assert receiver.take_chunk(Chunk(sent.index, sent.size, 0, changed)) == "snapshot_damaged"
    assert receiver.received is None


@pytest.mark.parametrize(
    ("chunk", "word"),
    [
        (Chunk(9, MOST_SNAPSHOT + 1, 0, b"x"), "snapshot_too_long"),
        (Chunk(9, 100, 50, b"x"), "chunk_out_of_order"),
        (Chunk(9, 100, 0, b""), "snapshot_damaged"),
        (Chunk(9, 3, 0, b"longer"), "snapshot_damaged"),
        (Chunk(9, len(pickle.dumps([1, 2])), 0, pickle.dumps([1, 2])), "snapshot_damaged"),
    ],
    ids=["too long", "not the first", "nothing", "another length", "a pickle"],
)
def test_what_is_no_snapshot_has_its_word(chunk: Chunk, word: str) -> None:
    assert follower().take_chunk(chunk) == word


def test_a_snapshot_that_ends_elsewhere_than_it_says_is_refused() -> None:
    packed = pack_snapshot(Snapshot(Decisions().dump(), BEFORE, LAST))

    assert follower().take_chunk(Chunk(10, len(packed), 0, packed)) == "snapshot_damaged"
    assert follower().take_chunk(Chunk(9, len(packed), 0, packed)) == "whole"


@given(st.binary(max_size=200))
def test_random_bytes_are_no_snapshot(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"checksum|not a snapshot|do not follow"):
        read_snapshot(data)


def test_a_journal_whose_log_does_not_fit_its_snapshot_is_refused() -> None:
    journal = Journal(Birth("node-2", 1, 2))
    journal.rest_on(pack_snapshot(Snapshot(Decisions().dump(), BEFORE, LAST)))

    with pytest.raises(ValueError, match="does not go on where its snapshot ends"):
        Snapshots(journal, Decisions()).load()
