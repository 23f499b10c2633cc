"""The slow loop of the mesh: which links are restless, and what is wanted of the fast loops then."""

from __future__ import annotations

from typing import Any

import pytest

from mapek_domains.mesh.rest import COOL_DOWN
from mapek_runtime.loop.domain import Goal
from mapek_runtime.testing import check_plugin, run_cycle
from tests.unit.mesh.below import GOAL, LINK, OTHER, RING, Below, drained, knowing, region


async def test_it_keeps_the_contract_of_plugins() -> None:
    assert await check_plugin(region(Below())) == ()


async def test_a_link_that_fails_again_shall_rest_longer() -> None:
    below = Below()

    cycle = await run_cycle(
        region(below),
        node="region",
        knowledge=knowing(drained(ago=12), drained(OTHER, ago=8), drained(ago=2)),
    )

    (finding,) = cycle.findings
    assert (finding.target, finding.problem) == (LINK, "mesh.restless")
    assert [(e.metric, e.value, e.threshold) for e in finding.evidence] == [("link.failures", 2, 2)]
    assert [(a.name, a.target, a.parameters["value"]) for a in cycle.actions] == [("set_goal", LINK, 60)]
    assert [(r.action.name, r.rule) for r in cycle.rejections] == [("wait", "too slow")]
    (outcome,) = cycle.outcomes
    assert outcome.changed == "node-1~node-2 rests 60 s at least when it is drained (was 5 s)"
    assert below.wanted == {GOAL: Goal(name=GOAL, value=60.0, author="node-1")}
    assert below.told == [("goal.set", {"node": "region", "goal": GOAL, "value": 60.0, "before": 5.0})]


@pytest.mark.parametrize(
    "incidents",
    [
        ({"ago": 1.0}, {"ago": 9.0, "link": OTHER}),
        ({"ago": 1.0, "node": "node-1"}, {"ago": 0.0, "node": "node-2"}),
        ({"ago": 20.0}, {"ago": 10.0, "action": "undrain"}),
        ({"ago": 500.0}, {"ago": 400.0}),
        ({"ago": 20.0}, {"ago": 10.0}, {"ago": 9.5, "link": "node-2", "action": "restart"}),
        (),
    ],
    ids=["two links once", "both ends of one failure", "used again", "long ago", "a node died", "nothing"],
)
async def test_what_is_no_second_failure_of_a_link_changes_nothing(
    incidents: tuple[dict[str, Any], ...],
) -> None:
    below = Below()
    known = knowing(*(drained(**incident) for incident in incidents))

    cycle = await run_cycle(region(below), node="region", knowledge=known)

    assert (list(cycle.findings), list(cycle.actions), below.wanted) == ([], [], {})


async def test_only_a_share_of_the_links_may_be_told_to_rest() -> None:
    below = Below(all_links=[("node-3", "node-4"), ("node-3", "node-5"), ("node-4", "node-5"), ("a", "b")])
    failing = ("node-3~node-4", "node-3~node-5", "node-4~node-5")
    incidents = [drained(link, ago=ago) for link in failing for ago in (10, 1)]

    cycle = await run_cycle(region(below), node="region", knowledge=knowing(*incidents))

    assert [action.target for action in cycle.actions] == ["node-3~node-4", "node-3~node-5"]
    assert [r.action.target for r in cycle.rejections if r.rule == "fleet share"] == ["node-4~node-5"]


@pytest.mark.parametrize(
    ("links", "rules"),
    [
        ([*RING, ("node-2", "node-4")], ["too slow"]),
        (RING, ["no way to spare"]),
        ([("node-1", "node-2"), ("node-1", "node-3")], ["no way to spare"]),
    ],
    ids=["two other ways", "one other way of an end", "none of an end"],
)
async def test_a_link_that_cannot_be_spared_is_not_told_to_rest(
    links: list[tuple[str, str]], rules: list[str]
) -> None:
    below = Below(all_links=[*links])

    cycle = await run_cycle(region(below), node="region", knowledge=knowing(drained(ago=9), drained(ago=1)))

    assert [rejection.rule for rejection in cycle.rejections] == rules
    assert [action.target for action in cycle.actions] == ([LINK] if rules == ["too slow"] else [])


async def test_a_link_that_is_restless_itself_is_no_way_to_spare() -> None:
    below = Below(all_links=[*RING, ("node-2", "node-4")])
    failing = (LINK, "node-1~node-3")
    known = knowing(*(drained(link, ago=ago) for link in failing for ago in (10, 1)))

    cycle = await run_cycle(region(below), node="region", knowledge=known)

    refused = [(r.action.target, r.rule) for r in cycle.rejections if r.action.name == "set_goal"]
    assert refused == [(LINK, "no way to spare")]
    # Of the other one an end is of another process, whose ways nobody knows here.
    assert [action.target for action in cycle.actions] == ["node-1~node-3"]


async def test_a_goal_that_somebody_has_set_for_what_is_known_is_not_set_again() -> None:
    below = Below(wanted={GOAL: Goal(name=GOAL, value=60, author="node-9")})

    cycle = await run_cycle(region(below), node="region", knowledge=knowing(drained(ago=9), drained(ago=1)))

    assert cycle.actions == []
    assert [rejection.rule for rejection in cycle.rejections] == ["in force"]


@pytest.mark.parametrize("value", ["60", True, float("nan"), -1.0], ids=str)
async def test_a_goal_that_is_no_number_of_seconds_counts_as_not_set(value: bool | float | str) -> None:
    below = Below(wanted={GOAL: Goal(name=GOAL, value=value, author="node-9")})

    cycle = await run_cycle(region(below), node="region", knowledge=knowing(drained(ago=9), drained(ago=1)))

    assert cycle.readings(COOL_DOWN) == {}
    assert [outcome.success for outcome in cycle.outcomes] == [True]


async def test_a_goal_beyond_every_measure_counts_as_the_longest_rest_that_there_is() -> None:
    below = Below(wanted={GOAL: Goal(name=GOAL, value=float("inf"), author="node-9")})

    cycle = await run_cycle(region(below), node="region")

    assert cycle.readings(COOL_DOWN) == {LINK: 300.0}


async def test_a_node_that_runs_speaks_for_the_slow_loop() -> None:
    below = Below(alive_nodes={"node-1": False, "node-2": True})

    await run_cycle(region(below), node="region", knowledge=knowing(drained(ago=9), drained(ago=1)))

    assert below.wanted[GOAL].author == "node-2"


@pytest.mark.parametrize("below", [None, Below(alive_nodes={"node-1": False, "node-2": False})])
async def test_where_nobody_can_set_goals_it_says_so(below: Below | None) -> None:
    cycle = await run_cycle(region(below), node="region", knowledge=knowing(drained(ago=9), drained(ago=1)))

    (outcome,) = cycle.outcomes
    assert not outcome.success
    assert "nobody keeps goals here" in outcome.error


async def test_messages_that_arrive_are_seen_where_somebody_counts_them() -> None:
    below = Below(sent=100, delivered=90)
    plugin = region(below)

    first = await run_cycle(plugin, node="region")
    below.sent, below.delivered = 200, 185
    second = await run_cycle(plugin, node="region")
    third = await run_cycle(plugin, node="region")

    assert [cycle.readings("mesh.delivery") for cycle in (first, second, third)] == [
        {"": 0.9}, {"": 0.95}, {},
    ]  # fmt: skip
