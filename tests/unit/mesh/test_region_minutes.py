"""The slow loop of the mesh over minutes: how long links shall rest, and when that is taken back."""

from __future__ import annotations

import asyncio
import time

import pytest

from mapek_domains.mesh.rest import COOL_DOWN, USUAL
from mapek_runtime import Cycle, Knowledge, Runtime
from mapek_runtime.testing import AutojumpClock
from tests.unit.mesh.below import GOAL, LINK, OTHER, Below, drained, region


class Played:
    """A slow loop over minutes, on the clock that jumps; links fail when it is told."""

    def __init__(self, clock: AutojumpClock, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(time, "time", lambda: clock.time_ns() / 1e9)
        self.below = Below()
        self.knowledge = Knowledge()
        self.cycles: list[Cycle] = []

    def loop(self) -> Runtime:
        return Runtime(
            region(self.below),
            node_id="region",
            interval=5.0,
            knowledge=self.knowledge,
            on_cycle=self.cycles.append,
        )

    def fails(self, link: str = LINK) -> None:
        self.knowledge.absorb(drained(link), "node-1")

    def goal(self) -> object:
        return self.below.wanted[GOAL].value if GOAL in self.below.wanted else None

    def insights(self) -> list[str]:
        return [insight.name for cycle in self.cycles for insight in cycle.insights]


async def test_when_all_is_calm_for_the_rest_and_a_window_the_goal_is_taken_back(
    autojump: AutojumpClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    played = Played(autojump, monkeypatch)
    async with played.loop():
        played.fails()
        await asyncio.sleep(9)
        played.fails()
        await asyncio.sleep(6)
        raised = played.goal()
        await asyncio.sleep(110)
        still = played.goal()
        await asyncio.sleep(20)
        calm = played.goal()
        await asyncio.sleep(20)

    assert (raised, still, calm) == (60.0, 60.0, USUAL)
    assert played.insights() == ["repair.verified", "repair.verified"]
    found = next(f for cycle in played.cycles for f in cycle.findings if f.problem == "mesh.calm")
    assert not found.anomaly
    assert found.evidence[0].value >= found.evidence[0].threshold == 120.0


async def test_a_link_that_fails_again_after_its_rest_gets_twice_as_much_up_to_the_most(
    autojump: AutojumpClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    played = Played(autojump, monkeypatch)
    goals = []
    async with played.loop():
        played.fails()
        for rest in (9, 70, 130, 250, 250):
            await asyncio.sleep(rest)
            played.fails()
            await asyncio.sleep(6)
            goals.append(played.goal())

    assert goals == [60.0, 120.0, 240.0, 240.0, 240.0]
    assert "repair.failed" not in played.insights()


async def test_each_link_has_a_goal_of_its_own(
    autojump: AutojumpClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    played = Played(autojump, monkeypatch)
    async with played.loop():
        for link, after in ((LINK, 9), (LINK, 60), (OTHER, 9), (OTHER, 9)):
            played.fails(link)
            await asyncio.sleep(after)
        both = set(played.below.wanted)
        await asyncio.sleep(60)
        values = {name: goal.value for name, goal in played.below.wanted.items()}

    assert both == {GOAL, f"{COOL_DOWN} {OTHER}"}
    # The one that failed first has been well for long enough.
    assert values == {GOAL: USUAL, f"{COOL_DOWN} {OTHER}": 60.0}


async def test_a_goal_under_which_the_link_fails_as_often_is_undone(
    autojump: AutojumpClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    played = Played(autojump, monkeypatch)
    async with played.loop():
        for _ in range(2):
            played.fails()
            await asyncio.sleep(9)
        raised = played.goal()
        for _ in range(7):
            played.fails()
            await asyncio.sleep(9)

    assert raised == 60.0
    assert "repair.failed" in played.insights()
    undone = [o for c in played.cycles for o in c.outcomes if o.action.parameters.get("undo")]
    assert [outcome.changed for outcome in undone] == [
        "node-1~node-2 rests 5 s at least when it is drained (was 60 s)"
    ]
