"""Long messages in parts: lost ones, doubled ones, wrong ones, and how much is held for them."""

from __future__ import annotations

import random

import pytest

from mapek_domains.fl.parts import Parts, split
from mapek_domains.fl.wire import MOST, Part, WireError, decode

LONG = random.Random(1).randbytes(10_000)


def cut(payload: bytes, most: int = 1500) -> list[Part]:
    parts = [decode(each) for each in split(payload, most)]
    assert all(isinstance(part, Part) for part in parts)
    return [part for part in parts if isinstance(part, Part)]


def test_a_message_that_fits_is_not_cut() -> None:
    assert split(LONG, len(LONG)) == (LONG,)


def test_parts_are_no_longer_than_a_message_may_be() -> None:
    assert max(len(part) for part in split(LONG, 1500)) <= 1500
    assert max(len(part) for part in split(LONG * 400, 15_000)) <= 15_000


def test_messages_that_are_too_short_for_parts_are_named() -> None:
    with pytest.raises(ValueError, match="576 at least"):
        split(LONG, 500)


def test_what_was_lost_the_first_time_need_not_all_come_the_second() -> None:
    parts, pieces = Parts(), cut(LONG)

    first = [parts.add("a", piece, 0.0) for piece in pieces[::2]]
    second = [parts.add("a", piece, 1.0) for piece in pieces[1::2]]

    assert first == [None] * len(first)
    assert second == [None] * (len(second) - 1) + [LONG]
    assert parts.held == 0


def test_parts_of_different_senders_are_not_mixed() -> None:
    parts, pieces = Parts(), cut(LONG)

    found = [parts.add("a" if number % 2 else "b", piece, 0.0) for number, piece in enumerate(pieces)]

    assert set(found) == {None}


@pytest.mark.parametrize(
    "wrong",
    [
        Part(bytes(16), 1000, 900, bytes(600)),
        Part(bytes(16), 10_000, 0, bytes(10)),
        Part(bytes(16), 100, 0, bytes(100)),
    ],
    ids=["past the end", "a crumb", "another digest"],
)
def test_a_part_that_does_not_fit_is_refused_and_holds_nothing(wrong: Part) -> None:
    parts = Parts()

    with pytest.raises(WireError, match="part"):
        parts.add("a", wrong, 0.0)

    assert parts.held == 0


def test_a_part_that_says_another_size_does_not_spoil_the_message() -> None:
    parts, pieces = Parts(), cut(LONG)
    parts.add("a", pieces[0], 0.0)

    with pytest.raises(WireError, match="part"):
        parts.add("a", Part(pieces[0].digest, len(LONG) + 1, 0, bytes(600)), 0.0)
    found = [parts.add("a", piece, 0.0) for piece in pieces[1:]]

    assert found[-1] == LONG


def test_a_sender_can_begin_two_messages_and_the_oldest_is_given_up() -> None:
    parts = Parts()
    messages = [random.Random(seed).randbytes(5000) for seed in range(3)]
    pieces = [cut(message) for message in messages]

    for each in pieces:
        parts.add("a", each[0], 0.0)
    held = parts.held
    found = [
        [parts.add("a", piece, 0.0) for piece in each[1:]][-1] for each in (pieces[1], pieces[2], pieces[0])
    ]

    assert held == 2 * len(pieces[0][0].piece)
    assert found == [messages[1], messages[2], None]


def test_what_nobody_completes_is_given_up_after_a_while() -> None:
    parts, pieces = Parts(), cut(LONG)
    parts.add("a", pieces[0], 0.0)

    parts.add("b", pieces[0], 31.0)

    assert parts.held == len(pieces[0].piece)


def test_what_is_held_for_all_senders_together_is_bounded() -> None:
    parts = Parts()

    for sender in range(60):
        piece = cut(sender.to_bytes(4) * (512 * 1024), 1024 * 1024)[0]
        parts.add(f"node-{sender}", piece, 0.0)

    assert parts.held <= 8 * MOST + 1024 * 1024
