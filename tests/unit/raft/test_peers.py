"""Which frames of another member count: each once, in its order, of the life that speaks now."""

from __future__ import annotations

import pytest

from mapek_domains.raft.embedded.peers import Peer
from mapek_domains.raft.embedded.wire import Frame, Hello, Say

ME = 42


def said(seq: int, *, identity: int = 7, life: int = 1, to: int = ME, say: Say = Say.SETTLED) -> Frame:
    return Frame(1, "node-2", identity, life, seq, to, say, 3, Hello())


def test_a_frame_counts_once_and_nothing_before_it_does_after_it() -> None:
    peer = Peer("node-2")

    answers = [peer.admit(said(seq), ME, float(at)) for at, seq in enumerate((1, 2, 2, 5, 3, 6))]

    assert answers == ["", "", "late", "", "late", ""]
    assert peer.heard_at == 5.0


def test_a_life_that_is_over_is_not_heard_any_more() -> None:
    peer = Peer("node-2")

    answers = [
        peer.admit(frame, ME, 0.0)
        for frame in (said(9, life=1), said(1, life=2), said(10, life=1), said(2, life=2))
    ]

    assert answers == ["", "", "older_life", ""]


def test_what_was_said_to_an_earlier_journal_of_ours_is_refused() -> None:
    peer = Peer("node-2")

    assert peer.admit(said(1, to=41), ME, 0.0) == "another_journal"
    assert peer.admit(said(2, to=0), ME, 0.0) == ""
    assert peer.say is None
    assert peer.admit(said(3, to=ME), ME, 0.0) == ""
    assert peer.say is Say.SETTLED


def test_another_journal_begins_anew_and_so_does_what_it_says_of_itself() -> None:
    peer = Peer("node-2")
    peer.admit(said(9, life=4), ME, 0.0)

    assert peer.admit(said(1, identity=8, to=0), ME, 1.0) == ""
    assert (peer.identity, peer.say) == (8, None)
    assert peer.admit(said(2, identity=8, say=Say.BLANK), ME, 1.0) == ""
    assert peer.say is Say.BLANK
    # A late frame of the lost journal is turned back by the next of the new one.
    assert peer.admit(said(10, life=4), ME, 2.0) == ""
    assert peer.admit(said(3, identity=8), ME, 3.0) == ""
    assert peer.identity == 8


def test_frames_to_a_peer_are_numbered_from_one() -> None:
    peer = Peer("node-2")

    assert [peer.next_seq(), peer.next_seq()] == [1, 2]


def test_a_peer_that_missed_something_is_gone_back_for_at_once() -> None:
    peer = Peer("node-2")

    assert peer.goes_back(7, 0.0, 0.5)


@pytest.mark.parametrize(
    ("following", "now", "goes"),
    [(7, 100.25, False), (9, 100.25, False), (6, 100.25, True), (7, 100.5, True), (9, 100.5, True)],
    ids=[
        "from there",
        "from after it",
        "from before it",
        "after the pause",
        "after the pause, from after it",
    ],
)
def test_what_is_on_its_way_again_is_not_gone_back_for(following: int, now: float, goes: bool) -> None:
    peer = Peer("node-2")
    peer.goes_back(7, 100.0, 0.5)

    assert peer.goes_back(following, now, 0.5) is goes


def test_an_answer_that_changes_nothing_does_not_lengthen_the_pause() -> None:
    peer = Peer("node-2")
    peer.goes_back(7, 100.0, 0.5)
    peer.goes_back(7, 100.25, 0.5)

    assert peer.goes_back(7, 100.5, 0.5)


def test_the_pause_counts_from_the_last_time_it_was_gone_back() -> None:
    peer = Peer("node-2")
    peer.goes_back(7, 100.0, 0.5)
    peer.goes_back(6, 100.25, 0.5)

    assert not peer.goes_back(6, 100.5, 0.5)
    assert not peer.goes_back(7, 100.5, 0.5)
    assert peer.goes_back(6, 100.75, 0.5)
