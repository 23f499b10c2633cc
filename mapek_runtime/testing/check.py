"""`check_plugin`: what a plugin does wrong, in words."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Sequence
from typing import Any

from mapek_runtime.config import LoopSettings
from mapek_runtime.errors import PluginContractError, PluginError
from mapek_runtime.loop import Action, Cycle, Finding, Knowledge, Observation, Trigger
from mapek_runtime.loop.cycle import CycleRunner
from mapek_runtime.loop.plugin import Part, Registry

__all__ = ["check_plugin"]

Method = Callable[..., Coroutine[Any, Any, Any]]

_TURNS = 3
"""Turns of the loop that a task may take to end after its phase has."""


async def check_plugin(
    plugin: object,
    *,
    observations: Iterable[Observation] = (),
    findings: Iterable[Finding] = (),
    actions: Iterable[Action] = (),
    longest_step: float = 0.1,
    patience: float = 1.0,
) -> Sequence[str]:
    """What `plugin` does wrong, one sentence each; nothing when it keeps the contract.

        assert await check_plugin(Thermometer()) == ()

    Its signatures are inspected, then one cycle is run with it, then each of its phase methods is
    called once more and cancelled at its first wait. It is given `observations`, `findings` and
    `actions` beside its own; actions are really executed, so its `execute` is tried only when there
    are some. `longest_step` is how long it may hold the loop between two waits, and `patience` how
    long it may take to end after it was cancelled, both in seconds.
    """
    try:
        Registry([plugin])
    except PluginError as error:
        return (str(error),)
    watched = _Watched(plugin, longest_step)
    given = _Given(tuple(observations), tuple(findings), tuple(actions))
    # Of two executors of every action the one under test is wanted, so the given ones execute nothing.
    registry = Registry([given, watched])
    runner = CycleRunner("check", registry, LoopSettings(), Knowledge(), halted=None)
    before = asyncio.all_tasks()
    cycle = await runner.run((Trigger(reason="check"),))
    problems = [_failure(phase, error) for phase, _plugin, error in cycle.failures]
    problems += [f"{o.action.name} on {o.action.target!r} failed: {o.error or 'no error was given'}"
                 for o in cycle.outcomes if not o.success and not cycle.failures]  # fmt: skip
    problems += await _left_behind(before)
    for phase, part in watched.parts():
        arguments = [(cycle, action) for action in given.actions] if phase == "execute" else [(cycle,)]
        for argument in arguments[:1]:
            problem = await _cancelled(phase, part.call(*argument), patience)
            if problem is not None:
                problems.append(problem)
    problems += watched.problems()
    return tuple(dict.fromkeys(problems))


class _Given:
    """What the caller gives into the phases."""

    name = "check: given"

    def __init__(
        self,
        observations: Sequence[Observation],
        findings: Sequence[Finding],
        actions: Sequence[Action],
    ) -> None:
        self.observations = observations
        self.findings = findings
        self.actions = actions

    async def monitor(self, cycle: Cycle) -> Sequence[Observation]:
        return self.observations

    async def analyze(self, cycle: Cycle) -> Sequence[Finding]:
        # Without a finding nothing is planned.
        return [*self.findings, *(Finding(target=action.target, problem="check") for action in self.actions)]

    async def plan(self, cycle: Cycle) -> Sequence[Action]:
        return self.actions


class _Watched:
    """The plugin with a clock on each of its steps."""

    def __init__(self, plugin: object, longest_step: float) -> None:
        self.name = str(getattr(plugin, "name", "") or type(plugin).__name__)
        self.handles = getattr(plugin, "handles", ())
        self._longest = longest_step
        self._slow: dict[str, float] = {}
        self._parts: list[tuple[str, Part]] = []
        registry = Registry([plugin])
        for phase in ("monitor", "analyze", "plan", "execute", "learn"):
            for part in registry.parts(phase):
                # What it plans is its business here; what is executed comes from the caller alone.
                call = self._watch(phase, part.call)
                self._parts.append((phase, Part(part.plugin, call, plugin)))
                setattr(self, phase, self._planned(call) if phase == "plan" else call)
        for optional in ("verify", "undo", "guard"):
            method = getattr(plugin, optional, None)
            if method is not None:
                setattr(self, optional, method)

    def parts(self) -> Sequence[tuple[str, Part]]:
        """Its phase methods."""
        return self._parts

    def problems(self) -> list[str]:
        """Which methods held the loop for too long."""
        return [
            f"{phase} blocks the loop: it ran for {seconds:.2f} s without waiting; give blocking work to "
            "asyncio.to_thread"
            for phase, seconds in self._slow.items()
        ]

    def _watch(self, phase: str, call: Callable[..., Awaitable[Any]]) -> Method:
        async def watched(*arguments: Any) -> Any:
            return await _Steps(call(*arguments), lambda seconds: self._step(phase, seconds))

        return watched

    def _planned(self, call: Callable[..., Awaitable[Any]]) -> Method:
        async def planned(cycle: Cycle) -> Any:
            values = await call(cycle)
            if values is None:
                return ()
            return [value for value in values if not isinstance(value, Action)]

        return planned

    def _step(self, phase: str, seconds: float) -> None:
        if seconds > self._longest:
            self._slow[phase] = max(seconds, self._slow.get(phase, 0.0))


class _Steps:
    """Awaits something and tells how long each step between two waits took."""

    def __init__(self, inner: Awaitable[Any], tell: Callable[[float], None]) -> None:
        self._inner = inner
        self._tell = tell

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self._inner.__await__()
        value: Any = None
        error: BaseException | None = None
        while True:
            began = time.perf_counter()
            try:
                waiting = steps.send(value) if error is None else steps.throw(error)
            except StopIteration as end:
                return end.value
            finally:
                self._tell(time.perf_counter() - began)
            value, error = None, None
            try:
                value = yield waiting
            except BaseException as thrown:  # noqa: BLE001 - handed on, as `yield from` does
                error = thrown


def _failure(phase: str, error: Exception) -> str:
    if isinstance(error, PluginContractError):
        return str(error)
    return f"{phase} raised {type(error).__name__}: {error}"


async def _left_behind(before: set[asyncio.Task[Any]]) -> list[str]:
    for _ in range(_TURNS):
        await asyncio.sleep(0)
    left = asyncio.all_tasks() - before
    problems = [
        f"a task was left running after the cycle: {task.get_name()} ({task.get_coro()!r}); "
        "put it in a task group that the phase waits for"
        for task in left
    ]
    await _end(left)
    return problems


async def _cancelled(phase: str, call: Awaitable[Any], patience: float) -> str | None:
    async def run() -> Any:
        return await call

    before = asyncio.all_tasks()
    task = asyncio.get_running_loop().create_task(run())
    await asyncio.sleep(0)
    # A method that never waits has ended by now; its result was judged in the cycle.
    cancelled = task.cancel()
    await asyncio.wait((task,), timeout=patience)
    problem = None
    if cancelled and not task.done():
        problem = f"{phase} did not end within {patience:g} s of being cancelled; let CancelledError through"
    elif not task.cancelled():
        error = task.exception()
        if cancelled and error is None:
            problem = f"{phase} swallowed its cancellation and returned; let CancelledError through"
        elif cancelled:
            problem = f"{phase} turned its cancellation into {type(error).__name__}: {error}; let it through"
    await _end(asyncio.all_tasks() - before)
    return problem


async def _end(tasks: set[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=1.0)
