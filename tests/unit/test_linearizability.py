"""The judge of histories: right tables are never blamed, and broken ones are found."""

from __future__ import annotations

import pytest

from tests.linearizability import Undecided, linearize
from tests.raft_asked import claim, configure, read, read_value, release
from tests.raft_history import Operation, Restart
from tests.raft_rules import Configuration, judge, violations
from tests.raft_table import FAULTS, simulate

GOOD = {
    "nothing at all": [],
    "one is granted and the other refused": [claim("a", 0, 1, fence=1), claim("b", 2, 3, owner="a")],
    "of two at once the later one is first": [claim("a", 0, 5, owner="b"), claim("b", 1, 2, fence=1)],
    "released, then granted to another": [
        claim("a", 0, 1, fence=1),
        release("a", 1, 2, 3),
        claim("b", 4, 5, fence=2),
    ],
    "a release still under way": [
        claim("a", 0, 1, fence=1),
        release("a", 1, 2, None),
        claim("b", 3, 4, fence=2),
    ],
    "over, then granted to another": [claim("a", 0, 1, fence=1, hold=3), claim("b", 2, 4, fence=2)],
    "over, and not yet noticed": [claim("a", 0, 1, fence=1, hold=3), claim("b", 8, 9, owner="a")],
    "extended": [claim("a", 0, 1, fence=1), claim("a", 2, 3, fence=2), claim("b", 4, 5, owner="a")],
    "an old fence releases nothing": [
        claim("a", 0, 1, fence=1),
        claim("a", 2, 3, fence=2),
        release("a", 1, 4, 5),
        claim("b", 6, 7, owner="a"),
    ],
    "granted, and the answer was lost": [claim("a", 0, None), claim("b", 1, 2, owner="a")],
    "not granted, and the answer was lost": [claim("a", 0, None), claim("b", 1, 2, fence=1)],
    "granted late, and the answer was lost": [
        claim("a", 0, None),
        claim("b", 1, 2, fence=1),
        release("b", 1, 3, 4),
        claim("b", 5, 6, owner="a"),
    ],
    "not the leader": [claim("a", 0, 1, leader_only=True), claim("b", 2, 3, fence=1, leader_only=True)],
    "changes one after another": [configure("x", 1, 0, 1), configure("y", 2, 2, 3, expected=1)],
    "the same value is no change": [configure("x", 1, 0, 1), configure("x", 1, 2, 3, expected=1)],
    "of two changes at once one fails": [
        configure("x", 1, 0, 3, expected=0),
        configure("y", None, 1, 2, expected=0),
    ],
    "a change whose answer was lost": [
        configure("x", 1, 0, 1),
        configure("y", None, 2, None),
        configure("z", 3, 4, 5),
    ],
    "an old read": [configure("x", 1, 0, 1), configure("y", 2, 2, 3), read_value("b", "x", 1, 4)],
    "old owners in order": [
        claim("a", 0, 1, fence=1),
        release("a", 1, 2, 3),
        claim("b", 4, 5, fence=2),
        read("c", "a", 6),
        read("c", "", 7),
        read("c", "b", 8),
    ],
    "a read of what has no answer yet": [configure("x", None, 0, None), read_value("b", "x", 1, 4)],
}

