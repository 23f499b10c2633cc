"""Frames of strangers, of another time, of anything at all, and pickles in all places: none does harm."""

from __future__ import annotations

import pickle
from typing import Any, NoReturn

import pysyncobj.pickle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mapek_domains.raft.embedded import replica as replica_module
from mapek_domains.raft.embedded.wire import (
    NO_OP,
    REGULAR,
    Append,
    Ask,
    Body,
    Chunk,
    FrameError,
    Hello,
    Progress,
    Propose,
    Say,
    Vote,
    decode,
)
from mapek_domains.raft.embedded.wire import encode as encode_frame
from tests.unit.raft.scenes import Scene, log_of, scene_of
from tests.unit.raft.simulation import world

bodies: st.SearchStrategy[Body] = st.one_of(
    st.builds(Hello),
    st.builds(Ask, st.integers(0, 20), st.integers(0, 3), st.booleans()),
    st.builds(Vote, st.integers(0, 4), st.booleans()),
    st.builds(
        Append,
        st.integers(0, 12),
        st.integers(0, 2),
        st.integers(0, 20),
        st.lists(st.tuples(st.integers(0, 3), st.just(NO_OP)), max_size=4),
    ),
    st.builds(Chunk, st.integers(0, 20), st.integers(0, 9), st.integers(0, 9), st.binary(max_size=9)),
    st.builds(Progress, st.integers(0, 20), st.booleans(), st.booleans()),
    st.builds(Propose, st.binary(max_size=20)),
)


@pytest.mark.parametrize(
    ("other", "word"),
    [
        ({"sender": "n9"}, "wrong_sender"),
        ({"group": 1}, "another_group"),
        ({"to": 77}, "another_journal"),
        ({"life": 0}, "older_life"),
        ({"seq": 0}, "late"),
        ({"term": 1 << 40}, "term_too_far"),
    ],
)
def test_a_frame_of_somebody_else_or_of_another_time_is_refused(
    scene: Scene, other: dict[str, Any], word: str
) -> None:
    before = scene.follower.term, log_of(scene.follower)

    assert scene.to_follower(Append(2, 1, 2, []), **other) == (word, False)
    assert (scene.follower.term, log_of(scene.follower)) == before


def test_two_that_take_each_other_for_the_journals_they_have_lost_find_out(scene: Scene) -> None:
    leader, follower = scene.leader, scene.follower
    ours, theirs = leader.peers[follower.node_id], follower.peers[leader.node_id]
    # Late frames of journals that were lost came last.
    ours.identity, theirs.identity = 77, 78

    for one, other in ((leader, follower), (follower, leader)):
        one.outbox.clear()
        one.send(other.node_id, Hello())
        assert other.receive(one.node_id, decode(one.message(one.outbox.pop()))) == ("another_journal", False)
        assert one.receive(other.node_id, decode(other.message(other.outbox.pop())))[0] == ""

    assert ours.identity == follower.journal.birth.identity
    assert theirs.identity == leader.journal.birth.identity


def test_a_stranger_is_refused_whatever_it_says(scene: Scene) -> None:
    frame = scene.frame(scene.leader.node_id, scene.follower, Hello())

    assert scene.follower.receive("n9", frame) == ("stranger", False)
    assert scene.follower.receive(scene.follower.node_id, frame) == ("stranger", False)


@given(st.lists(st.tuples(bodies, st.integers(0, 3), st.sampled_from(Say), st.booleans()), max_size=20))
@settings(max_examples=60)
def test_no_frame_takes_back_what_is_final_or_ends_a_replica(
    frames: list[tuple[Body, int, Say, bool]],
) -> None:
    with world(1) as made:
        scene = scene_of(made)
        final = log_of(scene.follower)
        for body, term, say, leads in frames:
            to = scene.to_leader if leads else scene.to_follower
            to(body, term=term, say=say)
            for replica in (scene.leader, scene.follower):
                replica.tick()
        for replica in (scene.leader, scene.follower):
            assert log_of(replica)[: len(final)] == final


def test_nothing_that_a_peer_or_a_file_says_is_unpickled(monkeypatch: pytest.MonkeyPatch) -> None:
    def loads(*_args: object, **_more: object) -> NoReturn:
        raise AssertionError("something was unpickled")

    for module, names in ((pickle, ("loads", "load", "_loads", "_load", "Unpickler", "_Unpickler")),
                          (pysyncobj.pickle, ("loads", "load"))):  # fmt: skip
        for name in names:
            monkeypatch.setattr(module, name, loads)
    monkeypatch.setattr(replica_module, "_KEEP_ENTRIES", 4)
    evil = pickle.dumps(Say)

    with world(3) as made:
        scene = scene_of(made)
        for hostile in hostile_messages(scene, evil):
            try:
                frame = decode(hostile)
            except FrameError:
                continue
            scene.follower.receive(scene.leader.node_id, frame)
            scene.leader.receive(scene.follower.node_id, frame)
        # And everything that a group does: elections, entries, snapshots, journals that are read again.
        made.lose(scene.follower.node_id)
        for _ in range(3):
            made.crash(made.leader() or "")
            for _ in range(20):
                made.anything()
                made.run(0.1)
            made.heal()
            made.until(made.agree)
        snapshots = [node.replica.journal.base for node in made.nodes.values()]

    assert None not in snapshots


def hostile_messages(scene: Scene, evil: bytes) -> list[bytes]:
    """Pickles wherever bytes can be."""
    last, term = scene.follower.journal.last, scene.follower.term
    bodies: list[Body] = [
        Append(last, term, last, [(term, REGULAR + evil)]),
        Append(last, term, last, [(term, b"\x02" + evil)]),
        Append(last, term, last, [(term, b"\x03" + evil)]),
        Chunk(99, len(evil), 0, evil),
        Propose(evil),
    ]
    frames = [scene.frame(scene.leader.node_id, scene.follower, body) for body in bodies]
    frames += [scene.frame(scene.follower.node_id, scene.leader, body) for body in bodies]
    return [evil, b"MR\x01" + evil, *map(encode_frame, frames)]
