"""What a plugin is: any object with one of the phase methods.

There is no base class. A class with `async def monitor(self, cycle)` is a monitor; one class may
serve several phases. A plugin is inspected once, when it is registered, so that a wrong signature
is an error at the start and not in the third hour.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from mapek_runtime.errors import PluginConflict, PluginContractError

from .model import Action, Cycle, Finding, Insight, Observation, Outcome, Rejection

__all__ = [
    "Analyzes",
    "Executes",
    "Learns",
    "Monitors",
    "Part",
    "Plans",
    "Registry",
    "analyze",
    "execute",
    "learn",
    "monitor",
    "plan",
]


class Monitors(Protocol):
    """Reads the managed system."""

    async def monitor(self, cycle: Cycle) -> Iterable[Observation]:
        """What is there to see now."""


class Analyzes(Protocol):
    """Finds what is wrong."""

    async def analyze(self, cycle: Cycle) -> Iterable[Finding]:
        """What `cycle.observations` mean, with evidence and the threshold in force."""


class Plans(Protocol):
    """Chooses what to do."""

    async def plan(self, cycle: Cycle) -> Iterable[Action | Rejection]:
        """Actions for `cycle.findings`, and the options that were rejected with their reason."""


class Executes(Protocol):
    """Does it.

    Optional beside `execute`: `handles`, the names of the actions this plugin takes (all that no
    other plugin names, when absent); `async def verify(cycle, action) -> bool | None` (True: the
    metric has recovered, False: it is worse, None: not yet), which replaces the rule that an
    action is verified once its finding is gone; `async def undo(cycle, action) -> Outcome`, which
    is given the inverse of an action that did not help, and takes the place of `execute` for it.
    An action is never verified in the cycle that carried it out.
    """

    async def execute(self, cycle: Cycle, action: Action) -> Outcome:
        """Carry out one action."""


class Learns(Protocol):
    """Keeps what was learned."""

    async def learn(self, cycle: Cycle) -> Iterable[Insight]:
        """What this cycle taught; written to `cycle.knowledge`."""


# Optional, on any plugin: `def guard(self, cycle, action) -> str | None` refuses an action with a
# reason (a rule of the domain, such as: never drain the last way out).

PHASES: dict[str, tuple[tuple[str, ...], str]] = {
    "monitor": (("cycle",), "async def monitor(self, cycle: Cycle) -> Iterable[Observation]"),
    "analyze": (("cycle",), "async def analyze(self, cycle: Cycle) -> Iterable[Finding]"),
    "plan": (("cycle",), "async def plan(self, cycle: Cycle) -> Iterable[Action | Rejection]"),
    "execute": (
        ("cycle", "action"),
        "async def execute(self, cycle: Cycle, action: Action) -> Outcome",
    ),
    "learn": (("cycle",), "async def learn(self, cycle: Cycle) -> Iterable[Insight]"),
}
"""Method → (parameters, expected signature)."""

_OPTIONAL: dict[str, tuple[tuple[str, ...], str, bool]] = {
    "verify": (
        ("cycle", "action"),
        "async def verify(self, cycle: Cycle, action: Action) -> bool | None",
        True,
    ),
    "undo": (("cycle", "action"), "async def undo(self, cycle: Cycle, action: Action) -> Outcome", True),
    "guard": (("cycle", "action"), "def guard(self, cycle: Cycle, action: Action) -> str | None", False),
}


class _FunctionPlugin:
    """A plain async function as a plugin of one phase."""

    def __init__(
        self, function: Callable[..., Awaitable[Any]], phase: str, name: str, handles: tuple[str, ...]
    ) -> None:
        self.name = name
        self.handles = handles
        self._function = function
        # The registry finds phases by attribute, so the function takes the place of the method.
        setattr(self, phase, function)

    def __call__(self, *args: Any, **kwargs: Any) -> Awaitable[Any]:
        return self._function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<plugin {self.name}>"


def monitor(function: Callable[[Cycle], Awaitable[Iterable[Observation]]]) -> _FunctionPlugin:
    """Make `async def f(cycle) -> Iterable[Observation]` a monitor."""
    return _FunctionPlugin(function, "monitor", function.__name__, ())


def analyze(function: Callable[[Cycle], Awaitable[Iterable[Finding]]]) -> _FunctionPlugin:
    """Make `async def f(cycle) -> Iterable[Finding]` an analyzer."""
    return _FunctionPlugin(function, "analyze", function.__name__, ())


def plan(function: Callable[[Cycle], Awaitable[Iterable[Action | Rejection]]]) -> _FunctionPlugin:
    """Make `async def f(cycle) -> Iterable[Action | Rejection]` a planner."""
    return _FunctionPlugin(function, "plan", function.__name__, ())


def execute(*handles: str) -> Callable[[Callable[[Cycle, Action], Awaitable[Outcome]]], _FunctionPlugin]:
    """Make `async def f(cycle, action) -> Outcome` the executor of the actions named.

    Raises TypeError when used without naming an action: `@execute("restart")`.
    """
    if not handles or not all(isinstance(name, str) for name in handles):
        raise TypeError('name the actions it executes: @execute("restart", "drain")')

    def decorate(function: Callable[[Cycle, Action], Awaitable[Outcome]]) -> _FunctionPlugin:
        return _FunctionPlugin(function, "execute", function.__name__, handles)

    return decorate


def learn(function: Callable[[Cycle], Awaitable[Iterable[Insight]]]) -> _FunctionPlugin:
    """Make `async def f(cycle) -> Iterable[Insight]` a learner."""
    return _FunctionPlugin(function, "learn", function.__name__, ())


@dataclass(frozen=True, slots=True)
class Part:
    """One phase method of one plugin, ready to call."""

    plugin: str
    call: Callable[..., Awaitable[Any]]
    owner: object


class Registry:
    """The plugins of one runtime, inspected once.

    Raises `PluginContractError` for an object without a phase method or with a wrong signature, and
    `PluginConflict` when two plugins have one name or two executors claim one action.
    """

    def __init__(self, plugins: Sequence[object]) -> None:
        self.names: list[str] = []
        self._parts: dict[str, list[Part]] = {phase: [] for phase in PHASES}
        self.guards: list[tuple[str, Callable[[Cycle, Action], str | None]]] = []
        self._executors: dict[str, Part] = {}
        self._fallback: Part | None = None
        for plugin in plugins:
            self._register(plugin)

    def parts(self, phase: str) -> Sequence[Part]:
        """The plugins that serve a phase, in the order they were given."""
        return self._parts[phase]

    def executor(self, action: str) -> Part | None:
        """Who carries out an action of that name."""
        return self._executors.get(action, self._fallback)

    def _register(self, plugin: object) -> None:
        name = str(getattr(plugin, "name", "") or type(plugin).__name__)
        if isinstance(plugin, type):
            raise PluginContractError(f"plugin {name!r} is a class; give an instance: {plugin.__name__}()")
        if name in self.names:
            raise PluginConflict(f"two plugins are named {name!r}; give one of them another `name` attribute")
        phases = [phase for phase in PHASES if hasattr(plugin, phase)]
        if not phases:
            raise PluginContractError(
                f"plugin {name!r} ({type(plugin).__qualname__}) has no phase method; "
                "it needs at least one of: " + ", ".join(signature for _, signature in PHASES.values())
            )
        for phase in phases:
            parameters, signature = PHASES[phase]
            method = getattr(plugin, phase)
            _check(name, method, phase, parameters, signature, is_async=True)
            self._parts[phase].append(Part(name, method, plugin))
        for optional, (parameters, signature, is_async) in _OPTIONAL.items():
            method = getattr(plugin, optional, None)
            if method is not None:
                _check(name, method, optional, parameters, signature, is_async=is_async)
                if optional == "guard":
                    self.guards.append((name, method))
        if "execute" in phases:
            self._claim(name, plugin, self._parts["execute"][-1])
        self.names.append(name)

    def _claim(self, name: str, plugin: object, part: Part) -> None:
        handles: Iterable[str] = getattr(plugin, "handles", ()) or ()
        if isinstance(handles, str):
            raise PluginContractError(
                f"plugin {name!r}: `handles` is the text {handles!r}; "
                f"it must be a collection of action names, such as ({handles!r},)"
            )
        claimed = tuple(handles)
        if not claimed:
            if self._fallback is not None:
                raise PluginConflict(
                    f"plugins {self._fallback.plugin!r} and {name!r} both execute every action; "
                    "name the actions of one of them in its `handles`"
                )
            self._fallback = part
        for action in claimed:
            if action in self._executors:
                raise PluginConflict(
                    f"plugins {self._executors[action].plugin!r} and {name!r} both execute {action!r}"
                )
            self._executors[action] = part


def _check(
    plugin: str,
    method: object,
    phase: str,
    parameters: tuple[str, ...],
    signature: str,
    *,
    is_async: bool,
) -> None:
    if not callable(method):
        raise PluginContractError(f"plugin {plugin!r}: {phase} is {method!r}; expected {signature}")
    found = inspect.iscoroutinefunction(method) or inspect.iscoroutinefunction(
        getattr(method, "__call__", None)  # noqa: B004 - callable objects are welcome, coroutines or not
    )
    try:
        actual = inspect.signature(method)
    except (TypeError, ValueError):
        actual = None
    shown = f"{'async ' if found else ''}def {phase}{actual if actual is not None else '(?)'}"
    if is_async and not found:
        raise PluginContractError(
            f"plugin {plugin!r}: {phase} is not a coroutine function: {shown}; expected {signature}"
        )
    if not is_async and found:
        raise PluginContractError(
            f"plugin {plugin!r}: {phase} must not be async: {shown}; expected {signature}"
        )
    if actual is None:
        return
    try:
        actual.bind(*parameters)
    except TypeError as error:
        raise PluginContractError(
            f"plugin {plugin!r}: {phase} cannot be called with ({', '.join(parameters)}): {shown} ({error}); "
            f"expected {signature}"
        ) from None
