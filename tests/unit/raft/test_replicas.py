"""What Raft promises, under everything that can happen to a group; see `simulation`."""

from __future__ import annotations

import random
from collections import Counter
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mapek_domains.raft.commands import Claim
from mapek_domains.raft.embedded import replica as replica_module
from mapek_domains.raft.embedded.wire import Say
from tests.unit.raft.simulation import World, world


class Trouble:
    """Does anything to a group. Where nodes lose their disks, it is fewer than half at a time."""

    WEIGHTS: ClassVar = {
        "ask": 20,
        "crash": 3,
        "crash_the_leader": 3,
        "crash_all": 1,
        "restart": 6,
        "part": 3,
        "deafen": 2,
        "noise": 3,
        "heal": 3,
        "wait": 8,
    }

    def __init__(self, under_test: World, rng: random.Random, *, lose: bool) -> None:
        self._world = under_test
        self._rng = rng
        self._weights = {**self.WEIGHTS, "lose": 2 if lose else 0}
        self._lost: set[str] = set()

    def run(self, steps: int) -> None:
        for _ in range(steps):
            what = self._rng.choices(tuple(self._weights), tuple(self._weights.values()))[0]
            getattr(self, what)()
            self._world.run(self._rng.choice([0.01, 0.05, 0.2, 0.5, 1.0]))

    def wait(self) -> None:
        pass

    def ask(self) -> None:
        for _ in range(self._rng.randrange(8)):
            self._world.anything()

    def crash(self) -> None:
        self._world.crash(self._rng.choice(self._world.names))

    def crash_the_leader(self) -> None:
        self._world.crash(self._world.leader() or "")

    def crash_all(self) -> None:
        for name in self._world.names:
            self._world.crash(name)

    def restart(self) -> None:
        for name in self._world.names:
            if name not in self._world.nodes and self._rng.random() < 0.7:
                self._world.start(name)

    def part(self) -> None:
        names = self._world.names
        island = set(self._rng.sample(names, self._rng.randrange(1, len(names))))
        self._world.part(island, set(names) - island)

    def deafen(self) -> None:
        source, to = self._rng.sample(self._world.names, 2)
        self._world.deaf.add((source, to))

    def noise(self) -> None:
        self._world.loss = self._rng.choice([0.0, 0.1, 0.4])
        self._world.doubled = self._rng.choice([0.0, 0.3])
        self._world.delay = self._rng.choice([0.0, 0.05, 0.5, 2.0])
        self._world.disk_delay = self._rng.choice([0.0, 0.01, 0.3])

    def heal(self) -> None:
        self._world.heal()

    def lose(self) -> None:
        self._lost = {name for name in self._lost if not votes(self._world, name)}
        if len(self._lost) < (len(self._world.names) - 1) // 2:
            name = self._rng.choice(self._world.names)
            self._lost.add(name)
            self._world.lose(name)


def votes(under_test: World, name: str) -> bool:
    node = under_test.nodes.get(name)
    return node is not None and node.replica.journal.votes


def live(under_test: World) -> Counter[str | None]:
    """Who leads, as far as those know who live."""
    return Counter(node.replica.leader for node in under_test.nodes.values())


@given(st.integers(0, 1 << 32), st.sampled_from([3, 4, 5]), st.booleans(), st.sampled_from([8, 512]))
@settings(max_examples=12)
def test_no_trouble_breaks_a_promise_and_after_it_all_agree(
    seed: int, size: int, lose: bool, keep: int
) -> None:
    before, replica_module._KEEP_ENTRIES = replica_module._KEEP_ENTRIES, keep
    try:
        with world(seed, size) as under_test:
            under_test.until(under_test.agree)
            Trouble(under_test, random.Random(seed), lose=lose).run(80)
            under_test.heal()
            under_test.until(under_test.agree, 60.0)
            final = max(under_test.final)
            under_test.claim(under_test.names[0], "after all")
            under_test.until(lambda: max(under_test.final) > final and under_test.agree())
    finally:
        replica_module._KEEP_ENTRIES = before


def test_the_leader_is_lost_twenty_times_and_nothing_final_is() -> None:
    with world(1) as under_test:
        under_test.until(under_test.agree)
        for _ in range(20):
            leader = under_test.leader()
            assert leader is not None
            under_test.crash(leader)
            under_test.until(lambda: None not in live(under_test) and len(live(under_test)) == 1)
            for _ in range(5):
                under_test.anything()
                under_test.run(0.02)
            under_test.start(leader)
            under_test.until(under_test.agree)

        logs = {tuple(node.replica.journal[:]) for node in under_test.nodes.values()}

    assert len(under_test.leaders) >= 21
    assert len(logs) == 1


def test_the_whole_group_comes_back_from_its_journals() -> None:
    with world(2) as under_test:
        under_test.until(under_test.agree)
        for number in range(20):
            under_test.claim("n1", f"key {number}")
            under_test.run(0.05)
        claims = {name: dict(node.replica.decisions.claims) for name, node in under_test.nodes.items()}
        for name in under_test.names:
            under_test.crash(name)
        under_test.heal()
        under_test.until(under_test.agree)

        after = {name: dict(node.replica.decisions.claims) for name, node in under_test.nodes.items()}

    assert len(claims["n1"]) == 20
    assert after == claims


