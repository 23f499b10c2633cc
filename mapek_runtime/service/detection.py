"""How long a fault goes unnoticed: from its injection until a loop first finds something about it.

That is the part of the time to repair that Monitor and Analyze answer for. A loop has noticed a fault when
it makes a finding of an anomaly about what the fault was done to, or about a link of the node it was done
to; whether it finds the right thing shows in what it does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from mapek_runtime.loop import Finding

__all__ = ["Detection"]

_ENDS = re.compile("[~>]")


class Detection:
    """Follows `fault.injected` and `fault.cleared`, and the findings of every cycle."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._unnoticed: dict[tuple[object, str], tuple[float, object]] = {}
        self._seconds: list[float] = []
        self._missed = 0

    @property
    def seconds(self) -> Sequence[float]:
        """Of each fault that was noticed, in the order of noticing."""
        return tuple(self._seconds)

    @property
    def missed(self) -> int:
        """Faults that were cleared before any loop had noticed them."""
        return self._missed

    def event(self, name: str, fields: Mapping[str, Any]) -> None:
        """An event of the run; only those of faults mean anything here."""
        if name not in ("fault.injected", "fault.cleared"):
            return
        key = fields.get("number"), str(fields.get("target", ""))
        if name == "fault.injected":
            self._unnoticed[key] = self._clock(), fields.get("kind")
        elif self._unnoticed.pop(key, None) is not None:
            self._missed += 1

    def found(self, findings: Iterable[Finding]) -> Sequence[Mapping[str, Any]]:
        """What a cycle found, of whichever node; returns what to tell of each fault noticed by it."""
        if not self._unnoticed:
            return ()
        targets = {finding.target for finding in findings if finding.anomaly}
        ends = {end for target in targets for end in _ENDS.split(target)}
        now = self._clock()
        told = []
        for key in [key for key in self._unnoticed if key[1] in targets or key[1] in ends]:
            since, kind = self._unnoticed.pop(key)
            self._seconds.append(now - since)
            told.append(
                {
                    "number": key[0],
                    "kind": kind,
                    "target": key[1],
                    "detection_ms": round((now - since) * 1000, 3),
                }
            )
        return told
