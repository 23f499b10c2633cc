"""Chaos: injects the faults of a reproducible schedule, on time, and takes them away again."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mapek_runtime.errors import MapekError
from mapek_runtime.loop import Fault, FaultInjector

__all__ = ["WINDOW", "run_chaos"]

logger = logging.getLogger(__name__)

WINDOW = 600.0
"""Seconds that one schedule covers when the run has no end; the next one has the next seed."""
_LAST_CLEAR = 2.0


Emit = Callable[[str, Mapping[str, Any]], None]


async def run_chaos(
    injectors: Sequence[FaultInjector], seed: int, duration: float | None, emit: Emit
) -> None:
    """Make faults until the schedule is over or this is cancelled.

    Tells `fault.injected` and `fault.cleared`; that a fault was healed is the domain's to tell.
    Faults that are in force when it is cancelled are cleared, within two seconds.
    """
    loop = asyncio.get_running_loop()
    start = loop.time()
    window, before = 0, 0
    while True:
        schedules = [
            (injector, injector.schedule(seed + window, duration or WINDOW)) for injector in injectors
        ]
        async with asyncio.TaskGroup() as group:
            for injector, schedule in schedules:
                for planned in schedule:
                    # Each schedule numbers from 1; whoever keeps account of faults must not take one of
                    # this window for one of the window before.
                    fault = dataclasses.replace(planned, number=before + planned.number)
                    group.create_task(
                        _one(injector, fault, start + window * WINDOW, emit),
                        name=f"fault {fault.number}",
                        context=contextvars.Context(),
                    )
        if duration is not None:
            return
        window += 1
        before += max((fault.number for _, schedule in schedules for fault in schedule), default=0)
        await _until(start + window * WINDOW)


async def _one(injector: FaultInjector, fault: Fault, start: float, emit: Emit) -> None:
    told = {"number": fault.number, "kind": fault.kind, "target": fault.target}
    await _until(start + fault.at)
    try:
        await injector.inject(fault)
    except MapekError:
        logger.exception("fault %d (%s on %s) could not be made", fault.number, fault.kind, fault.target)
        return
    emit("fault.injected", {**told, "seconds": fault.duration})
    try:
        await _until(start + fault.at + fault.duration)
    finally:
        try:
            async with asyncio.timeout(_LAST_CLEAR):
                await injector.clear(fault)
            emit("fault.cleared", told)
        except (MapekError, TimeoutError):
            logger.exception(
                "fault %d (%s on %s) could not be cleared", fault.number, fault.kind, fault.target
            )


async def _until(when: float) -> None:
    await asyncio.sleep(max(0.0, when - asyncio.get_running_loop().time()))
