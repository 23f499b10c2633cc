"""A slow loop that is where the leader is, and what slow loops of several regions get to know."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from mapek_runtime import Cycle, Knowledge
from mapek_runtime.config import HierarchySettings, LoopSettings
from mapek_runtime.errors import ConfigError, PluginConflict
from mapek_runtime.loop import DomainContext, Grant
from mapek_runtime.service.gather import Gather
from mapek_runtime.service.hierarchy import Hierarchy, SlowLoop, open_hierarchy
from mapek_runtime.testing import Recorder
from tests.unit.service.house import Boss, House


class Elected:
    """A consensus whose leader the test elects."""

    def __init__(self, leader: str | None = None) -> None:
        self.leads = leader

    def plugins(self, node_id: str) -> Sequence[object]:
        return ()

    def leader(self, node_id: str) -> str | None:
        return self.leads

    async def claim(self, node_id: str, key: str, *, hold: float, leader_only: bool = False) -> Grant:
        return Grant(key=key, granted=False)

    async def release(self, node_id: str, key: str, *, fence: int) -> None:
        return None

    def claims(self, node_id: str, prefix: str = "") -> Mapping[str, str]:
        return {}

    async def configure(self, node_id: str, name: str, value: str, *, expected: int | None = None) -> int:
        return 0

    def configured(self, node_id: str, name: str) -> tuple[str, int]:
        return "", 0


class Master(Boss):
    """Begins anew with each leader, and says for whom it speaks."""

    def __init__(self, spoke: list[tuple[str, ...]]) -> None:
        super().__init__(enough=3)
        self.spoke = spoke

    def oversee(self, context: DomainContext) -> None:
        super().oversee(context)
        self.spoke.append(context.nodes)


@asynccontextmanager
async def led(house: House, plugins: Callable[[], Sequence[object]]) -> AsyncIterator[Hierarchy]:
    slow = SlowLoop(
        settings=HierarchySettings(enabled=True, node="master", interval=0.05, leader_only=True),
        loop=LoopSettings(),
        plugins=plugins,
        on_cycle=house.ended,
    )
    async with open_hierarchy(house.context, slow) as hierarchy:
        house.sessions.append(hierarchy)
        try:
            await house.loops.start(tuple(house.rooms))
            yield hierarchy
        finally:
            await house.loops.cancel()


async def test_a_master_that_is_lost_is_followed_by_one_that_knows_what_the_nodes_know(
    recorder: Recorder,
) -> None:
    elected, spoke = Elected("node-1"), list[tuple[str, ...]]()
    house = House([elected])

    async with led(house, lambda: [Master(spoke)]) as hierarchy:
        await house.until(lambda: all(house.following(node) for node in house.rooms))
        elected.leads = None
        await house.loops.crashed("node-1")
        await house.until(lambda: not hierarchy.faults() and len(house.of("node-2")) > 20)
        during = len(house.of("master@node-2"))
        elected.leads = "node-2"
        await house.until(lambda: bool(house.of("master@node-2")))

    assert during == 0
    assert spoke == [("node-1", "node-2"), ("node-2", "node-1")]
    setter = next(
        span
        for span in recorder.named("mape_k.execute")
        if (span.attributes or {})["node_id"] == "master@node-1"
        and (span.attributes or {})["actions_executed"]
    )
    for node in house.rooms:
        (cycle,) = house.following(node)
        (span,) = [s for s in recorder.named("mape_k.cycle") if s.context == cycle.span_context]
        assert setter.context in [link.context for link in span.links]
    # Two incidents of node-2 and one of node-1, whose own memory is gone.
    follower = house.of("master@node-2")[0]
    assert len(follower.knowledge.incidents()) == 3
    assert house.rooms["node-2"].saw[-1] == 23.5


async def test_nobody_is_master_while_nobody_of_this_process_leads() -> None:
    spoke = list[tuple[str, ...]]()
    house = House([Elected("node-9")])

    async with led(house, lambda: [Master(spoke)]):
        await house.until(lambda: len(house.of("node-1")) > 20)

    assert spoke == []
    assert not [cycle for cycle in house.cycles if cycle.node_id.startswith("master")]


async def test_a_master_needs_somebody_who_elects_a_leader() -> None:
    with pytest.raises(ConfigError, match="leader_only is true, and no domain of this run elects"):
        async with led(House(), list):
            pass


async def test_a_plugin_that_cannot_be_used_stops_the_start_although_nobody_leads() -> None:
    with pytest.raises(PluginConflict):
        async with led(House([Elected()]), lambda: [Boss(enough=3), Boss(enough=3)]):
            pass


async def test_the_slow_loop_of_a_region_knows_the_facts_of_its_nodes_and_no_others() -> None:
    mine, other = Knowledge(node="north-1"), Knowledge(node="south-1")
    mine.remember("version", 1.0)
    mine.hear_fact("version", 2.0, "north-2")
    mine.hear_fact("version", 3.0, "south-2")
    # What another still says of north-1 is older than what it says itself.
    other.hear_fact("version", 0.5, "north-1")
    other.remember("version", 4.0)
    cycle = Cycle(node_id="north", number=1, triggers=(), started=0.0, knowledge=Knowledge(node="north"))
    gather = Gather({"north-1": mine, "south-1": other}, ("north-1", "north-2"))

    await gather.monitor(cycle)
    found = dict(cycle.knowledge.facts_elsewhere("version"))
    mine.hear_fact("version", None, "north-2")
    await gather.monitor(replace(cycle, number=2))

    assert found == {"north-1": 1.0, "north-2": 2.0}
    assert dict(cycle.knowledge.facts_elsewhere("version")) == {"north-1": 1.0}