BAD = {
    "granted to two": ([claim("a", 0, 1, fence=1), claim("b", 2, 3, fence=2)], "two owners"),
    "granted to two, the owner was released too late": (
        [claim("a", 0, 1, fence=1), claim("b", 2, 3, fence=2), release("a", 1, 4, 5)],
        "no order explains",
    ),
    "refused because of nobody": ([claim("b", 2, 3, owner="a")], "no order explains"),
    "refused after the release": (
        [claim("a", 0, 1, fence=1), release("a", 1, 2, 3), claim("b", 4, 5, owner="a")],
        "no order explains",
    ),
    "over too early": ([claim("a", 0, 1, fence=1, hold=5), claim("b", 2, 4, fence=2)], "two owners"),
    "over too early, the owner did not know of it": (
        [claim("a", 0, None, hold=5), claim("c", 1, 1.5, owner="a"), claim("b", 2, 4, fence=2)],
        "no order explains",
    ),
    "released by an old fence": (
        [
            claim("a", 0, 1, fence=1),
            claim("a", 2, 3, fence=2),
            release("a", 1, 4, 5),
            claim("b", 6, 7, fence=3),
        ],
        "two owners",
    ),
    "the same fence": (
        [claim("a", 0, 1, fence=1), claim("b", 2, 3, fence=1, key="other")],
        "fence 1 was given twice",
    ),
    "a lower fence": (
        [claim("a", 0, 1, fence=2), claim("b", 2, 3, fence=1, key="other")],
        "fence 1 (b, 'other') after fence 2",
    ),
    "a lower term": (
        [claim("a", 0, 1, fence=1, term=2), claim("b", 2, 3, fence=2, key="other")],
        "term 1 with fence 2 (b, 'other') after term 2 with fence 1 (a, 'drain')",
    ),
    "two leaders": (
        [
            claim("a", 0, 1, fence=1, leader_only=True),
            claim("b", 2, 3, fence=2, key="other", leader_only=True),
        ],
        "term 1 had 2 leaders: a, b",
    ),
    "a change twice": (
        [configure("x", 1, 0, 1, expected=0), configure("y", 1, 2, 3, expected=0)],
        "no order explains",
    ),
    "a change was lost": ([configure("x", 1, 0, 1), configure("y", 1, 2, 3)], "no order explains"),
    "the same value was a change": ([configure("x", 1, 0, 1), configure("x", 2, 2, 3)], "no order explains"),
    "refused what was right": (
        [configure("x", 1, 0, 1), configure("y", None, 2, 3, expected=1)],
        "no order explains",
    ),
    "a read that goes back": (
        [
            configure("x", 1, 0, 1),
            configure("y", 2, 2, 3),
            read_value("b", "y", 2, 4),
            read_value("b", "x", 1, 5),
        ],
        "b read epoch 1 of 'drain', and knew epoch 2",
    ),
    "a read of what nobody wrote": (
        [configure("x", 1, 0, 1), read_value("b", "z", 1, 4)],
        "nobody configured",
    ),
    "a read of what is yet to come": (
        [read_value("b", "x", 1, 4), configure("x", 1, 5, 6)],
        "nobody configured",
    ),
    "a read without the own change": (
        [configure("x", 1, 0, 1), read_value("a", "", 0, 4)],
        "a read epoch 0 of 'drain', and knew epoch 1",
    ),
    "a read without the own grant": (
        [claim("a", 0, 1, fence=1), read("a", "", 2)],
        "has it itself by fence 1",
    ),
    "owners that go back": (
        [
            claim("a", 0, 1, fence=1),
            release("a", 1, 2, 3),
            claim("b", 4, 5, fence=2),
            read("c", "b", 6),
            read("c", "a", 7),
        ],
        "granted later (fence 2)",
    ),
    "owned again after it was free": (
        [
            claim("a", 0, 1, fence=1),
            release("a", 1, 2, 3),
            read("c", "a", 4),
            read("c", "", 5),
            read("c", "a", 6),
        ],
        "granted later (fence 1)",
    ),
}


@pytest.mark.parametrize("history", GOOD.values(), ids=GOOD)
def test_what_can_be_explained_is_right(history: list[Operation]) -> None:
    assert violations(history) == []


@pytest.mark.parametrize(("history", "story"), BAD.values(), ids=BAD)
def test_what_cannot_be_explained_is_told(history: list[Operation], story: str) -> None:
    found = violations(history)

    assert story in "\n".join(found)


def test_a_restart_may_bring_old_reads_back() -> None:
    history, _ = BAD["a read that goes back"]

    assert violations(history, restarts=[Restart("b", 4.5)]) == []
    assert violations(history, restarts=[Restart("a", 4.5)]) != []


def test_two_leaders_of_one_term_are_told() -> None:
    with pytest.raises(AssertionError, match="term 3 had 2 leaders: a, b"):
        judge([], leaders=[(2, "a"), (3, "b"), (3, "b"), (3, "a")])


def test_the_story_is_the_shortest_that_is_wrong_and_names_what_cannot_be() -> None:
    history = [
        claim("a", 0, 1, fence=1),
        claim("b", 1, 2, owner="a"),
        release("a", 1, 2, 3),
        claim("b", 4, 5, owner="a"),
        claim("c", 6, 7, fence=2),
    ]

    (story,) = violations(history)

    assert story.splitlines() == [
        "'drain': no order explains all answers up to 5.0000 s",
        "  this order goes furthest:",
        "      0.0000 -  1.0000  a: claim (10.0, False) -> granted by fence 1 in term 1",
        "      1.0000 -  2.0000  b: claim (10.0, False) -> refused: a",
        "      2.0000 -  3.0000  a: release 1 -> done",
        "  then: nobody has it; the highest fence is 1",
        "  and one of these is next, but cannot be:",
        "      4.0000 -  5.0000  b: claim (10.0, False) -> refused: a",
    ]


def test_a_search_that_takes_too_long_is_neither_right_nor_wrong() -> None:
    history = [configure(f"v{number}", None, 0, None) for number in range(12)]
    history.append(configure("w", 99, 1, 2))

    with pytest.raises(Undecided, match="12 of them without an answer"):
        linearize(Configuration(), history, most=500)


@pytest.mark.parametrize("lost", [0.0, 0.05, 0.15])
@pytest.mark.parametrize("seed", range(4))
def test_a_right_table_is_not_blamed(seed: int, lost: float) -> None:
    history = simulate(seed, lost=lost)

    judge(history)

    assert len(history) == 500


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_table_is_blamed(fault: str) -> None:
    found = [bool(violations(simulate(seed, operations=200, keys=4, fault=fault))) for seed in range(5)]

    assert sum(found) >= 4
