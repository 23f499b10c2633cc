"""Guard rails: every rule refuses, and says so on the plan span."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from mapek_runtime import Action, Cycle, Finding, Knowledge, Observation, Outcome, Runtime
from mapek_runtime.config import GuardSettings, LoopSettings
from mapek_runtime.loop.guard import GuardRails
from mapek_runtime.testing import AutojumpClock, Recorder, run_cycle

LOOSE: dict[str, Any] = {"cooldown": 0.0, "fleet_share": 1.0, "actions_per_minute": 1000}


def cycle(*targets: str) -> Cycle:
    return Cycle(
        node_id="node-1",
        number=1,
        triggers=(),
        started=0.0,
        knowledge=Knowledge(),
        observations=[Observation(name="loss", value=0.0, target=target) for target in targets],
    )


def drain(target: str, finding: Finding | None = None) -> Action:
    return Action(name="drain", target=target, inverse="undrain", finding=finding)


def undrain(target: str) -> Action:
    return Action(name="undrain", target=target, restorative=True)


class Rails:
    """Guard rails with what a runtime would give them."""

    def __init__(self, **settings: Any) -> None:
        self.rails = GuardRails(GuardSettings(**{**LOOSE, **settings}))
        self.seen = cycle("a", "b", "c", "d")

    def rule(self, action: Action, now: float = 0.0, *, pending: Sequence[str] = ()) -> str | None:
        """The rule that refuses `action`; None when it is admitted, and then it is carried out."""
        admitted, refused = self.rails.admit([action], cycle=self.seen, now=now, pending=pending)
        for one in admitted:
            self.rails.acted(one, now, success=True)
        return refused[0].rule if refused else None


def test_a_target_is_left_in_peace_during_its_cooldown() -> None:
    rails = Rails(cooldown=3.0)

    assert rails.rule(drain("a"), 0.0) is None
    assert rails.rule(drain("a"), 2.9) == "cooldown"
    assert rails.rule(drain("b"), 2.9) is None
    assert rails.rule(drain("a"), 3.0) is None


def test_a_finding_must_be_made_in_several_cycles_in_a_row() -> None:
    rails = Rails(hysteresis=3)
    finding = Finding(target="a", problem="dead")

    rules = []
    for seen in ([finding], [finding], [], [finding], [finding], [finding]):
        rails.rails.observe(seen)
        rules.append(rails.rule(drain("a", finding)))

    assert rules == ["hysteresis"] * 5 + [None]


def test_the_budget_holds_in_any_sixty_seconds() -> None:
    rails = Rails(actions_per_minute=3)

    assert [rails.rule(drain(f"t{n}"), n * 10.0) for n in range(4)] == [None, None, None, "budget"]
    assert rails.rule(drain("x"), 59.9) == "budget"
    assert rails.rule(drain("x"), 60.0) is None
    assert rails.rule(drain("y"), 60.0) == "budget"


def test_the_budget_counts_the_actions_of_one_plan() -> None:
    rails = Rails(actions_per_minute=2)

    admitted, refused = rails.rails.admit(
        [drain(target) for target in "abcd"], cycle=rails.seen, now=0.0, pending=()
    )

    assert [action.target for action in admitted] == ["a", "b"]
    assert [rejection.rule for rejection in refused] == ["budget", "budget"]


def test_only_a_share_of_the_fleet_may_be_acted_upon() -> None:
    rails = Rails(fleet_share=0.5)

    assert [rails.rule(drain(target)) for target in "abc"] == [None, None, "fleet share"]
    assert rails.rule(undrain("a")) is None
    assert rails.rule(drain("c")) is None


def test_at_least_one_target_may_be_acted_upon_however_small_the_fleet() -> None:
    rails = Rails(fleet_share=0.0)

    assert rails.rule(drain("a")) is None
    assert rails.rule(drain("b")) == "fleet share"


def test_what_takes_nothing_away_does_not_count_against_the_share() -> None:
    rails = Rails(fleet_share=0.25)
    restart = Action(name="restart", target="a")

    assert rails.rule(restart) is None
    assert rails.rule(drain("b")) is None


def test_a_target_whose_last_action_is_not_verified_waits() -> None:
    rails = Rails()

    assert rails.rule(drain("a"), pending=["a"]) == "pending"
    assert rails.rule(undrain("a"), pending=["a"]) is None


def test_one_action_at_a_time_on_a_target() -> None:
    rails = Rails()

    admitted, refused = rails.rails.admit([drain("a"), undrain("a")], cycle=rails.seen, now=0.0, pending=())

    assert [action.name for action in admitted] == ["drain"]
    assert [rejection.rule for rejection in refused] == ["one at a time"]


def test_after_several_failed_repairs_a_target_is_left_alone() -> None:
    rails = Rails(max_failures=2, escalation=600.0)

    assert rails.rails.failed("a", 0.0) is False
    assert rails.rails.failed("a", 10.0) is True
    assert rails.rule(drain("a"), 609.9) == "escalated"
    assert rails.rule(drain("a"), 610.0) is None


def test_a_verified_repair_starts_the_count_again() -> None:
    rails = Rails(max_failures=2)

    rails.rails.failed("a", 0.0)
    rails.rails.repaired("a")

    assert rails.rails.failed("a", 1.0) is False


def test_a_failed_action_counts_against_the_budget_and_the_cooldown() -> None:
    rails = Rails(cooldown=3.0, actions_per_minute=1)

    rails.rails.acted(drain("a"), 0.0, success=False)

    assert rails.rule(drain("a"), 1.0) == "cooldown"
    assert rails.rule(drain("b"), 1.0) == "budget"


def test_targets_with_nothing_to_remember_are_forgotten() -> None:
    rails = Rails(cooldown=1.0, actions_per_minute=100_000)
    restarts = [Action(name="restart", target=f"request {number}") for number in range(20_000)]

    for number, restart in enumerate(restarts):
        rails.rails.acted(restart, float(number), success=True)

    assert len(rails.rails._targets) <= 4096


class Acts:
    """Finds something wrong in each cycle and wants to act."""

    def __init__(self) -> None:
        self.done: list[str] = []

    async def monitor(self, cycle: Cycle) -> Sequence[Observation]:
        return [Observation(name="loss", value=1.0, target="a")]

    async def analyze(self, cycle: Cycle) -> Sequence[Finding]:
        return [Finding(target="a", problem="dead")]

    async def plan(self, cycle: Cycle) -> Sequence[Action]:
        return [drain("a", cycle.findings[0])]

    async def execute(self, cycle: Cycle, action: Action) -> Outcome:
        self.done.append(action.name)
        return Outcome(action=action, success=True)


async def test_a_refusal_stands_on_the_plan_span_with_its_rule(recorder: Recorder) -> None:
    acts = Acts()

    result = await run_cycle(acts, settings=LoopSettings(guard=GuardSettings(hysteresis=2)))

    event = recorder.one("mape_k.plan").events[0]
    assert event.name == "option.rejected"
    assert event.attributes == {
        "action": "drain",
        "target": "a",
        "rule": "hysteresis",
        "reason": "dead was found in 1 cycles in a row; 2 are needed",
    }
    assert result.actions == []
    assert acts.done == []
    assert result.skipped["execute"] == "no actions"


async def test_the_guard_of_a_domain_refuses_with_its_reason() -> None:
    class Guarded(Acts):
        name = "mesh"

        def guard(self, cycle: Cycle, action: Action) -> str | None:
            return "the last way out" if action.name == "drain" else None

    acts = Guarded()
    result = await run_cycle(acts)

    assert [(r.rule, r.reason) for r in result.rejections] == [("mesh guard", "the last way out")]
    assert acts.done == []


async def test_a_guard_that_fails_lets_nothing_through() -> None:
    class Careless:
        async def learn(self, cycle: Cycle) -> None: ...

        def guard(self, cycle: Cycle, action: Action) -> str | None:
            raise LookupError("no topology")

    acts = Acts()
    result = await run_cycle(acts, Careless())

    assert [r.rule for r in result.rejections] == ["Careless guard"]
    assert "LookupError: no topology" in result.rejections[0].reason
    assert acts.done == []


async def test_an_action_that_hangs_is_tried_no_more_often_than_the_rails_allow(
    autojump: AutojumpClock,
) -> None:
    class Hangs(Acts):
        async def execute(self, cycle: Cycle, action: Action) -> Outcome:
            self.done.append(action.name)
            await asyncio.sleep(3600)
            return Outcome(action=action, success=True)

    acts = Hangs()
    guard = GuardSettings(cooldown=10.0, max_failures=3, escalation=600.0)
    async with Runtime(acts, interval=1.0, execute_limit=0.5, settings=LoopSettings(guard=guard)) as runtime:
        last = await runtime.wait(cycles=300)

    assert acts.done == ["drain"] * 3
    assert [r.rule for r in last.rejections] == ["escalated"]


@pytest.mark.parametrize("reason", ["maintenance", ""])
async def test_a_halted_loop_refuses_everything(reason: str) -> None:
    rails = Rails()

    admitted, refused = rails.rails.admit(
        [drain("a"), undrain("b")], cycle=rails.seen, now=0.0, pending=(), halted=reason
    )

    assert admitted == []
    assert {rejection.rule for rejection in refused} == {"halted"}
