"""Whose vote counts, how often and in which term, and who is given one."""

from __future__ import annotations

from typing import Any

from mapek_domains.raft.commands import Admit
from mapek_domains.raft.embedded.replica import Replica
from mapek_domains.raft.embedded.wire import (
    Ask,
    Body,
    Say,
    Vote,
)
from tests.unit.raft.scenes import Scene


def stands(scene: Scene) -> Replica:
    """The follower as a candidate that has its own vote only; three are needed."""
    scene.follower.candidacy._elected = True
    scene.follower.tick()
    assert scene.follower.is_candidate
    scene.said(scene.follower)
    return scene.follower


def voted(scene: Scene, voter: str, vote: Vote, **other: Any) -> str:
    return scene.follower.receive(voter, scene.frame(voter, scene.follower, vote, **other))[0]


def test_a_vote_counts_once(scene: Scene) -> None:
    candidate = stands(scene)
    first, second, *_ = candidate.peers
    vote = Vote(candidate.term)

    assert [voted(scene, first, vote) for _ in range(3)] == ["", "voted_twice", "voted_twice"]
    assert not candidate.is_leader
    assert voted(scene, second, vote) == ""
    assert candidate.is_leader


def test_a_vote_of_another_term_or_of_a_node_without_one_does_not_count(scene: Scene) -> None:
    candidate = stands(scene)
    voters = list(candidate.peers)

    answers = [
        voted(scene, voters[0], Vote(candidate.term - 1)),
        voted(scene, voters[1], Vote(candidate.term), say=Say.BLANK),
        voted(scene, voters[2], Vote(candidate.term, straw=True)),
    ]

    assert answers == ["stale_vote", "no_vote", "stale_vote"]
    assert not candidate.is_leader


def test_who_hears_the_leader_gives_no_straw_vote_and_who_has_more_gives_none_ever(scene: Scene) -> None:
    ask = Ask(scene.follower.journal.last, scene.follower.term, straw=True)
    other = next(name for name in scene.follower.peers if name != scene.leader.node_id)

    def asked(ask: Ask) -> list[Body]:
        scene.follower.receive(other, scene.frame(other, scene.follower, ask))
        return scene.said(scene.follower)

    scene.said(scene.follower)
    while_led = asked(ask)
    scene.world.now += 1.0
    alone = asked(ask)
    shorter = asked(Ask(ask.last_index - 1, ask.last_term, straw=True))

    assert while_led == []
    assert alone == [Vote(scene.follower.term + 1, straw=True)]
    assert shorter == []
    assert scene.follower.term == ask.last_term


def test_a_node_without_a_vote_gives_none(scene: Scene) -> None:
    scene.world.lose(scene.follower.node_id)
    scene.world.start(scene.follower.node_id)
    scene.follower = scene.world.nodes[scene.follower.node_id].replica
    other = next(name for name in scene.follower.peers if name != scene.leader.node_id)

    answers = [
        scene.follower.receive(other, scene.frame(other, scene.follower, Ask(99, 9, straw), term=9))
        for straw in (True, False)
    ]

    assert answers == [("no_vote", False)] * 2
    assert scene.said(scene.follower) == []
    assert scene.follower.journal.getVotedForNodeId() is None


def test_only_its_own_journal_is_let_in(scene: Scene) -> None:
    scene.world.lose(scene.follower.node_id)
    scene.world.start(scene.follower.node_id)
    blank = scene.world.nodes[scene.follower.node_id].replica

    blank.candidacy.admitted(Admit(blank.node_id, scene.follower.journal.birth.identity))
    blank.candidacy.admitted(Admit(scene.leader.node_id, blank.journal.birth.identity))
    before = blank.journal.votes
    blank.candidacy.admitted(Admit(blank.node_id, blank.journal.birth.identity))

    assert (before, blank.journal.votes) == (False, True)
