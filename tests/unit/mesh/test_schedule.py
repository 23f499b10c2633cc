"""The chaos schedule: reproducible, and survivable by a mesh that heals."""

from __future__ import annotations

import pytest

from mapek_domains.mesh.engine import link_id
from mapek_domains.mesh.routes import reachable
from mapek_domains.mesh.schedule import KINDS, MIXES, SLOW, fault_schedule
from mapek_domains.mesh.udp.emulator import ring_with_chords


def names(count: int) -> tuple[str, ...]:
    return tuple(f"node-{number}" for number in range(1, count + 1))


def test_one_seed_is_one_schedule() -> None:
    nodes = names(5)
    links = ring_with_chords(nodes)

    assert fault_schedule(7, 60.0, nodes, links) == fault_schedule(7, 60.0, nodes, links)
    assert fault_schedule(7, 60.0, nodes, links) != fault_schedule(8, 60.0, nodes, links)


def test_the_schedule_of_a_seed_stays_what_it_was() -> None:
    nodes = names(5)
    faults = fault_schedule(7, 30.0, nodes, ring_with_chords(nodes))

    assert [(f.kind, f.target, f.at, f.duration, dict(f.parameters)) for f in faults] == [
        ("link.down", "node-1~node-3", 4.32, 8.29, {}),
        ("link.down", "node-1~node-5", 10.4, 8.96, {}),
        ("link.loss", "node-3~node-4", 17.55, 8.19, {"loss": 0.57}),
        ("node.crash", "node-3", 24.67, 9.49, {}),
    ]


def test_mild_faults_are_as_mild_as_they_say() -> None:
    nodes = names(5)
    links = ring_with_chords(nodes)
    faults = [f for seed in range(20) for f in fault_schedule(seed, 60.0, nodes, links, mix=MIXES["mild"])]
    losses = [f.parameters["loss"] for f in faults if f.kind == "link.loss"]
    delays = [f.parameters["delay"] + f.parameters["jitter"] / 2 for f in faults if f.kind == SLOW]

    assert {f.kind for f in faults} == {"link.loss", SLOW}
    assert all(0.1 <= loss <= 0.4 for loss in losses)
    assert all(0.009 <= delay <= 0.101 for delay in delays)
    assert 0.3 < sum("one_way" in f.parameters for f in faults) / len(faults) < 0.7
    assert all("reverse" in f.parameters for f in faults if "one_way" in f.parameters)


def test_all_faults_are_the_hard_and_the_mild_ones() -> None:
    nodes = names(5)
    links = ring_with_chords(nodes)
    faults = [f for seed in range(20) for f in fault_schedule(seed, 60.0, nodes, links, mix=MIXES["all"])]

    assert {f.kind for f in faults} == {*KINDS, SLOW}


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("count", [3, 4, 5, 8, 20, 50])
def test_no_schedule_cuts_the_mesh(count: int, mix: str) -> None:
    nodes = names(count)
    links = ring_with_chords(nodes)
    for seed in range(40):
        faults = fault_schedule(seed, 90.0, nodes, links, mix=MIXES[mix])
        for fault in faults:
            active = {f.target for f in faults if f.at <= fault.at < f.at + f.duration}
            left = [(a, b) for a, b in links if not {a, b} & active and link_id(a, b) not in active]
            alive = [node for node in nodes if node not in active]
            assert len(reachable(alive[0], left)) == len(alive), (seed, fault)


def test_a_minute_of_five_nodes_meets_every_kind_of_fault_over_some_seeds() -> None:
    nodes = names(5)
    links = ring_with_chords(nodes)
    schedules = [fault_schedule(seed, 60.0, nodes, links) for seed in range(5)]

    assert {fault.kind for faults in schedules for fault in faults} == set(KINDS)
    assert all(len(faults) >= 5 for faults in schedules)


@pytest.mark.parametrize("count", [1, 2])
def test_a_mesh_without_a_second_way_gets_no_link_fault(count: int) -> None:
    nodes = names(count)
    faults = fault_schedule(1, 60.0, nodes, ring_with_chords(nodes))

    assert all(fault.kind == "node.crash" for fault in faults)


@pytest.mark.parametrize("count", range(3, 51))
def test_every_node_of_the_default_mesh_has_two_ways_out(count: int) -> None:
    nodes = names(count)
    links = ring_with_chords(nodes)

    assert all(sum(node in link for link in links) >= 2 for node in nodes)
    assert all(
        len(reachable(nodes[0], [other for other in links if other != link])) == count for link in links
    )
