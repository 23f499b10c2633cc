"""Checked by mypy, never run: plugins and `Runtime`.

Each `type: ignore` names the error that misuse must be; mypy fails when one of them is not needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import assert_type

from mapek_runtime import (
    Action,
    Cycle,
    Finding,
    Insight,
    Observation,
    Outcome,
    Rejection,
    Runtime,
    analyze,
    execute,
    learn,
    monitor,
    plan,
)
from mapek_runtime.loop.plugin import Analyzes, Executes, Learns, Monitors, Plans
from mapek_runtime.testing import Recorder, Tree, check_plugin, run_cycle, tree

__all__ = ["correct_use", "misuse", "wrong_plugins"]


@monitor
async def thermometer(cycle: Cycle) -> Sequence[Observation]:
    """A monitor."""
    return [Observation(name="temperature", value=20.0)]


@analyze
async def judge(cycle: Cycle) -> Iterable[Finding]:
    """An analyzer."""
    return [Finding(target=target, problem="hot") for target in cycle.readings("temperature")]


@plan
async def planner(cycle: Cycle) -> Sequence[Action | Rejection]:
    """A planner."""
    return [Action(name="cool", target=finding.target) for finding in cycle.findings]


@execute("cool", "heat")
async def cooler(cycle: Cycle, action: Action) -> Outcome:
    """An executor."""
    return Outcome(action=action, success=True)


@learn
async def diary(cycle: Cycle) -> Sequence[Insight]:
    """A learner."""
    return []


class Whole:
    """One class that serves every phase, without a base class."""

    async def monitor(self, cycle: Cycle) -> Sequence[Observation]:
        return []

    async def analyze(self, cycle: Cycle) -> Sequence[Finding]:
        return []

    async def plan(self, cycle: Cycle) -> Sequence[Action | Rejection]:
        return []

    async def execute(self, cycle: Cycle, action: Action) -> Outcome:
        return Outcome(action=action, success=True)

    async def learn(self, cycle: Cycle) -> Sequence[Insight]:
        return []


class Wrong:
    """One class whose every phase is wrong."""

    def monitor(self, cycle: Cycle) -> Sequence[Observation]:
        return []

    async def analyze(self, cycle: Cycle) -> Sequence[Observation]:
        return []

    async def plan(self, cycle: Cycle, more: int) -> Sequence[Action]:
        return []

    async def execute(self, cycle: Cycle) -> Outcome:
        raise NotImplementedError

    async def learn(self, cycle: str) -> Sequence[Insight]:
        return []


async def correct_use() -> None:
    """Everything that is allowed."""
    monitors: Monitors = Whole()
    analyzes: Analyzes = Whole()
    plans: Plans = Whole()
    executes: Executes = Whole()
    learns: Learns = Whole()
    async with Runtime(
        monitors, analyzes, plans, executes, learns, thermometer, node_id="n", interval=0.5
    ) as runtime:
        assert_type(runtime, Runtime)
        assert_type(await runtime.wait(cycles=3), Cycle)
        runtime.trigger("alarm")
        runtime.pause()
        runtime.resume()
        assert_type(runtime.statistics().cycles, int)
    cycle = await run_cycle(Whole(), judge, planner, cooler, diary, node="n")
    assert_type(cycle, Cycle)
    assert_type(await check_plugin(Whole()), Sequence[str])
    with Recorder() as recorder:
        assert_type(recorder.tree("key", links=True), Tree)
        assert_type(tree("a"), Tree)


def wrong_plugins() -> Iterable[object]:
    """A class that does not fit the protocol of its phase."""
    first: Monitors = Wrong()  # type: ignore[assignment]
    second: Analyzes = Wrong()  # type: ignore[assignment]
    third: Plans = Wrong()  # type: ignore[assignment]
    fourth: Executes = Wrong()  # type: ignore[assignment]
    fifth: Learns = Wrong()  # type: ignore[assignment]
    return (first, second, third, fourth, fifth)


def not_async(cycle: Cycle) -> Sequence[Observation]:
    """No phase of a loop."""
    return []


async def takes_nothing() -> Sequence[Observation]:
    """No phase of a loop."""
    return []


async def misuse(cycle: Cycle, action: Action) -> None:
    """Everything that is not allowed."""
    monitor(not_async)  # type: ignore[arg-type]
    monitor(takes_nothing)  # type: ignore[arg-type]
    analyze(_observes)  # type: ignore[arg-type]
    plan(_observes)  # type: ignore[arg-type]
    learn(_observes)  # type: ignore[arg-type]
    execute(_observes)  # type: ignore[arg-type]
    execute("cool")(_observes)  # type: ignore[arg-type]

    runtime = Runtime(Whole(), node_id=1)  # type: ignore[arg-type]
    Runtime(Whole(), settings={"interval": 1})  # type: ignore[arg-type]
    Runtime(Whole(), on_cycle=print, halt_file="halt")  # type: ignore[arg-type]
    runtime.trigger()  # type: ignore[call-arg]
    await runtime.wait(3)  # type: ignore[call-arg]
    await runtime.wait(cycles="three")  # type: ignore[arg-type]
    runtime.wait()  # type: ignore[unused-coroutine]
    with runtime:  # type: ignore[attr-defined]
        pass

    Observation("temperature", 20.0)  # type: ignore[call-arg]
    Observation(name="temperature", value="hot")  # type: ignore[arg-type]
    Finding(target="room")  # type: ignore[call-arg]
    Outcome(action="cool", success=True)  # type: ignore[arg-type]
    action.name = "heat"  # type: ignore[misc]
    cycle.readings(3)  # type: ignore[arg-type]
    cycle.observations.append(Observation(name="x", value=1.0))  # type: ignore[attr-defined]
    await run_cycle(Whole(), nodes="n")  # type: ignore[call-arg]


async def _observes(cycle: Cycle) -> Sequence[Observation]:
    return []
