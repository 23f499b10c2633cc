"""What entries and snapshots do to one that follows: late, doubled, with gaps, or of another term."""

from __future__ import annotations

import pytest

from mapek_domains.raft.embedded.snapshots import Snapshot, pack_snapshot
from mapek_domains.raft.embedded.wire import (
    NO_OP,
    Append,
    Chunk,
    Hello,
    Progress,
    decode,
)
from tests.unit.raft.scenes import Scene, log_of, sent


@pytest.mark.parametrize(("first", "last"), [(2, 3), (3, 5), (2, 9), (4, 3)])
def test_a_late_append_takes_nothing_back_and_is_acknowledged_as_far_as_it_goes(
    scene: Scene, first: int, last: int
) -> None:
    before = log_of(scene.follower)
    assert scene.follower.journal.last == 9

    assert scene.to_follower(sent(scene.follower, first, last)) == ("", False)

    assert log_of(scene.follower) == before
    assert scene.said(scene.follower) == [Progress(last + 1, matches=True, reset=False)]


def test_what_is_final_ends_where_the_log_was_compared(scene: Scene) -> None:
    term, last = scene.follower.term, scene.follower.journal.last
    tail = [(term, NO_OP)] * 3
    scene.to_follower(Append(last, term, last, tail))

    # The leader of another term says that more is final, and was compared up to `last` only.
    scene.to_follower(Append(last, term, last + 3, []), term=term + 1)

    assert scene.follower.journal.last == last + 3
    assert scene.follower.commit_index == last
    assert scene.said(scene.follower)[-1] == Progress(last + 1, matches=True, reset=False)


def test_entries_of_another_term_replace_what_is_not_final(scene: Scene) -> None:
    term, last = scene.follower.term, scene.follower.journal.last
    scene.to_follower(Append(last, term, last, [(term, NO_OP)] * 3))

    scene.to_follower(Append(last + 1, term, last, [(term + 1, NO_OP)]), term=term + 1)

    assert [entry[2] for entry in log_of(scene.follower)[-2:]] == [term, term + 1]
    assert scene.follower.journal.last == last + 2
    assert scene.said(scene.follower)[-1] == Progress(last + 3, matches=True, reset=False)


@pytest.mark.parametrize("prev", [3, 8])
def test_nothing_replaces_what_is_final(scene: Scene, prev: int) -> None:
    term, before = scene.follower.term, log_of(scene.follower)
    prev_term = scene.follower.journal.term_at(prev) or 0

    answers = [
        scene.to_follower(Append(prev, prev_term, 20, [(term + 1, NO_OP)]), term=term + 1),
        scene.to_follower(Append(prev, prev_term + 1, 20, []), term=term + 1),
    ]

    assert answers == [("final_entry_differs", False)] * 2
    assert log_of(scene.follower) == before
    assert scene.follower.commit_index == before[-1][1]


def test_a_gap_is_answered_with_what_is_missing(scene: Scene) -> None:
    last = scene.follower.journal.last

    scene.to_follower(Append(last + 5, scene.follower.term, last, [(scene.follower.term, NO_OP)]))

    assert scene.follower.journal.last == last
    assert scene.said(scene.follower) == [Progress(last + 1, matches=False, reset=True)]


def test_a_leader_of_an_earlier_term_is_told_of_the_later_one(scene: Scene) -> None:
    before = log_of(scene.follower)

    refused = scene.to_follower(Append(9, 1, 9, [(0, NO_OP)]), term=scene.follower.term - 1)

    assert refused == ("stale_term", False)
    assert log_of(scene.follower) == before
    assert scene.said(scene.follower) == [Hello()]


def test_a_late_snapshot_drops_nothing_and_makes_nothing_final(scene: Scene) -> None:
    term, last = scene.follower.term, scene.follower.journal.last
    scene.to_follower(Append(last, term, last, [(term, NO_OP)] * 3))
    before = log_of(scene.follower)
    packed = pack_snapshot(Snapshot(scene.follower.decisions.dump(), before[4], before[5]))

    scene.said(scene.follower)
    scene.to_follower(Chunk(before[5][1], len(packed), 0, packed))

    assert log_of(scene.follower) == before
    assert scene.follower.commit_index == last
    assert scene.said(scene.follower) == [Progress(before[5][1] + 1, matches=True, reset=False)]


def test_a_snapshot_beyond_the_log_takes_its_place(scene: Scene) -> None:
    state = scene.leader.decisions.dump()
    packed = pack_snapshot(Snapshot(state, (NO_OP, 50, 1), (NO_OP, 51, 1)))

    scene.to_follower(Chunk(51, len(packed), 0, packed))

    assert log_of(scene.follower) == [(NO_OP, 50, 1), (NO_OP, 51, 1)]
    assert (scene.follower.commit_index, scene.follower.raftLastApplied) == (51, 51)
    assert scene.said(scene.follower)[-1] == Progress(52, matches=True, reset=False)


def test_a_frame_says_of_the_term_what_was_so_when_it_was_made(scene: Scene) -> None:
    term = scene.follower.term
    scene.to_follower(Append(2, 1, 2, []))
    (answer,) = scene.follower.outbox
    scene.follower.follow(term + 5)

    assert decode(scene.follower.message(answer)).term == term
