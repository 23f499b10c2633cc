"""Knowledge that others share: what is heard, counted once, and told on."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from mapek_runtime import Knowledge
from mapek_runtime.loop.knowledge import Change, Fact, Goal
from mapek_runtime.loop.knowledge_sqlite import SqliteStore
from tests.unit.crdt.net import incident


def test_listeners_hear_of_each_own_change_and_of_nothing_else() -> None:
    knowledge = Knowledge(node="node-1")
    heard: list[Change] = []
    stop = knowledge.listen(heard.append)

    knowledge.remember("a", 1)
    knowledge.remember("a", 1)
    knowledge.remember("a", 2)
    knowledge.close(incident(1))
    goal = knowledge.set_goal("loss", 0.5)
    knowledge.absorb(incident(2), "node-2")
    knowledge.hear_fact("b", 1, "node-2")
    knowledge.hear_fact("c", 1, "node-1")
    knowledge.hear_goal("rate", Goal(name="rate", value=1, author="node-2", number=1))
    stop()
    stop()
    knowledge.remember("a", 3)

    assert heard == [Fact("a", 1), Fact("a", 2), incident(1), goal]


def test_an_incident_of_another_node_is_counted_once_however_often_it_comes() -> None:
    knowledge = Knowledge(node="node-1")
    knowledge.close(incident(5))
    failed = incident(3, success=False, repair_seconds=None)

    taken = [knowledge.absorb(failed, "node-2") for _ in range(3)]
    taken += [knowledge.absorb(incident(9), "node-3"), knowledge.absorb(incident(9), "node-2")]

    assert taken == [True, False, False, True, True]
    assert [(each.opened - 1.7e9, each.node) for each in knowledge.incidents()] == [
        (3.0, "node-2"),
        (5.0, ""),
        (9.0, "node-3"),
        (9.0, "node-2"),
    ]
    assert knowledge.success_rate("drain") == pytest.approx(3 / 4)
    assert knowledge.success_rate("drain", "node-1~node-2") == pytest.approx(3 / 4)
    assert knowledge.repair_seconds("drain") == 2.25


async def test_own_incidents_that_come_back_are_not_counted_twice(tmp_path: Any) -> None:
    first = Knowledge(SqliteStore(tmp_path / "node-1.db"), node="node-1")
    first.close(incident(1))
    await first.aclose()
    second = Knowledge(SqliteStore(tmp_path / "node-1.db"), node="node-1")
    await second.load()
    second.close(incident(2))

    again = [second.absorb(incident(number), "node-1") for number in (1, 2, 3)]

    assert again == [False, False, True]
    assert len(second.incidents()) == 3
    assert second.success_rate("drain") == 1.0
    await second.aclose()


async def test_what_was_absorbed_is_not_written_to_this_nodes_store(tmp_path: Any) -> None:
    knowledge = Knowledge(SqliteStore(tmp_path / "node-1.db"), node="node-1")
    knowledge.absorb(incident(1), "node-2")
    knowledge.hear_fact("a", 1, "node-2")
    knowledge.told("node-2", "drain", "x", successes=1, failures=0)
    knowledge.hear_goal("loss", Goal(name="loss", value=1, author="node-2", number=3))
    assert knowledge.unsaved == 0
    knowledge.hear_fact("mine", 7, "node-1")
    await knowledge.aclose()

    again = Knowledge(SqliteStore(tmp_path / "node-1.db"), node="node-1")
    await again.load()
    await again.aclose()

    assert again.incidents() == ()
    assert again.facts() == {"mine": 7}


def test_facts_of_other_nodes_stand_beside_the_own_ones() -> None:
    knowledge = Knowledge(node="node-1")
    knowledge.remember("a", 1)
    knowledge.hear_fact("a", 2, "node-2")
    knowledge.hear_fact("a", 3, "node-3")
    knowledge.hear_fact("a", 9, "node-1")

    assert knowledge.fact("a") == 1
    assert knowledge.facts_elsewhere("a") == {"node-2": 2, "node-3": 3}
    assert knowledge.facts_elsewhere("b") == {}
    knowledge.hear_fact("a", None, "node-2")
    knowledge.hear_fact("a", None, "node-9")
    knowledge.hear_fact("a", None, "node-3")
    assert knowledge.facts_elsewhere("a") == {}
    assert knowledge.facts() == {"a": 1}


def test_a_fact_of_an_earlier_life_fills_what_is_not_known() -> None:
    knowledge = Knowledge(node="node-1")
    knowledge.remember("a", 1)

    for key in "ab":
        knowledge.hear_fact(key, 2, "node-1")

    assert knowledge.facts() == {"a": 1, "b": 2}


def test_what_a_node_says_of_all_its_deeds_holds_where_it_says_more() -> None:
    knowledge = Knowledge(node="node-1")
    knowledge.absorb(incident(1, success=False, repair_seconds=None), "node-2")
    knowledge.told("node-2", "drain", "node-1~node-2", successes=8, failures=1)
    assert knowledge.success_rate("drain") == pytest.approx(8 / 9)
    knowledge.absorb(incident(2, success=False, repair_seconds=None), "node-2")
    assert knowledge.success_rate("drain") == pytest.approx(8 / 10)
    knowledge.told("node-2", "drain", "node-1~node-2", successes=8, failures=2)
    assert knowledge.success_rate("drain") == pytest.approx(8 / 10)
    knowledge.told("node-1", "drain", "other", successes=1, failures=0)
    knowledge.close(incident(3, target="other"))

    assert knowledge.success_rate("drain", "other") == 1.0
    assert knowledge.success_rate("drain") == pytest.approx(9 / 11)
    assert knowledge.success_rate("undrain") is None


def test_of_two_goals_the_higher_number_holds_and_then_the_later_name() -> None:
    knowledge = Knowledge(node="node-2")
    assert knowledge.goal("loss") is None
    knowledge.set_goal("loss", 1)

    knowledge.hear_goal("loss", Goal(name="loss", value=2, author="node-1", number=1))
    assert knowledge.goal("loss") == 1
    knowledge.hear_goal("loss", Goal(name="loss", value=3, author="node-3", number=1))
    assert knowledge.goal("loss") == 3
    assert knowledge.set_goal("loss", 4).number == 2
    assert knowledge.goals()["loss"].author == "node-2"
    knowledge.hear_goal("loss", None)
    assert knowledge.goal("loss") is None
    value: Any = [1]
    with pytest.raises(TypeError, match=r"goal 'loss' is \[1\]; it must be a bool"):
        knowledge.set_goal("loss", value)


def test_incidents_of_others_do_not_push_out_newer_ones() -> None:
    knowledge = Knowledge(node="node-1")
    for number in range(1000, 2000):
        knowledge.close(incident(number))

    knowledge.absorb(incident(1), "node-2")
    assert [each.node for each in knowledge.incidents()] == [""] * 1000
    knowledge.absorb(incident(1500), "node-2")
    kept = knowledge.incidents()
    assert len(kept) == 1000
    assert [each.opened for each in kept] == sorted(each.opened for each in kept)
    assert sum(each.node == "node-2" for each in kept) == 1
    assert knowledge.absorb(incident(1), "node-2") is False


async def test_the_identities_that_are_remembered_are_bounded() -> None:
    knowledge = Knowledge()
    for number in range(12_000):
        knowledge.absorb(replace(incident(number), success=None), "node-2")
        if not number % 1000:
            await asyncio.sleep(0)

    assert len(knowledge._identities) == 10_000
    assert len(knowledge.incidents()) == 1000
