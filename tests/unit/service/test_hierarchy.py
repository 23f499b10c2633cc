"""Loops over loops: what the slow one gets to know, and how it is run."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from mapek_runtime import Cycle
from mapek_runtime.config import HierarchySettings, decode, read_sources
from mapek_runtime.errors import ConfigError, PluginConflict
from mapek_runtime.loop import Goals
from mapek_runtime.testing import Recorder
from tests.unit.service.house import GOAL, Boss, House, Kept


async def test_the_slow_loop_knows_what_all_nodes_have_been_through_and_the_fast_ones_follow_it(
    recorder: Recorder,
) -> None:
    house, boss = House(), Boss(enough=3)

    async with house.run(boss):
        await house.until(lambda: all(house.following(node) for node in house.rooms))

    assert sorted((i.node, i.target) for i in boss.known) == [
        ("node-1", "node-1-0"), ("node-2", "node-2-0"), ("node-2", "node-2-1"),
    ]  # fmt: skip
    setter = next(
        span
        for span in recorder.named("mape_k.execute")
        if (span.attributes or {})["node_id"] == "region" and (span.attributes or {})["actions_executed"]
    )
    for node in house.rooms:
        (cycle,) = house.following(node)
        assert cycle.span_context is not None
        (span,) = [s for s in recorder.named("mape_k.cycle") if s.context == cycle.span_context]
        assert (span.attributes or {})["trigger"] == f"goal {GOAL}"
        assert setter.context in [link.context for link in span.links]
        assert span.parent is None


async def test_the_cycle_that_a_goal_starts_is_the_first_to_go_by_it() -> None:
    house = House()

    async with house.run(Boss(enough=3)):
        await house.until(lambda: all(house.following(node) for node in house.rooms))

    for node, room in house.rooms.items():
        number = house.following(node)[0].number
        assert room.saw[: number - 1] == [None] * (number - 1)
        assert room.saw[number - 1] == 23.5


async def test_where_a_domain_keeps_goals_the_hierarchy_offers_none() -> None:
    kept = Kept()
    house = House([kept])

    async with house.run(Boss(enough=3)) as hierarchy:
        await house.until(lambda: all(house.following(node) for node in house.rooms))

    assert not isinstance(hierarchy, Goals)
    assert kept.goals("node-1")[GOAL].value == 23.5


async def test_a_process_without_a_slow_loop_has_nothing_to_count() -> None:
    house = House()

    async with house.run(slow=False) as hierarchy:
        assert (hierarchy.statistics(), hierarchy.faults()) == ({}, {})


async def test_the_slow_loop_counts_for_itself() -> None:
    house = House()

    async with house.run(Boss(enough=3)) as hierarchy:
        await house.until(lambda: len(house.of("region")) >= 3)
        statistics = hierarchy.statistics()

    assert list(statistics) == ["region"]
    assert statistics["region"].cycles >= 3
    assert "region" not in house.loops.statistics()


async def test_a_run_that_only_watches_sets_no_goals() -> None:
    house = House(heal=False)

    async with house.run(Boss(enough=3)):
        await house.until(lambda: any(cycle.findings for cycle in house.of("region")))

    assert {"plan", "execute"} <= set(house.of("region")[-1].skipped)
    assert house.asked == []


async def test_the_slow_loop_needs_a_name_of_its_own() -> None:
    with pytest.raises(ConfigError, match="node is 'node-2', and so is a node of this process"):
        async with House().run(Boss(enough=3), node="node-2"):
            pass


async def test_a_plugin_of_the_slow_loop_that_cannot_be_used_stops_the_start() -> None:
    house = House()

    with pytest.raises(PluginConflict):
        async with house.run(Boss(enough=3), Boss(enough=3)):
            pass

    assert house.cycles == []


class Stuck:
    """Never ends its cycle."""

    async def monitor(self, cycle: Cycle) -> None:
        await asyncio.sleep(3600)


async def test_a_slow_loop_that_hangs_does_not_hold_up_the_end(autojump: object) -> None:
    house = House()

    async with house.run(Stuck()) as hierarchy:
        await house.until(lambda: len(house.of("node-1")) >= 2)

    assert hierarchy.statistics()["region"].cancelled == 1


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, HierarchySettings()),
        (
            {"ENABLED": "true", "NODE": "north", "INTERVAL": "30", "PLUGINS": "mesh_region,mine:Mine"},
            HierarchySettings(
                enabled=True, node="north", interval=30.0, plugins=("mesh_region", "mine:Mine")
            ),
        ),
    ],
    ids=["nothing set", "all set"],
)
def test_its_section_is_read(variables: Mapping[str, str], expected: HierarchySettings) -> None:
    environ = {f"MAPEK_HIERARCHY_{key}": text for key, text in variables.items()}

    assert decode(read_sources(environ=environ)).settings.hierarchy == expected


@pytest.mark.parametrize(("key", "text"), [("INTERVAL", "0"), ("NODE", "x" * 65), ("ENABLED", "perhaps")])
def test_what_cannot_be_is_refused(key: str, text: str) -> None:
    with pytest.raises(ConfigError, match=f"MAPEK_HIERARCHY_{key}"):
        decode(read_sources(environ={f"MAPEK_HIERARCHY_{key}": text}))
