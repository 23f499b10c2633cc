"""What a leader believes of its followers by their answers, and what it takes from them."""

from __future__ import annotations

import pickle

import pytest

from mapek_domains.raft.commands import Admit, Claim, Expire, Lead, Request, encode
from mapek_domains.raft.embedded.wire import (
    MOST_INDEX,
    NO_OP,
    Append,
    Chunk,
    Progress,
    Propose,
    Say,
)
from tests.unit.raft.scenes import Scene, log_of


def test_an_acknowledgement_counts_in_its_term_only(scene: Scene) -> None:
    match = scene.leader._SyncObj__raftMatchIndex
    node = scene.leader.nodes[scene.follower.node_id]
    match[node] = 3
    progress = Progress(scene.leader.journal.last + 1, matches=True, reset=False)

    assert scene.to_leader(progress, term=scene.leader.term - 1) == ("stale_progress", False)
    assert match[node] == 3
    assert scene.to_leader(progress)[0] == ""
    assert match[node] == scene.leader.journal.last


def test_an_acknowledgement_of_more_than_there_is_is_refused(scene: Scene) -> None:
    last = scene.leader.journal.last

    answers = [
        scene.to_leader(Progress(following, matches=True, reset=False))
        for following in (last + 2, MOST_INDEX, 0)
    ]

    assert answers == [("beyond_the_log", False)] * 3
    assert scene.leader.commit_index == last


def test_what_a_node_without_a_vote_holds_does_not_count(scene: Scene) -> None:
    match = scene.leader._SyncObj__raftMatchIndex
    node = scene.leader.nodes[scene.follower.node_id]
    match[node] = 3

    scene.to_leader(Progress(9, matches=True, reset=False), say=Say.BLANK)

    assert match[node] == 3


def test_nobody_leads_beside_a_leader_in_its_term(scene: Scene) -> None:
    before = log_of(scene.leader)

    answers = [
        scene.to_leader(Append(2, 1, 2, [(1, NO_OP)])),
        scene.to_leader(Chunk(50, 4, 0, b"1234")),
    ]

    assert answers == [("two_leaders", False)] * 2
    assert log_of(scene.leader) == before


@pytest.mark.parametrize(
    ("command", "word"),
    [
        (encode(Lead("n2", 9)), "not_yours"),
        (encode(Admit("n2", 9)), "not_yours"),
        (encode(Expire("key 1", 5)), "not_yours"),
        (encode(Claim(Request("somebody else", 1, 1), "key 1", 5)), "not_yours"),
        (pickle.dumps(("claim", "key 1")), "command"),
        (b"", "command"),
    ],
    ids=["leadership", "a vote", "an end", "for another", "a pickle", "nothing"],
)
def test_nobody_proposes_what_is_not_theirs(scene: Scene, command: bytes, word: str) -> None:
    assert scene.to_leader(Propose(command)) == (word, False)
    scene.leader.tick()
    assert scene.leader.journal.last == 9


def test_who_does_not_lead_takes_no_proposal(scene: Scene) -> None:
    command = encode(Claim(Request(scene.leader.node_id, 1, 1), "key", 5))

    assert scene.to_follower(Propose(command)) == ("not_leader", False)
