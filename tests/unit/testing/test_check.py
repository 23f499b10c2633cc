"""`check_plugin` and `run_cycle`: each fault of a plugin is said in words."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest

from mapek_runtime import Action, Cycle, Finding, Observation, Outcome
from mapek_runtime.errors import PluginContractError
from mapek_runtime.testing import Recorder, check_plugin, run_cycle, tree


class Good:
    handles = ("restart",)

    def __init__(self) -> None:
        self.executed: list[Action] = []

    async def monitor(self, cycle: Cycle) -> Sequence[Observation]:
        await asyncio.sleep(0)
        return [Observation(name="temperature", value=20.0, target="room")]

    async def execute(self, cycle: Cycle, action: Action) -> Outcome:
        self.executed.append(action)
        await asyncio.sleep(0)
        return Outcome(action=action, success=True)


class NotAsync:
    def monitor(self, cycle: Cycle) -> list[Observation]:
        return []


class WrongSignature:
    async def monitor(self) -> list[Observation]:
        return []


class WrongValues:
    async def monitor(self, cycle: Cycle) -> list[Any]:
        return [20.0]


class NoOutcome:
    async def execute(self, cycle: Cycle, action: Action) -> Any:
        return True


class Failing:
    async def analyze(self, cycle: Cycle) -> list[Finding]:
        raise LookupError("no threshold")


class Blocking:
    async def learn(self, cycle: Cycle) -> None:
        time.sleep(0.03)  # noqa: ASYNC251 - the fault that is to be found


class Leaking:
    def __init__(self) -> None:
        self.kept: list[asyncio.Task[None]] = []

    async def monitor(self, cycle: Cycle) -> list[Observation]:
        self.kept.append(asyncio.create_task(asyncio.sleep(1000), name="forgotten"))
        return []


class Swallowing:
    async def monitor(self, cycle: Cycle) -> list[Observation]:
        try:
            await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            return []
        return []


class Turning:
    async def monitor(self, cycle: Cycle) -> list[Observation]:
        try:
            await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            raise LookupError("cut off") from None
        return []


class Deaf:
    async def monitor(self, cycle: Cycle) -> list[Observation]:
        try:
            await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            await asyncio.sleep(1000)
        return []


ACTION = Action(name="restart", target="room")


async def test_a_good_plugin_has_no_faults() -> None:
    good = Good()

    problems = await check_plugin(good, actions=[ACTION], longest_step=1.0)

    assert problems == ()
    assert good.executed


@pytest.mark.blocking
@pytest.mark.parametrize(
    ("plugin", "words"),
    [
        (NotAsync(), "monitor is not a coroutine function"),
        (WrongSignature(), "monitor cannot be called with (cycle)"),
        (WrongValues(), "monitor returned 20.0; it must return Observation"),
        (NoOutcome(), "execute returned True; it must return an Outcome"),
        (Failing(), "analyze raised LookupError: no threshold"),
        (Blocking(), "learn blocks the loop"),
        (Leaking(), "a task was left running after the cycle: forgotten"),
        (Swallowing(), "monitor swallowed its cancellation"),
        (Turning(), "monitor turned its cancellation into LookupError: cut off"),
        (Deaf(), "monitor did not end within 0.05 s of being cancelled"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
async def test_a_fault_is_said_in_words(plugin: object, words: str) -> None:
    problems = await check_plugin(plugin, actions=[ACTION], longest_step=0.02, patience=0.05)

    assert words in "\n".join(problems)


async def test_checking_leaves_no_task_behind() -> None:
    before = asyncio.all_tasks()

    for plugin in (Leaking(), Deaf()):
        await check_plugin(plugin, patience=0.01)
    for _ in range(3):
        await asyncio.sleep(0)

    assert asyncio.all_tasks() == before


async def test_what_a_plugin_plans_is_not_executed() -> None:
    executed: list[str] = []

    class Eager:
        async def plan(self, cycle: Cycle) -> list[Action]:
            return [Action(name="destroy", target="everything")]

        async def execute(self, cycle: Cycle, action: Action) -> Outcome:
            executed.append(action.name)
            return Outcome(action=action, success=True)

    await check_plugin(Eager(), findings=[Finding(target="room", problem="hot")], longest_step=1.0)

    assert executed == []


async def test_run_cycle_gives_the_cycle_back(recorder: Recorder) -> None:
    cycle = await run_cycle(Good(), node="node-7", trigger="test")

    assert cycle.readings("temperature") == {"room": 20.0}
    assert recorder.tree() == tree("""
        mape_k.cycle node_id=node-7 cycle=1 trigger=test
          mape_k.monitor metrics_count=1
          mape_k.analyze skipped=true
          mape_k.plan skipped=true
          mape_k.execute skipped=true
          mape_k.knowledge insights_stored=0
    """)


async def test_run_cycle_refuses_a_plugin_as_a_runtime_does() -> None:
    with pytest.raises(PluginContractError, match="is not a coroutine function"):
        await run_cycle(NotAsync())
