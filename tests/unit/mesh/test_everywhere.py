"""A mesh that begins to lose everywhere: its loops must not drain it to pieces."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import pytest

from benchmarks.linkmodel_trial import share_what_was_learned
from benchmarks.linkmodel_world import World
from mapek_domains.fl.normality import LinkNormality
from mapek_domains.fl.settings import FlSettings
from mapek_domains.mesh.engine import LinkReading, link_id
from mapek_domains.mesh.heal import MeshHealer
from mapek_domains.mesh.watch import MeshWatcher
from mapek_runtime import Action, Cycle, Knowledge

pytestmark = pytest.mark.slow

CHANGE = 45.0


class Node:
    """A node of a world, that finds and plans and is never obeyed."""

    notices_after = 2.5

    def __init__(self, node_id: str, world: World, model: LinkNormality) -> None:
        self.node_id = node_id
        self._world = world
        self._readings: Sequence[LinkReading] = ()
        self._watcher = MeshWatcher(self, lambda: model)
        self._healer = MeshHealer(self._watcher)
        self.found: set[tuple[str, str]] = set()
        self.wanted: set[str] = set()

    async def turn(self, at: float, readings: Sequence[LinkReading]) -> None:
        self._readings = readings
        cycle = Cycle(node_id=self.node_id, number=1, triggers=(), started=at, knowledge=Knowledge())
        await self._watcher.monitor(cycle)
        cycle.findings = tuple(await self._watcher.analyze(cycle))
        self.found |= {(finding.problem, finding.target) for finding in cycle.findings}
        plan = await self._healer.plan(cycle)
        self.wanted |= {option.target for option in plan if isinstance(option, Action)}

    def links(self) -> Sequence[LinkReading]:
        return self._readings

    def nodes(self) -> Mapping[str, bool]:
        return dict.fromkeys(self._world.nodes, True)

    def edges(self) -> Sequence[tuple[str, str]]:
        return self._world.links

    def route(self, destination: str) -> Sequence[str]:
        return (self.node_id, destination)

    def stalled(self) -> float:
        return 0.0

    async def drain(self, link: str) -> str:
        raise AssertionError(link)

    undrain = restart = drain


async def play(seed: int, *, loss: float, links: Sequence[str] = (), usual: float = 0.0) -> list[Node]:
    """The nodes of a mesh after these links, or all, have lost so much for a quarter of a minute."""
    world = World(seed)
    for a, b in world.links:
        world.change(a, b, loss=usual)
        world.change(b, a, loss=usual)
    model = LinkNormality(FlSettings(), random.Random(seed))
    nodes = {name: Node(name, world, model) for name in world.nodes}
    weights, number = model.initial(), 0
    changed = False
    for read in world.run(CHANGE + 15.0):
        if read.at >= 10.0 * (number + 1):
            number += 1
            weights = share_what_was_learned(model, world.nodes, weights, number)
        if read.at >= CHANGE and not changed:
            changed = True
            assert not any(node.found for node in nodes.values())
            for a, b in world.links:
                if not links or link_id(a, b) in links:
                    world.change(a, b, loss=loss)
                    world.change(b, a, loss=loss)
        for name, readings in read.nodes.items():
            await nodes[name].turn(read.at, readings)
    return list(nodes.values())


@pytest.mark.parametrize("loss", [0.12, 0.25])
async def test_a_mesh_that_begins_to_lose_everywhere_is_hardly_drained(loss: float) -> None:
    nodes = [node for seed in range(2) for node in await play(seed, loss=loss)]

    # Seven links each, of which one end has bad luck at times before the others are seen to be as bad.
    assert sum(len(node.wanted) for node in nodes) <= 2


async def test_one_link_that_begins_to_lose_as_much_is_drained() -> None:
    nodes = await play(1, loss=0.2, links=["node-1~node-2"])

    assert set().union(*(node.found for node in nodes)) == {("link.lossy", "node-1~node-2")}
    assert set().union(*(node.wanted for node in nodes)) == {"node-1~node-2"}


async def test_in_a_mesh_that_always_loses_a_tenth_only_what_loses_more_is_found() -> None:
    nodes = await play(1, loss=0.35, links=["node-1~node-2"], usual=0.1)

    assert set().union(*(node.found for node in nodes)) == {("link.lossy", "node-1~node-2")}
