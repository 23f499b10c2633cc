"""When links have failed, and how long they rest: the pure parts of the slow loop."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapek_domains.mesh.failures import Failures
from mapek_domains.mesh.rest import least_rest
from mapek_runtime.loop.knowledge import Incident
from tests.unit.mesh.below import LINK, OTHER, RING


@given(
    st.lists(
        st.tuples(
            st.sampled_from([LINK, OTHER]),
            st.sampled_from(["", "node-1", "node-2", "node-3"]),
            st.floats(0, 400),
            st.sampled_from(["drain", "undrain", "restart"]),
        ),
        max_size=40,
    ),
    st.randoms(),
)
def test_the_order_in_which_incidents_come_and_how_often_changes_nothing(
    told: list[tuple[str, str, float, str]], rng: random.Random
) -> None:
    incidents = [
        Incident(
            target=link, problem="link.dead", opened=1e9 - ago, action=action, node=node,
        )
        for link, node, ago, action in told
    ]  # fmt: skip
    shuffled = [*incidents, *incidents]
    rng.shuffle(shuffled)

    once, again = Failures(60.0), Failures(60.0)
    once.look(incidents, now=100.0, unix=1e9)
    again.look(shuffled, now=100.0, unix=1e9)

    assert once.links == again.links
    assert all(list(times) == sorted(times) for times in once.links.values())
    drains = sum(action == "drain" for *_, action in told)
    assert sum(once.since(link, -1.0) for link in (LINK, OTHER)) <= drains
    # A window later all of it is past.
    once.look(incidents, now=160.0, unix=1e9)
    assert once.links == {}


@pytest.mark.parametrize(
    ("wanted", "edges", "rest"),
    [
        (60, [*RING, ("node-2", "node-4")], 60.0),
        (60, RING, 0.0),
        (60, (), 0.0),
        (None, [*RING, ("node-2", "node-4")], 0.0),
        ("60", [*RING, ("node-2", "node-4")], 0.0),
        (True, [*RING, ("node-2", "node-4")], 0.0),
        (float("nan"), [*RING, ("node-2", "node-4")], 0.0),
        (-5, [*RING, ("node-2", "node-4")], 0.0),
        (float("inf"), [*RING, ("node-2", "node-4")], 300.0),
    ],
    ids=[
        "two other ways",
        "one other way",
        "no way",
        "no goal",
        "text",
        "truth",
        "NaN",
        "negative",
        "for ever",
    ],
)
def test_a_link_rests_as_long_as_is_wanted_while_its_ends_have_ways_to_spare(
    wanted: object, edges: Sequence[tuple[str, str]], rest: float
) -> None:
    assert least_rest(wanted, LINK, edges) == rest
