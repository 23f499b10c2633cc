"""A domain of one's own that makes trouble: links that lose much of what they carry, again and again."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import msgspec

from mapek_runtime.errors import EngineUnavailable
from mapek_runtime.loop.domain import DomainContext, Fault, FaultInjector

_FIRST = 4.0


class FlappingSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which links flap, and how."""

    links: tuple[str, ...] = ("node-1~node-2",)
    """Links of the mesh; they flap one after another."""
    every: float = 6.0
    """Seconds from one fault of a link to its next."""
    lasts: float = 2.0
    """Seconds that a fault lasts."""
    loss: float = 0.6
    """Share of the datagrams that a link loses meanwhile."""


class Session:
    """Has no plugins: it is no part of any loop."""

    def plugins(self, node_id: str) -> Sequence[object]:
        """None."""
        return ()


class Flapping:
    """Breaks links of the mesh through its own fault injector."""

    name = "flapping"
    settings = FlappingSettings

    @asynccontextmanager
    async def open(self, settings: FlappingSettings, context: DomainContext) -> AsyncIterator[Session]:
        """Break links until the block is left."""
        injector = context.find(FaultInjector)
        if injector is None:
            raise EngineUnavailable("nobody can make faults here; name mesh before flapping in domains")
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(
                    self._flap(settings, context, injector, place), context=contextvars.Context()
                )
                for place in range(len(settings.links))
            ]
            try:
                yield Session()
            finally:
                for task in tasks:
                    task.cancel()

    async def _flap(
        self, settings: FlappingSettings, context: DomainContext, injector: FaultInjector, place: int
    ) -> None:
        await asyncio.sleep(_FIRST + place * settings.every / len(settings.links))
        number = place
        while True:
            number += len(settings.links)
            fault = Fault(
                number=number,
                kind="link.loss",
                target=settings.links[place],
                at=0.0,
                duration=settings.lasts,
                parameters={"loss": settings.loss},
            )
            told = {"number": number, "kind": fault.kind, "target": fault.target}
            await injector.inject(fault)
            context.emit("fault.injected", {**told, "seconds": settings.lasts})
            await asyncio.sleep(settings.lasts)
            await injector.clear(fault)
            context.emit("fault.cleared", told)
            await asyncio.sleep(settings.every - settings.lasts)


domain = Flapping()
