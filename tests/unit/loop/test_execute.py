"""Execute: what is carried out is told as it was, also when it fails, hangs or is nobody's business."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from mapek_runtime import Action, Cycle, Finding, Observation, Outcome, Rejection
from mapek_runtime.config import GuardSettings, LoopSettings
from mapek_runtime.testing import AutojumpClock, Recorder, run_cycle

HOT = Finding(target="room", problem="hot")
COOL = Action(name="cool", target="room", finding=HOT)


class Room:
    """Always too hot, and always about to be cooled."""

    async def monitor(self, cycle: Cycle) -> Sequence[Observation]:
        return [Observation(name="temperature", value=31.0, target="room")]

    async def analyze(self, cycle: Cycle) -> Sequence[Finding]:
        return [HOT]

    async def plan(self, cycle: Cycle) -> Sequence[Action | Rejection]:
        return [COOL]

    async def execute(self, cycle: Cycle, action: Action) -> Outcome:
        return Outcome(action=action, success=True)


async def test_an_action_that_fails_is_an_outcome_and_the_others_are_carried_out(recorder: Recorder) -> None:
    class TwoRooms(Room):
        async def plan(self, cycle: Cycle) -> Sequence[Action | Rejection]:
            return [Action(name="cool", target=f"room {number}") for number in range(2)]

        async def execute(self, cycle: Cycle, action: Action) -> Outcome:
            if action.target == "room 0":
                raise LookupError("no cooler")
            return Outcome(action=action, success=True)

    cycle = await run_cycle(TwoRooms(), settings=LoopSettings(guard=GuardSettings(fleet_share=1.0)))

    assert {outcome.action.target: outcome.success for outcome in cycle.outcomes} == {
        "room 0": False,
        "room 1": True,
    }
    attributes = recorder.one("mape_k.execute").attributes or {}
    assert attributes["success"] is False
    assert attributes["actions_executed"] == 2
    assert not cycle.success


async def test_an_action_that_nobody_executes_is_a_failed_outcome() -> None:
    class Planner:
        async def analyze(self, cycle: Cycle) -> Sequence[Finding]:
            return [HOT]

        async def plan(self, cycle: Cycle) -> Sequence[Action | Rejection]:
            return [COOL]

        async def monitor(self, cycle: Cycle) -> None: ...

    class Other:
        handles = ("heat",)

        async def execute(self, cycle: Cycle, action: Action) -> Outcome:
            return Outcome(action=action, success=True)

    cycle = await run_cycle(Planner(), Other())

    assert [outcome.error for outcome in cycle.outcomes] == [
        "no plugin executes 'cool'; name it in the `handles` of one"
    ]


async def test_an_action_that_is_cut_off_is_an_outcome_too(
    recorder: Recorder, autojump: AutojumpClock
) -> None:
    class Stuck(Room):
        async def execute(self, cycle: Cycle, action: Action) -> Outcome:
            await asyncio.sleep(3600)
            return Outcome(action=action, success=True)

    cycle = await run_cycle(Stuck(), settings=LoopSettings(execute_limit=2))

    assert [(o.success, o.error.partition(":")[0], o.duration) for o in cycle.outcomes] == [
        (False, "cut off", 2)
    ]
    assert cycle.failed == ("execute",)
    assert (recorder.one("mape_k.execute").attributes or {})["success"] is False


async def test_actions_on_different_targets_are_carried_out_at_the_same_time(autojump: AutojumpClock) -> None:
    class Slow(Room):
        async def plan(self, cycle: Cycle) -> Sequence[Action | Rejection]:
            return [Action(name="cool", target=f"room {number}") for number in range(3)]

        async def execute(self, cycle: Cycle, action: Action) -> Outcome:
            await asyncio.sleep(3)
            return Outcome(action=action, success=True)

    cycle = await run_cycle(Slow(), settings=LoopSettings(guard=GuardSettings(fleet_share=1.0)))

    assert autojump.elapsed == 3
    assert [outcome.duration for outcome in cycle.outcomes] == [3, 3, 3]


@pytest.mark.parametrize("value", [None, True, "done", COOL], ids=["None", "True", "a text", "the action"])
async def test_an_executor_that_returns_no_outcome_is_a_failing_plugin(value: object) -> None:
    class Wrong(Room):
        async def execute(self, cycle: Cycle, action: Action) -> Outcome:
            return value  # type: ignore[return-value]

    cycle = await run_cycle(Wrong())

    assert [(phase, plugin) for phase, plugin, _ in cycle.failures] == [("execute", "Wrong")]
    assert "it must return an Outcome" in cycle.outcomes[0].error
    assert not cycle.success


async def test_an_outcome_is_that_of_the_action_that_was_planned() -> None:
    class Renames(Room):
        async def execute(self, cycle: Cycle, action: Action) -> Outcome:
            return Outcome(action=Action(name="something else", target="the neighbour"), success=True)

    cycle = await run_cycle(Renames())

    assert [outcome.action for outcome in cycle.outcomes] == [COOL]
