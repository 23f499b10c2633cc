"""When a leader takes a claim away."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mapek_domains.raft.decisions import Held
from mapek_domains.raft.embedded.lease import Leases

SECOND = 1_000_000


def test_a_claim_is_over_after_its_time_and_not_before() -> None:
    leases = Leases()
    leases.granted("a", SECOND, 10.0)

    assert leases.over(11.0) == []
    assert leases.over(11.02) == ["a"]


def test_a_shorter_claim_does_not_shorten_a_longer_one() -> None:
    leases = Leases()
    leases.granted("a", 5 * SECOND, 10.0)
    leases.granted("a", SECOND, 11.0)

    assert leases.over(14.9) == []
    assert leases.over(15.1) == ["a"]


def test_a_new_leader_counts_from_its_election() -> None:
    leases = Leases()
    leases.granted("old", SECOND, 1.0)
    leases.begin({"a": Held("node-1", 3, 2 * SECOND)}, 100.0)

    assert leases.over(101.9) == []
    assert leases.over(102.1) == ["a"]


def test_what_was_proposed_is_proposed_again_after_a_while_until_it_is_gone() -> None:
    leases = Leases()
    leases.granted("a", SECOND, 0.0)

    asked = [list(leases.over(at)) for at in (2.0, 2.1, 2.9, 3.0, 3.5)]
    leases.gone("a")

    assert asked == [["a"], [], [], ["a"], []]
    assert leases.over(9.0) == []


@given(
    st.lists(st.tuples(st.floats(0, 10), st.integers(1, 5 * SECOND)), min_size=1, max_size=10),
    st.floats(0, 20),
)
def test_no_grant_ends_before_the_time_that_its_holder_counts(
    grants: list[tuple[float, int]], at: float
) -> None:
    leases = Leases()
    for granted_at, hold_us in sorted(grants):
        leases.granted("a", hold_us, granted_at)

    if at < max(granted_at + hold_us / 1e6 for granted_at, hold_us in grants):
        assert leases.over(at) == []
