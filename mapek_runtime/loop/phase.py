"""One phase of a cycle: an asyncio task with its own span, limit and retry.

A plugin that fails is isolated: the exception stands on the phase's span, the others' results count.
The phase itself fails when every plugin of it failed, or when it runs past its limit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from opentelemetry.trace import StatusCode

from mapek_runtime.errors import PhaseFailed, PhaseTimeout, PluginContractError

from .model import Cycle
from .plugin import Part

__all__ = ["Failures", "Phase", "Ran", "gather", "run"]

Failures = list[tuple[str, str, Exception]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """How a phase is run: `limit` in seconds, `retries` further attempts, `delay` before the first."""

    name: str
    limit: float
    retries: int = 0
    delay: float = 0.05


@dataclass(slots=True)
class Ran:
    """What a phase left behind."""

    ok: bool
    failures: Failures


async def run(phase: Phase, span: Any, work: Callable[[Failures], Awaitable[None]]) -> Ran:
    """Do the work of a phase within its limit, again when it failed; never raises but cancellation."""
    failures: Failures = []
    for attempt in range(phase.retries + 1):
        failures = []
        try:
            async with asyncio.timeout(phase.limit) as limit:
                await work(failures)
        except PhaseFailed as failed:
            error: Exception = failed
        except TimeoutError as late:
            if limit.expired():
                error = PhaseTimeout(
                    f"{phase.name} ran past its limit of {phase.limit:g} s", phase=phase.name
                )
            else:
                error = late
        except Exception as unexpected:  # noqa: BLE001 - a fault of a phase ends here, on its span
            error = unexpected
        else:
            if not limit.expired():
                _mark(span, phase, failures)
                return Ran(True, failures)
            error = PhaseTimeout(
                f"{phase.name} ran past its limit of {phase.limit:g} s; a plugin swallowed the cancellation",
                phase=phase.name,
            )
        if attempt < phase.retries:
            span.add_event("retry", {"attempt": attempt + 1, "error": f"{type(error).__name__}: {error}"})
            await asyncio.sleep(phase.delay * 2**attempt)
    _mark(span, phase, failures)
    if not isinstance(error, PhaseFailed):
        # The causes of a PhaseFailed are on the span already, one event a plugin.
        span.record_exception(error)
        failures.append((phase.name, "", error))
    span.set_attribute("error.type", type(error).__name__)
    span.set_status(StatusCode.ERROR, str(error))
    return Ran(False, failures)


def _mark(span: Any, phase: Phase, failures: Failures) -> None:
    if not failures:
        return
    for _, plugin, error in failures:
        span.record_exception(error, attributes={"plugin": plugin})
    span.set_attribute("plugins_failed", len(failures))
    span.set_status(
        StatusCode.ERROR,
        f"{phase.name}: " + "; ".join(f"{plugin}: {type(e).__name__}: {e}" for _, plugin, e in failures),
    )


async def gather(
    phase: str, parts: Sequence[Part], cycle: Cycle, kind: type | tuple[type, ...], failures: Failures, *,
    together: bool = False,
) -> list[Any]:  # fmt: skip
    """The values of all plugins, in their order; a plugin that fails is noted in `failures`.

    `together` runs the plugins at the same time. Raises `PhaseFailed` when all of them failed.
    """
    results: list[Iterable[Any]] = []
    before = len(failures)
    if together and len(parts) > 1:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_one(phase, part, cycle, kind, failures)) for part in parts]
        results = [task.result() for task in tasks]
    else:
        for part in parts:
            results.append(await _one(phase, part, cycle, kind, failures))
    mine = failures[before:]
    if parts and len(mine) == len(parts):
        raise PhaseFailed(
            f"every plugin of {phase} failed: "
            + "; ".join(f"{plugin}: {type(e).__name__}: {e}" for _, plugin, e in mine),
            phase=phase,
            causes=ExceptionGroup(phase, [error for _, _, error in mine]),
        )
    return [value for values in results for value in values]


async def _one(
    phase: str, part: Part, cycle: Cycle, kind: type | tuple[type, ...], failures: Failures
) -> Sequence[Any]:
    try:
        values = await part.call(cycle)
        if values is None:
            return ()
        found = tuple(values)
        for value in found:
            if not isinstance(value, kind):
                expected = kind if isinstance(kind, tuple) else (kind,)
                raise PluginContractError(
                    f"plugin {part.plugin!r}: {phase} returned {value!r}; it must return "
                    + " or ".join(k.__name__ for k in expected)
                )
    except Exception as error:  # noqa: BLE001 - the isolation of a failing plugin
        failures.append((phase, part.plugin, error))
        return ()
    return found