def test_a_minority_decides_nothing_and_deposes_nobody() -> None:
    with world(3) as under_test:
        under_test.until(under_test.agree)
        leader = under_test.leader()
        assert leader is not None
        others = [name for name in under_test.names if name != leader]
        under_test.part(set(others[:2]), {leader, *others[2:]})
        term = under_test.nodes[leader].replica.term
        under_test.run(5.0)
        under_test.claim(others[0], "alone")
        under_test.run(5.0)
        alone = [under_test.nodes[name].replica for name in others[:2]]

        assert [(r.leader, r.term) for r in alone] == [(None, term)] * 2

        under_test.heal()
        under_test.until(under_test.agree)

    assert under_test.leader() == leader
    assert list(under_test.leaders) == [term]


def test_a_leader_without_a_majority_leads_no_more() -> None:
    with world(4) as under_test:
        under_test.until(under_test.agree)
        leader = under_test.leader()
        assert leader is not None
        under_test.part({leader}, set(under_test.names) - {leader})
        under_test.until(lambda: under_test.nodes[leader].replica.leader is None)
        under_test.until(lambda: under_test.leader() not in (None, leader))
        under_test.heal()
        under_test.until(under_test.agree)

    assert under_test.leader() != leader


def test_a_node_that_hears_only_some_of_the_others_deposes_nobody() -> None:
    with world(5) as under_test:
        under_test.until(under_test.agree)
        leader = under_test.leader()
        other = next(name for name in under_test.names if name != leader)
        under_test.apart = {frozenset((leader or "", other))}
        under_test.run(20.0)

        assert under_test.leader() == leader
        assert len(under_test.leaders) == 1


def test_a_node_that_lost_its_journal_has_no_vote_until_it_is_let_in() -> None:
    with world(6, 3) as under_test:
        under_test.until(under_test.agree)
        leader = under_test.leader()
        assert leader is not None
        lost, other = (name for name in under_test.names if name != leader)
        under_test.lose(lost)
        under_test.run(0.5)
        # Without the leader the node that kept its journal has no majority: the other may not vote.
        under_test.crash(leader)
        under_test.start(lost)
        under_test.run(10.0)
        alone = [under_test.nodes[name].replica for name in (lost, other)]
        says = [replica.say for replica in alone]

        assert [replica.leader for replica in alone] == [None, None]
        assert says == [Say.BLANK, Say.SETTLED]

        under_test.start(leader)
        under_test.until(lambda: votes(under_test, lost))
        under_test.until(under_test.agree)
        # Now it counts: the group does without another one.
        under_test.crash(under_test.leader() or "")
        under_test.until(lambda: None not in live(under_test))


def test_one_node_alone_leads_at_once_and_decides() -> None:
    with world(7, 1) as under_test:
        under_test.run(0.01)
        under_test.claim("n1", "mine")
        under_test.run(0.01)
        claims = under_test.nodes["n1"].replica.decisions.claims

    assert under_test.leaders == {1: "n1"}
    assert claims["mine"].owner == "n1"


def test_a_follower_that_is_far_behind_gets_a_snapshot_and_the_logs_stay_short(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(replica_module, "_KEEP_ENTRIES", 16)
    with world(8, 3) as under_test:
        under_test.until(under_test.agree)
        behind = next(name for name in under_test.names if name != under_test.leader())
        under_test.crash(behind)
        asking = next(name for name in under_test.nodes if name != under_test.leader())
        for number in range(400):
            under_test.claim(asking, f"key {number}")
            under_test.run(0.01)
        under_test.run(1.0)
        before = {name: len(disk) for name, disk in under_test.disks.items()}
        under_test.start(behind)
        under_test.until(under_test.agree)
        replicas = [node.replica for node in under_test.nodes.values()]
        states = {replica.decisions.dump() for replica in replicas}

    assert len(states) == 1
    assert len(replicas[0].decisions.claims) == 400
    assert all(len(replica.journal) < 40 for replica in replicas)
    # The state of 400 claims, and no more than some entries.
    assert all(size < 40_000 for name, size in before.items() if name != behind)


def test_what_was_asked_for_only_by_the_leader_is_not_given_to_an_earlier_one() -> None:
    with world(9, 3) as under_test:
        under_test.until(under_test.agree)
        first = under_test.leader() or ""
        others = [name for name in under_test.names if name != first]
        under_test.part({first}, set(others))
        under_test.until(lambda: under_test.leader() not in (None, first))
        under_test.heal()
        under_test.until(under_test.agree)
        second = under_test.leader() or ""
        for name in (first, second):
            under_test.ask(name, lambda request: Claim(request, f"of {request.owner}", 5, leader_only=True))
        under_test.run(0.5)
        claims = under_test.nodes[first].replica.decisions.claims

    assert [(key, held.owner) for key, held in claims.items()] == [(f"of {second}", second)]
