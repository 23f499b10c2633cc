"""The buttons of the page over an injector that breaks only notes, for tests."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from mapek_runtime.errors import MapekError
from mapek_runtime.loop import Fault, FaultReport
from mapek_runtime.service.controls import RunControls
from mapek_runtime.service.faults import FaultsInForce
from mapek_runtime.web.state import ControlRefused

__all__ = ["Bench", "refused"]


class Injector:
    """Breaks what it is told to break, and knows what is broken."""

    def __init__(self) -> None:
        self.broken: dict[str, str] = {}
        self.stubborn = False
        self.clumsy = False
        self.clears = 0
        self.clearing = asyncio.Event()
        self.slow = asyncio.Event()
        """Whoever clears waits for it."""
        self.slow.set()
        self.entered: asyncio.Event | None = None

    def kinds(self) -> Sequence[str]:
        return ("link.down", "node.crash")

    def targets(self, kind: str) -> Sequence[str]:
        return ("a", "b") if kind == "node.crash" else ("a~b",)

    def schedule(self, seed: int, duration: float) -> Sequence[Fault]:
        return ()

    async def inject(self, fault: Fault) -> None:
        if fault.target not in self.targets(fault.kind):
            raise MapekError(f"{fault.target!r} is no target")
        self.broken[fault.target] = fault.kind
        if self.clumsy:
            raise RuntimeError("the hammer slipped")
        if self.entered is not None:
            self.entered.set()
            await asyncio.sleep(3600)

    async def clear(self, fault: Fault) -> None:
        if self.stubborn:
            raise RuntimeError("the screwdriver is lost")
        self.clears += 1
        self.clearing.set()
        await self.slow.wait()
        self.broken.pop(fault.target, None)

    def report(self) -> FaultReport:
        return FaultReport(injected=0, healed=0, repair_seconds=(), wrong_actions=0, sent=0, delivered=0)


class Bench:
    """Controls over one injector, and what they told."""

    def __init__(self, folder: Path, injectors: Sequence[Injector] | None = None, **more: Any) -> None:
        self.injector = Injector()
        self.in_force = FaultsInForce()
        self.told: list[tuple[str, Mapping[str, Any]]] = []
        self.controls = RunControls(
            injectors=lambda: [self.injector] if injectors is None else injectors,
            in_force=self.in_force,
            folder=folder,
            emit=self.emit,
            **more,
        )

    def emit(self, name: str, fields: Mapping[str, Any]) -> None:
        self.told.append((name, fields))
        self.in_force.note(name, fields)

    def names(self) -> list[str]:
        return [name for name, _ in self.told]


async def refused(call: Any) -> ControlRefused:
    with pytest.raises(ControlRefused) as caught:
        await call
    return caught.value
