"""When a leader takes a claim away."""

from __future__ import annotations

from mapek_domains.raft.decisions import Held
from mapek_domains.raft.embedded.lease import Leases

SECOND = 1_000_000
MINE = Held("node-1", 3, SECOND)
CLAIMS = {"a": MINE}


def test_a_claim_is_over_after_its_time_and_not_before() -> None:
    leases = Leases()
    leases.granted("a", MINE, 10.0)

    assert leases.over(CLAIMS, 11.0) == []
    assert leases.over(CLAIMS, 11.02) == [("a", 3)]


def test_a_claim_that_is_granted_again_ends_later() -> None:
    leases = Leases()
    leases.granted("a", MINE, 10.0)
    again = Held("node-1", 5, 5 * SECOND)
    leases.granted("a", again, 10.5)

    assert leases.over({"a": again}, 15.4) == []
    assert leases.over({"a": again}, 15.6) == [("a", 5)]


def test_a_new_leader_counts_from_its_election() -> None:
    leases = Leases()
    leases.granted("old", MINE, 1.0)
    held = Held("node-1", 3, 2 * SECOND)
    leases.begin({"a": held}, 100.0)

    assert leases.over({"a": held}, 101.9) == []
    assert leases.over({"a": held}, 102.1) == [("a", 3)]


def test_the_end_of_one_grant_takes_no_other_away() -> None:
    leases = Leases()
    leases.granted("a", MINE, 10.0)
    # A snapshot says that another one has it, and nothing else of what happened in between.
    others = {"a": Held("node-2", 20, SECOND)}

    assert leases.over(others, 50.0) == []
    assert leases.over(others, 51.0) == []
    assert leases.over(others, 51.1) == [("a", 20)]


def test_what_nobody_has_is_forgotten() -> None:
    leases = Leases()
    leases.granted("a", MINE, 10.0)

    assert leases.over({}, 50.0) == []
    assert leases.over(CLAIMS, 60.0) == []


def test_what_was_proposed_is_proposed_again_after_a_while_until_it_is_gone() -> None:
    leases = Leases()
    leases.granted("a", MINE, 0.0)

    asked = [list(leases.over(CLAIMS, at)) for at in (2.0, 2.1, 2.9, 3.0, 3.5)]
    leases.gone("a")

    assert asked == [[("a", 3)], [], [], [("a", 3)], []]
    assert leases.over(CLAIMS, 9.0) == []
