"""Five processes of one node each on one machine are one system, as five nodes in one process are.

They find one another over real sockets, and are cut off, stopped and killed by the test.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.processes import Machine, NodeProcess, exported, machine

pytestmark = pytest.mark.slow

NODES = tuple(f"node-{number}" for number in range(1, 6))

Holds = Callable[[NodeProcess], object]


def reaches(*others: str) -> Holds:
    """Whether a process reaches exactly these, itself left out."""
    return lambda node: node.last("observer.reachable", "nodes") == sorted({*others} - {node.name})


async def converged(five: Machine) -> None:
    await five.until(reaches(*NODES), "it reaches all others")


async def test_five_processes_are_one_mesh_and_share_traces(tmp_path: Path) -> None:
    async with machine(tmp_path) as five:
        for name in NODES:
            await five.start(name)
        await converged(five)

        def has_talked(node: NodeProcess) -> bool:
            met = {(each["source"], each["text"]) for each in node.said("observer.heard")}
            others = set(NODES) - {node.name}
            return met >= {(other, text) for other in others for text in ("hello", "hello yourself")}

        await five.until(has_talked, "it was greeted and answered by all others")
        summaries = await five.stop()
        spans = exported(five.sink)

    # Each greeting, its way, and the answer in the other process are one trace, and nobody lacks a parent.
    known = {(span.trace, span.id) for span in spans}
    assert [span for span in spans if span.parent and (span.trace, span.parent) not in known] == []
    greeted = {span.trace: span for span in spans if span.name == "observer.greet"}
    answered = {span.trace: span for span in spans if span.name == "observer.answer"}
    assert {(span.node, span.attributes["other"]) for span in answered.values()} == {
        (one, other) for one in NODES for other in NODES if one != other
    }
    for trace, answer in answered.items():
        assert answer.attributes["other"] == greeted[trace].node
        hops = [span for span in spans if span.trace == trace and span.name == "mesh.message_forward"]
        assert {hop.node for hop in hops} >= {answer.node, greeted[trace].node}
    for summary in summaries.values():
        law = summary["spans"]
        assert law["ended"] == law["exported"]
        assert law["dropped"] == {}


@pytest.mark.slow
async def test_a_process_that_is_killed_is_missed_and_found_again(tmp_path: Path) -> None:
    async with machine(tmp_path) as five:
        for name in NODES:
            await five.start(name)
        await converged(five)

        await five.nodes["node-3"].kill()
        await five.until(reaches(*set(NODES) - {"node-3"}), "it misses the dead one", "node-3")
        await five.start("node-3")
        await converged(five)
        await five.stop()


@pytest.mark.slow
async def test_a_process_that_stood_still_blames_nobody_and_is_used_again(tmp_path: Path) -> None:
    async with machine(tmp_path) as five:
        for name in NODES:
            await five.start(name)
        await converged(five)

        stalled = five.nodes["node-3"]
        stalled.stall()
        await five.until(reaches(*set(NODES) - {"node-3"}), "it misses the one that stands still", "node-3")
        stalled.go_on()
        await converged(five)
        summaries = await five.stop()

    assert stalled.said("link.drained") == []
    assert summaries["node-3"]["actions"] == 0


@pytest.mark.slow
async def test_a_partition_is_two_meshes_and_then_one_again(tmp_path: Path) -> None:
    async with machine(tmp_path) as five:
        for name in NODES:
            await five.start(name)
        await converged(five)

        five.links.partition("node-4", "node-5")
        for name in NODES:
            side = NODES[3:] if name in NODES[3:] else NODES[:3]
            await five.nodes[name].until(reaches(*side), f"it reaches only {side}")
        five.links.mend()
        await converged(five)
        await five.stop()
