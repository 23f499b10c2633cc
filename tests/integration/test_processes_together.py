"""Five processes of one node each agree, share and learn over the mesh, as five nodes in one process do.

One of them is killed, stalled or cut off, and the others go on; spans of one trace come from several.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.processes import Exported, Machine, NodeProcess, exported, machine
from tests.integration.receiver import until

NODES = tuple(f"node-{number}" for number in range(1, 6))
RAFT = {"members": NODES}
ALL = ("mesh", "raft", "crdt", "fl")

pytestmark = pytest.mark.slow

Holds = Callable[[NodeProcess], object]


def leader_of(node: NodeProcess) -> Any:
    return node.last("observer.leader", "leader")


def follows(*names: str) -> Holds:
    return lambda node: leader_of(node) in names


async def one_leader(five: Machine, nodes: Iterable[str]) -> str:
    """Who leads, when all of these nodes say the same and it is one of them."""
    nodes = tuple(nodes)

    def agreed() -> bool:
        leaders = {leader_of(five.nodes[name]) for name in nodes}
        return len(leaders) == 1 and leaders <= set(nodes)

    assert await until(agreed, 90.0), {name: leader_of(node) for name, node in five.nodes.items()}
    return str(leader_of(five.nodes[nodes[0]]))


async def a_group(five: Machine) -> str:
    """Who leads, when all processes say the same and each of them has a vote.

    One that starts when the others have founded the group already gets its vote from their leader.
    """
    await five.until(lambda node: node.last("observer.votes", "votes"), "it has a vote")
    return await one_leader(five, NODES)


def knows(facts: dict[str, str]) -> Holds:
    """Whether a process knows what these nodes remember, itself left out."""
    return lambda node: (
        node.last("observer.facts", "facts")
        == {name: fact for name, fact in facts.items() if name != node.name}
    )


def leaders_by_term(nodes: Iterable[NodeProcess]) -> dict[int, set[str]]:
    terms: defaultdict[int, set[str]] = defaultdict(set)
    for node in nodes:
        for event in node.said("leader.elected"):
            terms[event["term"]].add(node.name)
    return terms


def traces_of(spans: Iterable[Exported]) -> dict[str, list[Exported]]:
    traces: defaultdict[str, list[Exported]] = defaultdict(list)
    for span in spans:
        traces[span.trace].append(span)
    return traces


def without_parent(spans: Iterable[Exported]) -> list[Exported]:
    spans = list(spans)
    known = {(span.trace, span.id) for span in spans}
    return [span for span in spans if span.parent and (span.trace, span.parent) not in known]


async def test_five_processes_elect_one_leader_and_another_when_it_is_killed(tmp_path: Path) -> None:
    async with machine(tmp_path) as five:
        for name in NODES:
            await five.start(name, ("mesh", "raft"), raft=RAFT)
        first = await a_group(five)

        dead = five.nodes[first]
        await dead.kill()
        rest = [name for name in NODES if name != first]
        second = await one_leader(five, rest)
        await five.start(first, ("mesh", "raft"), raft=RAFT)
        after = await one_leader(five, NODES)

        five.nodes[after].stall()
        third = await one_leader(five, [name for name in NODES if name != after])
        five.nodes[after].go_on()
        await one_leader(five, NODES)
        await five.stop()

    assert second != first
    assert third != after
    # In no term there were two, whatever each process believed.
    terms = leaders_by_term([dead, *five.nodes.values()])
    assert {len(leaders) for leaders in terms.values()} == {1}
    assert len(terms) >= 3


async def test_of_two_halves_only_the_larger_one_has_a_leader(tmp_path: Path) -> None:
    async with machine(tmp_path) as five:
        for name in NODES:
            await five.start(name, ("mesh", "raft"), raft=RAFT)
        before = await a_group(five)

        # The leader is on the smaller side; of the ring both sides are in one piece.
        place = NODES.index(before)
        small = {before, NODES[(place + 1) % len(NODES)]}
        five.links.partition(*small)
        large = [name for name in NODES if name not in small]
        during = await one_leader(five, large)
        for name in small:
            await five.nodes[name].until(follows(None), "it knows of no leader")  # type: ignore[arg-type]
        five.links.mend()
        after = await one_leader(five, NODES)
        await five.stop()

    assert during in large
    assert after in NODES
    assert {len(leaders) for leaders in leaders_by_term(five.nodes.values()).values()} == {1}


async def test_five_processes_learn_in_rounds_that_are_one_trace_each(tmp_path: Path) -> None:
    async with machine(tmp_path) as five:
        for name in NODES:
            await five.start(name, ("mesh", "raft", "fl"), raft=RAFT, fl={"interval": 2.0, "gap": 1.0})
        await one_leader(five, NODES)

        def learned() -> bool:
            rounds = [event for node in five.nodes.values() for event in node.said("round.finished")]
            return any(event["clients"] == len(NODES) for event in rounds)

        assert await until(learned, 90.0), {name: node.events[-5:] for name, node in five.nodes.items()}
        await five.stop()
        spans = exported(five.sink)
        led = set().union(*leaders_by_term(five.nodes.values()).values())

    assert without_parent(spans) == []
    rounds = {
        span.trace: span
        for span in spans
        if span.name == "fl.aggregation" and span.attributes["clients"] == len(NODES)
    }
    assert rounds
    traces = traces_of(spans)
    for trace, aggregation in rounds.items():
        # Each client has trained where its data is, below what the coordinator has asked it.
        trained = {s.node: s.attributes["client_id"] for s in traces[trace] if s.name == "fl.local_training"}
        assert trained == {name: name for name in NODES}
        assert aggregation.node in led


async def test_what_one_process_remembers_the_others_know_also_after_its_death_and_a_partition(
    tmp_path: Path,
) -> None:
    facts = {name: f"what {name} remembers" for name in NODES}

    async def start(five: Machine, name: str) -> None:
        await five.start(name, ("mesh", "crdt"), crdt={"interval": 0.5}, observer={"fact": facts[name]})

    async with machine(tmp_path) as five:
        for name in NODES:
            await start(five, name)
        await five.until(knows(facts), "it knows what all others remember")

        # A new life of a killed process remembers something else, while two of the others are cut off.
        await five.nodes["node-3"].kill()
        five.links.partition("node-4", "node-5")
        before, facts["node-3"] = dict(facts), "something else"
        await start(five, "node-3")
        for name in ("node-1", "node-2", "node-3"):
            await five.nodes[name].until(knows(facts), "it knows what is new")
        cut_off = [five.nodes[name].last("observer.facts", "facts") for name in ("node-4", "node-5")]
        five.links.mend()
        await five.until(knows(facts), "it knows what is new")
        await five.stop()
        spans = exported(five.sink)

    assert [knowledge["node-3"] for knowledge in cut_off] == [before["node-3"]] * 2
    # What was told in one process was merged in others, in one trace; some have heard of it otherwise.
    told = {span.trace: span.node for span in spans if span.name == "crdt.broadcast"}
    merged = [span for span in spans if span.name == "crdt.merge" and span.trace in told]
    assert len({span.node for span in merged}) > 1
    assert all(span.node != told[span.trace] for span in merged)


async def test_five_processes_with_everything_heal_a_link_and_outlive_their_leader(tmp_path: Path) -> None:
    facts = {name: f"what {name} remembers" for name in NODES}

    async def start(five: Machine, name: str) -> None:
        fact = {"fact": facts[name]}
        await five.start(name, ALL, raft=RAFT, fl={"interval": 2.0, "gap": 1.0}, observer=fact)

    def a_round() -> bool:
        return any(node.said("round.finished") for node in five.nodes.values())

    async with machine(tmp_path) as five:
        for name in NODES:
            await start(five, name)
        first = await a_group(five)
        await five.until(knows(facts), "it knows what all others remember")
        assert await until(a_round, 90.0)

        # A link that swallows everything in one direction is drained, and it alone.
        five.links.lose("node-1", "node-3")
        drained = five.nodes["node-1"], five.nodes["node-3"]
        link = {"target": "node-1~node-3"}
        assert await until(lambda: any(node.said("link.drained", **link) for node in drained), 90.0)
        five.links.mend()
        assert await until(lambda: any(node.said("link.undrained", **link) for node in drained), 90.0)

        await five.nodes[first].kill()
        rest = [name for name in NODES if name != first]
        second = await one_leader(five, rest)
        facts[first] = "a new life"
        await start(five, first)
        await five.until(knows(facts), "it knows what all others remember")
        await one_leader(five, NODES)
        summaries = await five.stop()
        spans = exported(five.sink)

    assert second != first
    # Cycle and consensus are one trace, over those who agreed.
    actions = {span.trace: span.node for span in spans if span.name == "mape_k.execute"}
    agreed = {span.trace for span in spans if span.name == "raft.log_replicate"} & set(actions)
    assert any(len({span.node for span in spans if span.trace == trace}) > 1 for trace in agreed)
    for summary in summaries.values():
        assert summary["spans"]["ended"] == summary["spans"]["exported"]
