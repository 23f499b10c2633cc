"""Nodes of a demonstration that take time to boot, and what others think of those behind them meanwhile."""

from __future__ import annotations

import asyncio

import pytest

from mapek_domains.mesh.settings import MeshSettings
from tests.integration.test_udp_mesh import fault, mesh, until

WAIST = tuple(
    (f"node-{a}", f"node-{b}")
    for a, b in [(1, 2), (1, 4), (2, 6), (4, 6), (1, 3), (2, 3), (3, 5), (3, 7), (5, 7)]
)
"""Two groups that meet in node-3 alone."""


async def test_who_restarts_a_node_that_boots_makes_it_begin_anew() -> None:
    loop = asyncio.get_running_loop()
    async with mesh(heal=False, settings=MeshSettings(boot=0.6)) as (session, _):
        await session.inject(fault("node.crash", "node-3"))
        await session.restart("node-3")
        await asyncio.sleep(0.4)
        began = loop.time()
        await session.restart("node-3")
        await until(lambda: session.alive()["node-3"])
        took = loop.time() - began
        await session.crash("node-3")
        await session.restart("node-3")
        # What booted when the block is left does not hold it up.

    assert took >= 0.6


@pytest.mark.slow
async def test_a_node_that_has_booted_makes_those_behind_it_look_dead_to_nobody() -> None:
    async with mesh(nodes=7, heal=False, settings=MeshSettings(links=WAIST)) as (session, _):
        first = session.nodes["node-1"]
        unheard: set[str] = set()
        settled = asyncio.Event()
        # Only whom others have heard once can be missed.
        await asyncio.sleep(0.5)
        assert first.unheard() == []

        await session.crash("node-3")
        await until(lambda: "node-5" not in session.reachable("node-1"))
        await asyncio.sleep(0.5)
        await session.restart("node-3")
        routed = asyncio.ensure_future(
            until(lambda: {"node-5", "node-7"} <= set(session.reachable("node-1")))
        )
        routed.add_done_callback(lambda _: asyncio.get_running_loop().call_later(1.0, settled.set))
        while not settled.is_set():
            unheard.update(first.unheard())
            await asyncio.sleep(0.002)
        await routed
        assert not unheard

        await session.crash("node-5")
        await until(lambda: first.unheard() == ["node-5"])
