"""Long frames in pieces: put together, asked for again, bounded."""

from __future__ import annotations

import random

import pytest

from mapek_domains.crdt.messages import MOST_PARTS, Again, Part
from mapek_domains.crdt.parts import Assembly, Outgoing, cut
from mapek_domains.crdt.update import Refused


def test_parts_in_any_order_and_twice_make_the_frame() -> None:
    frame = random.Random(1).randbytes(10_000)
    parts = [*cut(7, frame, 300), *cut(7, frame, 300)]
    random.Random(2).shuffle(parts)
    assembly = Assembly(20_000)

    whole = [each for each in (assembly.add("a", part, 0.0) for part in parts) if each is not None]

    assert whole[0] == frame


def test_what_did_not_come_is_asked_for_until_it_is_hopeless() -> None:
    frame = b"x" * 1000
    parts = cut(7, frame, 100)
    outgoing, assembly = Outgoing(), Assembly(20_000)
    outgoing.sent("b", parts, 0.0)
    for part in parts[::2]:
        assert assembly.add("a", part, 0.0) is None

    assert not assembly.due(0.1)
    ((peer, asked),) = assembly.due(0.5)
    assert (peer, asked) == ("a", Again(7, [1, 3, 5, 7, 9]))
    again = outgoing.again("b", asked)
    assert [assembly.add("a", part, 0.6) for part in again][-1] == frame
    assert not assembly.due(10.0)

    assembly.add("a", parts[0], 10.0)
    asks = [assembly.due(10.0 + second) for second in range(1, 100)]
    assert 0 < sum(bool(each) for each in asks) <= 30
    assert assembly.refused == {"lost": 1}


def test_only_what_was_sent_to_a_peer_is_sent_again_to_it() -> None:
    outgoing = Outgoing()
    outgoing.sent("b", cut(7, b"x" * 1000, 100), 0.0)

    assert not outgoing.again("c", Again(7, [1]))
    assert not outgoing.again("b", Again(8, [1]))
    assert [part.index for part in outgoing.again("b", Again(7, [9, 9, 3, 4000]))] == [3, 9]
    outgoing.expire(100.0)
    assert not outgoing.again("b", Again(7, [1]))


def test_what_a_peer_can_make_us_keep_is_bounded() -> None:
    assembly = Assembly(5000)
    for id_ in range(1000):
        for index in range(3):
            assembly.add("a", Part(id_, index, 4000, b"x" * 500), float(id_))
    kept = sum(len(body) for frame in assembly._coming["a"].values() for body in frame.bodies.values())
    assert kept <= 5000
    assert len(assembly._coming["a"]) <= 2
    assert assembly.refused["crowded"] == 998

    for index in range(10):
        assembly.add("b", Part(1, index, 4000, b"x" * 500), 0.0)
    with pytest.raises(Refused, match="too_large"):
        assembly.add("b", Part(1, 10, 4000, b"x" * 500), 0.0)
    assert "b" not in assembly._coming


def test_parts_that_contradict_one_another_are_refused() -> None:
    assembly = Assembly(5000)
    assembly.add("a", Part(1, 0, 3, b"x"), 0.0)

    with pytest.raises(Refused, match="malformed"):
        assembly.add("a", Part(1, 1, 4, b"x"), 0.0)
    assert "a" not in assembly._coming


def test_a_frame_of_too_many_parts_is_not_cut() -> None:
    with pytest.raises(Refused, match="too_large"):
        cut(1, b"x" * (MOST_PARTS + 1), 1)
