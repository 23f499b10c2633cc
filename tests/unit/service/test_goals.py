"""Goals: where they are kept, and how the fast loops follow them."""

from __future__ import annotations

from dataclasses import replace

from opentelemetry.trace import SpanContext, TraceFlags

from mapek_runtime.loop import Goal, Goals
from mapek_runtime.testing import Recorder
from tests.unit.service.house import GOAL, House, Kept


async def test_each_change_of_a_goal_is_followed_once() -> None:
    house = House([Kept()])
    goals = house.find(Goals)

    async with house.run(slow=False):
        for value in (20.0, 21.0, 21.0, 22.0):
            await house.until(lambda: bool(house.of("node-1")))
            house.cycles.clear()
            goals.set_goal("node-1", GOAL, value)
            await house.until(lambda: len(house.of("node-1")) >= 4)
        await house.until(lambda: house.rooms["node-1"].saw[-1] == 22.0)

    assert house.asked.count(("node-1", f"goal {GOAL}")) == 3


async def test_a_goal_from_before_the_node_started_is_known_and_no_news() -> None:
    house = House([Kept()])
    house.find(Goals).set_goal("node-9", GOAL, 19.0)

    async with house.run(slow=False):
        await house.until(lambda: len(house.of("node-1")) >= 4)

    assert house.rooms["node-1"].saw[1] == 19.0
    assert house.asked == []


async def test_a_cycle_that_somebody_else_has_asked_for_is_not_asked_for_again() -> None:
    house = House([Kept()])

    async with house.run(slow=False):
        await house.until(lambda: len(house.of("node-1")) >= 2)
        # As a domain does that learns of a goal: kept and told in one step.
        house.find(Goals).set_goal("node-1", GOAL, 20.0)
        house.loops.trigger("node-1", f"goal {GOAL}")
        await house.until(lambda: len(house.following("node-1")) >= 1)
        count = len(house.of("node-1"))
        await house.until(lambda: len(house.of("node-1")) >= count + 3)

    assert [node for node, _ in house.asked if node == "node-1"] == []


async def test_a_goal_that_was_set_outside_of_any_span_starts_a_cycle_without_that_link(
    recorder: Recorder,
) -> None:
    house = House([Kept()])

    async with house.run(slow=False):
        await house.until(lambda: len(house.of("node-1")) >= 2)
        house.find(Goals).set_goal("node-1", GOAL, 20.0)
        await house.until(lambda: bool(house.following("node-1")))

    (cycle,) = house.following("node-1")
    assert [trigger.span_context for trigger in cycle.triggers if trigger.reason != "interval"] == [None]


async def test_a_goal_has_its_author_and_the_span_that_set_it(recorder: Recorder) -> None:
    house = House()
    async with house.run(slow=False):
        await house.until(lambda: bool(house.of("node-1")))
        goals = house.find(Goals)
        with recorder.provider.get_tracer("test").start_as_current_span("setter") as span:
            goals.set_goal("node-2", GOAL, 1)
        expected = Goal(name=GOAL, value=1, author="node-2", number=1, span_context=span.get_span_context())

        assert goals.goals("node-1") == goals.goals("node-2") == {GOAL: expected}


async def test_a_node_that_starts_again_goes_by_the_goals_in_force() -> None:
    house = House()
    async with house.run(slow=False):
        await house.until(lambda: bool(house.of("node-1")))
        house.find(Goals).set_goal("node-2", GOAL, 19.0)
        await house.loops.crashed("node-1")
        await house.loops.restarted("node-1")
        house.cycles.clear()
        await house.until(lambda: len(house.of("node-1")) >= 4)

        assert house.rooms["node-1"].saw[-1] == 19.0
        assert not house.following("node-1")


async def test_what_another_process_wants_is_followed_when_the_node_gets_to_know_it() -> None:
    house = House()
    setter = SpanContext(1, 2, is_remote=True, trace_flags=TraceFlags(1))
    wanted = Goal(name=GOAL, value=18.0, author="node-9", number=4, span_context=setter)

    async with house.run(slow=False):
        await house.until(lambda: bool(house.of("node-1")))
        # As a domain does that shares knowledge.
        house.of("node-1")[0].knowledge.hear_goal(GOAL, wanted)
        await house.until(lambda: bool(house.following("node-1")))
        # It comes again, by another way.
        house.of("node-1")[0].knowledge.hear_goal(GOAL, replace(wanted, number=5))
        count = len(house.of("node-1"))
        await house.until(lambda: len(house.of("node-1")) >= count + 3)

    (cycle,) = house.following("node-1")
    assert [t.span_context for t in cycle.triggers if t.reason == f"goal {GOAL}"] == [setter]
    assert house.following("node-2") == []


async def test_what_is_set_here_holds_against_what_was_wanted_elsewhere() -> None:
    house = House()
    async with house.run(slow=False):
        await house.until(lambda: bool(house.of("node-1")) and bool(house.of("node-2")))
        elsewhere = Goal(name=GOAL, value=18.0, author="node-9", number=4)
        house.of("node-2")[0].knowledge.hear_goal(GOAL, elsewhere)
        house.find(Goals).set_goal("node-1", GOAL, 21.0)

        assert {node: goal_of(house, node) for node in house.rooms} == dict.fromkeys(house.rooms, 21.0)


def goal_of(house: House, node: str) -> object:
    return house.of(node)[0].knowledge.goal(GOAL)
