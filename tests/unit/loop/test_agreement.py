"""What only one node may do is asked for first, and what the others do not agree to is not done."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from mapek_runtime import Action, Cycle, Finding, Observation, Outcome
from mapek_runtime.errors import NoConsensus
from mapek_runtime.loop import Consensus, Grant
from mapek_runtime.testing import Recorder, run_cycle, tree

DEAD = Finding(target="node-4", problem="node.dead")
RESTART = Action(name="restart", target="node-4", finding=DEAD, needs_consensus=True, verify_within=5.0)
DRAIN = Action(name="drain", target="node-1~node-2", finding=DEAD, exclusive=True)


class Restarter:
    """Wants one thing done, and does it."""

    def __init__(self, action: Action, *, succeeds: bool = True) -> None:
        self.action = action
        self.succeeds = succeeds
        self.done = 0

    async def monitor(self, cycle: Cycle) -> Sequence[Observation]:
        return [Observation(name="node.alive", value=0.0, target="node-4")]

    async def analyze(self, cycle: Cycle) -> Sequence[Finding]:
        return [DEAD]

    async def plan(self, cycle: Cycle) -> Sequence[Action]:
        return [self.action]

    async def execute(self, cycle: Cycle, action: Action) -> Outcome:
        self.done += 1
        return Outcome(action=action, success=self.succeeds)


class Nodes:
    """The other nodes, as this one hears of them."""

    def __init__(self, *, leader: str | None = "node-1", answer: Grant | Exception | None = None) -> None:
        self._leader = leader
        self._answer = answer
        self.held: dict[str, str] = {}
        self.asked: list[tuple[str, str, float, bool]] = []
        self.released: list[tuple[str, int]] = []

    def leader(self, node_id: str) -> str | None:
        return self._leader

    async def claim(self, node_id: str, key: str, *, hold: float, leader_only: bool = False) -> Grant:
        self.asked.append((node_id, key, hold, leader_only))
        if isinstance(self._answer, Exception):
            raise self._answer
        until = asyncio.get_running_loop().time() + hold
        granted = Grant(key=key, granted=True, owner=node_id, fence=7, term=3, until=until)
        return granted if self._answer is None else replace(self._answer, key=key)

    async def release(self, node_id: str, key: str, *, fence: int) -> None:
        self.released.append((key, fence))

    def claims(self, node_id: str, prefix: str = "") -> Mapping[str, str]:
        return {key: owner for key, owner in self.held.items() if key.startswith(prefix)}

    async def configure(self, node_id: str, name: str, value: str, *, expected: int | None = None) -> int:
        raise NotImplementedError

    def configured(self, node_id: str, name: str) -> tuple[str, int]:
        return "", 0


async def test_the_double_speaks_the_protocol() -> None:
    assert isinstance(Nodes(), Consensus)


async def test_the_leader_does_it_once_it_has_the_claim() -> None:
    nodes, plugin = Nodes(), Restarter(RESTART)

    cycle = await run_cycle(plugin, consensus=nodes)

    assert nodes.asked == [("node-1", "restart node-4", 6.0, True)]
    assert plugin.done == 1
    assert cycle.success
    assert not nodes.released


async def test_who_does_not_lead_does_not_plan_it(recorder: Recorder) -> None:
    nodes, plugin = Nodes(leader="node-3"), Restarter(RESTART)

    cycle = await run_cycle(plugin, consensus=nodes)

    assert (plugin.done, nodes.asked) == (0, [])
    (rejection,) = cycle.rejections
    assert rejection.rule == "not the leader"
    assert rejection.reason == "node-3 leads, and decides whether to restart node-4"
    assert cycle.success


@pytest.mark.parametrize(
    ("nodes", "rule"),
    [
        (None, "no consensus"),
        (Nodes(leader=None), "no leader"),
        (Nodes(answer=NoConsensus("2 of 5 nodes answered")), "no consensus"),
        (Nodes(answer=Grant(key="", granted=False, owner="node-2")), "another node does it"),
        (Nodes(answer=Grant(key="", granted=False, reason="stale term")), "refused by consensus"),
        (Nodes(answer=Grant(key="", granted=True, owner="node-1", until=0.0)), "too late"),
    ],
)
async def test_without_an_agreement_it_is_not_done(nodes: Nodes | None, rule: str) -> None:
    plugin = Restarter(RESTART)

    cycle = await run_cycle(plugin, consensus=nodes)

    assert plugin.done == 0
    assert [rejection.rule for rejection in cycle.rejections] == [rule]
    assert not cycle.actions
    assert not cycle.outcomes
    assert cycle.success


async def test_what_was_refused_in_execute_is_told_there(recorder: Recorder) -> None:
    nodes = Nodes(answer=Grant(key="", granted=False, owner="node-2"))

    cycle = await run_cycle(Restarter(RESTART), consensus=nodes)

    assert cycle.actions == ()
    assert cycle.success
    (execute,) = [span for span in recorder.spans if span.name == "mape_k.execute"]
    (event,) = execute.events
    assert event.name == "option.rejected"
    assert event.attributes is not None
    assert event.attributes["reason"] == "the nodes agreed that node-2 may restart node-4"
    assert recorder.tree() == tree("""
        mape_k.cycle success=true actions_executed=0
          mape_k.monitor
          mape_k.analyze
          mape_k.plan actions_planned=1
          mape_k.execute actions_executed=0 success=true
          mape_k.knowledge
    """)


async def test_a_failed_action_is_given_back() -> None:
    nodes = Nodes()

    await run_cycle(Restarter(RESTART, succeeds=False), consensus=nodes)

    assert nodes.released == [("restart node-4", 7)]


@pytest.mark.parametrize("nodes", [None, Nodes(leader=None), Nodes(answer=NoConsensus("nobody"))])
async def test_an_exclusive_action_is_done_where_the_nodes_cannot_agree(nodes: Nodes | None) -> None:
    plugin = Restarter(DRAIN)

    cycle = await run_cycle(plugin, consensus=nodes)

    assert plugin.done == 1
    assert cycle.success


async def test_an_exclusive_action_waits_only_shortly() -> None:
    class Silent(Nodes):
        async def claim(self, node_id: str, key: str, *, hold: float, leader_only: bool = False) -> Grant:
            await asyncio.sleep(3600)
            raise AssertionError

    plugin = Restarter(DRAIN)

    await asyncio.wait_for(run_cycle(plugin, consensus=Silent()), 10)

    assert plugin.done == 1


async def test_what_another_node_has_is_left_to_it() -> None:
    nodes, plugin = Nodes(), Restarter(DRAIN)
    nodes.held["drain node-1~node-2"] = "node-2"

    cycle = await run_cycle(plugin, consensus=nodes)

    assert plugin.done == 0
    assert [rejection.rule for rejection in cycle.rejections] == ["another node does it"]


async def test_what_is_everybodys_business_is_not_asked_for() -> None:
    nodes = Nodes(leader=None)
    plugin = Restarter(replace(DRAIN, exclusive=False))

    await run_cycle(plugin, consensus=nodes)

    assert (plugin.done, nodes.asked) == (1, [])
