"""A follower that missed entries, or has others, makes its leader send them again: once, not per answer."""

from __future__ import annotations

import pytest

from mapek_domains.raft.embedded import wire
from mapek_domains.raft.embedded.wire import Append, Body, Progress
from tests.unit.raft.scenes import Scene
from tests.unit.raft.simulation import World, world

MISSED = Progress(5, matches=False, reset=True)


def again(scene: Scene) -> list[int]:
    """After which entries the leader sends the follower some, at its next tick."""
    scene.leader.tick()
    outgoing, scene.leader.outbox = scene.leader.outbox, []
    return [
        each.body.prev_index
        for each in outgoing
        if each.to == scene.follower.node_id and isinstance(each.body, Append) and each.body.entries
    ]


def test_who_missed_entries_is_sent_them_at_once(scene: Scene) -> None:
    assert scene.to_leader(MISSED) == ("", True)
    assert again(scene) == [MISSED.next - 1]


def test_answers_that_were_on_their_way_send_the_leader_back_no_further_time(scene: Scene) -> None:
    scene.to_leader(MISSED)
    again(scene)

    late = [scene.to_leader(Progress(following, matches=False, reset=True)) for following in (5, 5, 7)]

    assert late == [("", False)] * 3
    assert again(scene) == []


def test_who_missed_still_more_is_sent_that_at_once_too(scene: Scene) -> None:
    scene.to_leader(MISSED)
    again(scene)

    assert scene.to_leader(Progress(3, matches=False, reset=True)) == ("", True)
    assert again(scene) == [2]


def test_what_was_sent_again_and_lost_is_sent_again_after_the_pause(scene: Scene) -> None:
    scene.to_leader(MISSED)
    again(scene)
    scene.world.now += 1.1 * scene.leader.timing.heartbeat

    assert scene.to_leader(MISSED) == ("", True)
    assert again(scene) == [MISSED.next - 1]


def test_who_was_gone_back_for_keeps_nobody_else_waiting(scene: Scene) -> None:
    scene.to_leader(MISSED)
    again(scene)
    other = next(name for name in scene.leader.peers if name != scene.follower.node_id)

    refused = scene.leader.receive(other, scene.frame(other, scene.leader, MISSED))

    assert refused == ("", True)


def test_an_answer_to_what_was_sent_again_goes_on_from_there(scene: Scene) -> None:
    scene.to_leader(MISSED)
    reach, node = scene.leader._SyncObj__raftNextIndex, scene.leader.nodes[scene.follower.node_id]
    first = reach[node]
    again(scene)
    last = scene.leader.journal.last

    scene.to_leader(Progress(last + 1, matches=True, reset=False))
    scene.to_leader(MISSED)

    assert (first, reach[node]) == (MISSED.next, last + 1)


def test_one_who_has_other_entries_is_mended_by_few_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    # Many frames are on their way when the first of them is refused.
    monkeypatch.setattr(wire, "_MOST_ENTRIES", 2)
    with world(1) as made:
        deposed, leader = with_other_entries(made)
        bodies = overheard(made, {deposed, leader})
        made.heal()

        made.until(made.agree)

    # Two for each frame that was refused make no end: then it is tens of thousands.
    assert len(bodies) < 500
    assert any(isinstance(body, Progress) and body.reset for body in bodies)


def with_other_entries(made: World) -> tuple[str, str]:
    """One that led, alone with entries that nobody else has, and who leads the others."""
    made.until(made.agree)
    deposed = made.leader()
    assert deposed is not None
    made.part({deposed}, set(made.names) - {deposed})
    for number in range(10):
        made.claim(deposed, f"lost {number}")
    made.until(lambda: made.leader() != deposed)
    leader = made.leader()
    assert leader is not None
    for number in range(60):
        made.claim(leader, f"kept {number}")
        made.run(0.01)
    return deposed, leader


def overheard(made: World, ends: set[str]) -> list[Body]:
    """Everything that two nodes will have said to each other."""
    bodies: list[Body] = []
    send = made._send

    def counting(source: str, to: str, message: bytes) -> None:
        if {source, to} == ends:
            bodies.append(wire.decode(message).body)
        send(source, to, message)

    made._send = counting  # type: ignore[method-assign]
    return bodies
