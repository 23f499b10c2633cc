"""Nodes that learn: who coordinates, islands, and rounds that are asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from mapek_domains.fl.settings import FlSettings
from mapek_domains.fl.wire import (
    Ask,
    Download,
    encode,
)
from mapek_runtime import Action, Cycle, Finding, Outcome, SpanGroup
from mapek_runtime.loop.domain import Consensus, Grant
from mapek_runtime.testing import AutojumpClock, Recorder, check_plugin, run_cycle

from .toy import NAMES, WISHES, Toy, assert_nobody_went_back, net, until

group = SpanGroup("test")


@group.span
def cause(node: str) -> None:
    """Something that asks for a round."""


class Leads:
    """A consensus that knows who leads, and nothing else."""

    def __init__(self, leader: str | None) -> None:
        self.who = leader

    def leader(self, node_id: str) -> str | None:
        return self.who

    async def claim(self, node_id: str, key: str, *, hold: float, leader_only: bool = False) -> Grant:
        return Grant(key=key, granted=False)

    async def release(self, node_id: str, key: str, *, fence: int) -> None:
        """Nothing is held."""

    def claims(self, node_id: str, prefix: str = "") -> Mapping[str, str]:
        return {}

    async def configure(self, node_id: str, name: str, value: str, *, expected: int | None = None) -> int:
        return 0

    def configured(self, node_id: str, name: str) -> tuple[str, int]:
        return "", 0


class Acts:
    """A plugin whose every cycle does something."""

    async def analyze(self, cycle: Cycle) -> Sequence[Finding]:
        return (Finding(target="x", problem="broken"),)

    async def plan(self, cycle: Cycle) -> Sequence[Action]:
        return (Action(name="mend", target="x"),)

    async def execute(self, cycle: Cycle, action: Action) -> Outcome:
        return Outcome(action=action, success=True)


@pytest.mark.parametrize(
    ("leader", "coordinator"),
    [("b", "b"), (None, "a"), ("gone", "a")],
    ids=["the leader", "no leader", "a leader that cannot be reached"],
)
async def test_who_coordinates(autojump: AutojumpClock, leader: str | None, coordinator: str) -> None:
    leads = Leads(leader)
    assert isinstance(leads, Consensus)

    async with net(Toy(WISHES), offers=(leads,)) as here:
        await here.rounds(1)
        await until(lambda: len(here.learner.adopted) == 3)

        assert set(here.versions().values()) == {(1, coordinator)}


async def test_when_the_leader_changes_the_rounds_go_on(autojump: AutojumpClock) -> None:
    leads = Leads("c")
    async with net(Toy(WISHES), offers=(leads,)) as here:
        await here.rounds(2)
        leads.who = "b"
        await here.rounds(4)
        await until(lambda: len(here.learner.adopted) == 12)

    assert [event["round"] for event in here.events] == [1, 2, 3, 4]
    assert {(a, b) for a, b, _ in here.sent(Download)} == {(x, y) for x in "cb" for y in NAMES}


async def test_two_that_coordinate_at_once_end_with_one_model(autojump: AutojumpClock) -> None:
    class TwoMinds(Leads):
        def leader(self, node_id: str) -> str | None:
            return node_id if node_id in {"a", "b"} else "a"

    minds: Any = TwoMinds(None)
    async with net(Toy(WISHES), offers=(minds,)) as here:
        await until(lambda: len(here.events) >= 20)
        minds.leader = lambda _node: "a"
        before = here.versions()
        count = len(here.events)
        await here.rounds(count + 2)
        await until(lambda: len(set(here.versions().values())) == 1)
        after = here.versions()

    assert all(after[name] > before[name] for name in NAMES)
    assert_nobody_went_back(here.learner)


# Islands


async def test_two_islands_go_on_and_the_one_that_came_further_wins(autojump: AutojumpClock) -> None:
    names = ("a", "b", "c", "d", "e")
    async with net(Toy(dict.fromkeys(names, 4.0)), nodes=names) as here:
        await here.rounds(1)
        here.messenger.islands = {"d": 1, "e": 1}
        await until(lambda: here.session.nodes["a"].version.round >= 4)
        here.session.nodes["d"]._coordinator.asked()
        here.session.nodes["d"]._coordinator._began -= 100.0
        await until(lambda: here.session.nodes["d"].version.round > here.session.nodes["a"].version.round)
        apart = here.versions()
        here.messenger.islands = {}
        await until(lambda: len(set(here.versions().values())) == 1)
        together = here.versions()["a"]

    assert apart["a"][1] == apart["c"][1] == "a"
    assert apart["d"][1] == apart["e"][1] == "d"
    assert together >= max(apart.values())
    assert_nobody_went_back(here.learner)


async def test_a_node_that_is_cut_off_makes_no_model_of_its_own(autojump: AutojumpClock) -> None:
    async with net(Toy(WISHES)) as here:
        await here.rounds(1)
        here.messenger.islands = {"c": 1}
        await here.rounds(4)
        alone = here.versions()["c"]
        here.messenger.islands = {}
        await here.rounds(5)
        await until(lambda: here.versions()["c"] == (5, "a"))

    assert alone == (1, "a")
    assert [event["clients"] for event in here.events] == [3, 2, 2, 2, 3]


async def test_a_coordinator_that_knows_less_first_fetches_what_others_know(autojump: AutojumpClock) -> None:
    async with net(Toy(WISHES)) as here:
        here.messenger.islands = {"a": 1}
        await here.rounds(3)
        here.messenger.islands = {}
        await here.rounds(4)

    assert [event["round"] for event in here.events] == [1, 2, 3, 4]
    assert here.events[3]["clients"] == 3
    assert here.session.counts("a").get("round.not_caught_up", 0) == 0


# Asking


async def test_a_round_that_was_asked_for_is_under_the_phase_that_asked(
    autojump: AutojumpClock, recorder: Recorder
) -> None:
    async with net(Toy({"a": 1.0, "b": 2.0}), nodes=("a", "b")) as here:
        await asyncio.sleep(3.0)
        cycle = await run_cycle(Acts(), *here.session.plugins("b"), node="b")
        asked = autojump.elapsed
        await here.rounds(1)
        took = autojump.elapsed - asked

    knowledge = recorder.one("mape_k.knowledge")
    (forward,) = recorder.children(knowledge)
    (aggregation,) = recorder.children(forward)
    assert cycle.outcomes
    assert cycle.failures == ()
    assert aggregation.name == "fl.aggregation"
    assert len({span.context.trace_id for span in recorder.spans if span.context}) == 1
    assert took < 1.0
    assert here.sent(Ask) == [("b", "a", Ask("mend x"))]


async def test_rounds_that_are_asked_for_keep_their_distance(autojump: AutojumpClock) -> None:
    async with net(Toy(WISHES), FlSettings(interval=1000.0, gap=2.0)) as here:
        for _ in range(100):
            with cause("b"):
                await here.session.nodes["b"].ask("again")
            await asyncio.sleep(0.1)

    assert 4 <= len(here.events) <= 5


async def test_a_round_that_several_asked_for_is_linked_to_all(
    autojump: AutojumpClock, recorder: Recorder
) -> None:
    async with net(Toy(WISHES), FlSettings(interval=1000.0)) as here:
        await asyncio.sleep(0.1)
        for name in NAMES:
            with cause(name):
                await here.session.nodes[name].ask("news")
        await here.rounds(1)

    round_span = recorder.one("fl.aggregation")
    causes = {span.context.span_id for span in recorder.named("test.cause") if span.context}
    forwards = {s.context.span_id for s in recorder.named("mesh.message_forward") if s.context}
    assert round_span.parent is not None
    assert round_span.parent.span_id in causes
    assert len(round_span.links) == 2
    assert {link.context.span_id for link in round_span.links} <= forwards


async def test_a_cycle_that_did_nothing_asks_for_nothing(autojump: AutojumpClock) -> None:
    async with net(Toy(WISHES)) as here:
        await run_cycle(*here.session.plugins("b"), node="b")
        await asyncio.sleep(0.1)

        assert here.sent(Ask) == []


async def test_a_cycle_sees_what_was_learned(autojump: AutojumpClock) -> None:
    async with net(Toy(WISHES)) as here:
        (plugin,) = here.session.plugins("b")
        before = await run_cycle(plugin, node="b")
        await here.rounds(1)
        await until(lambda: here.versions()["b"] == (1, "a"))
        after, later = await run_cycle(plugin, node="b"), await run_cycle(plugin, node="b")

    assert {o.name: o.value for o in before.observations} == {"fl.round": 0, "fl.samples": 10}
    assert {o.name: o.value for o in after.observations} == {"fl.round": 1, "fl.samples": 10, "fl.loss": 1.0}
    assert [(i.name, i.value) for i in after.insights] == [("fl.model", 1)]
    assert before.insights == later.insights == []


async def test_the_plugin_keeps_its_contract(autojump: AutojumpClock) -> None:
    async with net(Toy(WISHES)) as here:
        await asyncio.sleep(0.1)
        assert await check_plugin(here.session.plugins("b")[0]) == ()


async def test_who_does_not_coordinate_does_not_begin_a_round(autojump: AutojumpClock) -> None:
    async with net(Toy(WISHES), FlSettings(interval=1000.0)) as here:
        await asyncio.sleep(0.1)
        await here.messenger.send("a", "b", "fl", encode(Ask("please")))
        await asyncio.sleep(10.0)

    assert here.events == []
    assert here.session.counts("b")["ask.elsewhere"] == 1
