"""Plugins: what is one, and how a wrong one is refused at the start."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from mapek_runtime import Action, Cycle, Finding, Insight, Observation, Outcome, analyze, execute, learn
from mapek_runtime import monitor as monitors
from mapek_runtime import plan as plans
from mapek_runtime.errors import PluginConflict, PluginContractError
from mapek_runtime.loop import Registry
from mapek_runtime.testing import run_cycle


class Executor:
    def __init__(self, name: str, handles: Any = ()) -> None:
        self.name = name
        self.handles = handles

    async def execute(self, cycle: Cycle, action: Action) -> Outcome:
        return Outcome(action=action, success=True, changed=self.name)


@monitors
async def thermometer(cycle: Cycle) -> Sequence[Observation]:
    return [Observation(name="temperature", value=31.0, target="room")]


@analyze
async def judge(cycle: Cycle) -> Sequence[Finding]:
    return [Finding(target=target, problem="hot") for target in cycle.readings("temperature")]


@plans
async def planner(cycle: Cycle) -> Sequence[Action]:
    return [Action(name="cool", target=finding.target, finding=finding) for finding in cycle.findings]


@execute("cool")
async def cooler(cycle: Cycle, action: Action) -> Outcome:
    return Outcome(action=action, success=True, changed="cooler on")


@learn
async def diary(cycle: Cycle) -> Sequence[Insight]:
    return [Insight(name="noted")]


async def test_functions_are_plugins() -> None:
    cycle = await run_cycle(thermometer, judge, planner, cooler, diary)

    assert [outcome.changed for outcome in cycle.outcomes] == ["cooler on"]
    assert "noted" in [insight.name for insight in cycle.insights]


async def test_a_decorated_function_can_still_be_called() -> None:
    cycle = await run_cycle(thermometer)

    assert await thermometer(cycle) == cycle.observations


async def test_an_action_goes_to_the_plugin_that_names_it() -> None:
    cycle = await run_cycle(
        thermometer, judge, planner, Executor("other", ("heat",)), Executor("any"), Executor("mine", ["cool"])
    )

    assert [outcome.changed for outcome in cycle.outcomes] == ["mine"]


async def test_an_action_that_nobody_names_goes_to_the_plugin_that_names_none() -> None:
    cycle = await run_cycle(thermometer, judge, planner, Executor("other", ("heat",)), Executor("any"))

    assert [outcome.changed for outcome in cycle.outcomes] == ["any"]


def test_execute_must_name_its_actions() -> None:
    with pytest.raises(TypeError, match='@execute\\("restart", "drain"\\)'):
        execute()


@pytest.mark.parametrize(
    ("plugins", "words"),
    [
        ([Executor("a", ["x"]), Executor("b", ["x"])], "plugins 'a' and 'b' both execute 'x'"),
        ([Executor("a"), Executor("b")], "both execute every action"),
        ([Executor("a", ["x"]), Executor("a", ["y"])], "two plugins are named 'a'"),
    ],
    ids=["one action", "every action", "one name"],
)
def test_plugins_that_claim_the_same_are_refused(plugins: list[object], words: str) -> None:
    with pytest.raises(PluginConflict, match=words):
        Registry(plugins)


class NoPhase:
    pass


class Sync:
    def monitor(self, cycle: Cycle) -> list[Observation]:
        return []


class TooFew:
    async def execute(self, cycle: Cycle) -> None: ...


class TooMany:
    async def analyze(self, cycle: Cycle, more: int) -> None: ...


class NotCallable:
    plan = "drain everything"


class AsyncGuard:
    async def monitor(self, cycle: Cycle) -> None: ...

    async def guard(self, cycle: Cycle, action: Action) -> str | None: ...


class SyncVerify:
    async def execute(self, cycle: Cycle, action: Action) -> Outcome:
        return Outcome(action=action, success=True)

    def verify(self, cycle: Cycle, action: Action) -> bool | None: ...


@pytest.mark.parametrize(
    ("plugin", "words"),
    [
        (NoPhase(), "'NoPhase' .* has no phase method; it needs at least one of: async def monitor"),
        (Sync, "'Sync' is a class; give an instance: Sync\\(\\)|is a class"),
        (Sync(), "monitor is not a coroutine function: def monitor.*; expected async def monitor"),
        (TooFew(), "execute cannot be called with \\(cycle, action\\).*expected async def execute"),
        (TooMany(), "analyze cannot be called with \\(cycle\\)"),
        (NotCallable(), "plan is 'drain everything'; expected async def plan"),
        (AsyncGuard(), "guard must not be async"),
        (SyncVerify(), "verify is not a coroutine function"),
        (Executor("a", "cool"), "`handles` is the text 'cool'"),
    ],
    ids=lambda value: "" if isinstance(value, str) else type(value).__name__,
)
def test_a_wrong_plugin_is_refused_with_the_signature_that_would_be_right(plugin: object, words: str) -> None:
    with pytest.raises(PluginContractError, match=words):
        Registry([plugin])
