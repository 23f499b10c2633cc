"""The faults in force, as the events tell of them: which, since when, and made by whom."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from mapek_runtime.web.state import FaultShown

__all__ = ["FaultsInForce"]


class FaultsInForce:
    """Follows `fault.injected` and `fault.cleared`."""

    def __init__(self) -> None:
        # A number alone is not enough: two domains may each have a first fault.
        self._faults: dict[tuple[int, str, str], FaultShown] = {}

    def note(self, name: str, fields: Mapping[str, Any]) -> None:
        """An event; one that is not about faults, or not complete, changes nothing."""
        if name not in ("fault.injected", "fault.cleared"):
            return
        number, kind, target = fields.get("number"), fields.get("kind"), fields.get("target")
        if not (isinstance(number, int) and isinstance(kind, str) and isinstance(target, str)):
            return
        if name == "fault.cleared":
            self._faults.pop((number, kind, target), None)
            return
        seconds = fields.get("seconds")
        self._faults[number, kind, target] = FaultShown(
            number=number,
            kind=kind,
            target=target,
            since=str(time.time_ns()),
            seconds=float(seconds) if isinstance(seconds, int | float) else None,
            by="page" if fields.get("by") == "page" else "chaos",
        )

    def shown(self) -> tuple[FaultShown, ...]:
        """Those in force, the oldest first."""
        return tuple(self._faults.values())

    def on(self, target: str) -> FaultShown | None:
        """The fault on `target`; None when there is none."""
        return next((fault for fault in self._faults.values() if fault.target == target), None)

    def numbered(self, number: int) -> FaultShown | None:
        """The fault of that number; None when none is in force."""
        return next((fault for fault in self._faults.values() if fault.number == number), None)
