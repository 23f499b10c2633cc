"""The referee: judges from outside the loop whether faults were healed and actions were right.

For each fault it sends canaries through the real data plane between the nodes the fault hurts, in
both directions. A fault under which no canary is ever lost hurt nobody: it counts neither as healed
nor against the loop. Any other is healed when every direction delivers `STREAK` canaries in a row
while the fault is still there, and the time to repair runs from the injection until the first of
them. Mild faults, under which most canaries arrive all the same, are judged by their odds (`canary`).
It reads nothing of what the loop believes.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mapek_runtime.loop.domain import Fault

from .canary import OVERDUE, STREAK, Direction, direction
from .plane import DataPlane

__all__ = ["CANARY", "STREAK", "Referee"]

CANARY = "mesh.canary"
_EVERY = 0.02
_GRACE = 1.5
_BODY = struct.Struct("!III")


@dataclass(slots=True)
class _Case:
    fault: Fault
    injected_at: float
    directions: list[Direction]
    cleared_at: float | None = None
    repair: float | None = None
    """Seconds until the slowest direction had recovered; None while the fault is not healed."""
    hurt: bool = False

    def judge(self, now: float) -> bool:
        """Look at the directions; True in the moment in which the fault turns out to be healed."""
        self.note_harm(now)
        if self.cleared_at is not None or self.repair is not None:
            return False
        times = [way.recovered_at(now) for way in self.directions]
        known = [time for time in times if time is not None]
        if not self.hurt or not known or len(known) < len(times):
            return False
        self.repair = max(0.0, max(known) - self.injected_at)
        return True

    def note_harm(self, now: float) -> None:
        """Look whether a canary was lost, or enough of them."""
        if not self.hurt and self.cleared_at is None:
            self.hurt = any(way.hurt(now) for way in self.directions)

    def harmless(self, now: float) -> bool:
        """Whether nothing was lost although there was time for it."""
        end = now if self.cleared_at is None else self.cleared_at
        return not self.hurt and (self.cleared_at is not None or end - self.injected_at > 2 * OVERDUE)


class Referee:
    """Watches the faults of one group of nodes."""

    def __init__(
        self,
        plane: DataPlane,
        nodes: Iterable[str],
        links: Sequence[tuple[str, str]],
        *,
        clock: Callable[[], float],
        emit: Callable[[str, Mapping[str, Any]], None],
        usual_loss: float = 0.0,
    ) -> None:
        self._plane = plane
        self._usual_loss = usual_loss
        self._nodes = frozenset(nodes)
        self._links = links
        self._clock = clock
        self._emit = emit
        self._cases: dict[int, _Case] = {}
        self._started_at: dict[str, float] = {}
        self.wrong: list[tuple[str, str, str]] = []
        """(action, node, target) of each action that no fault called for."""
        plane.receive(CANARY, self.arrived)

    @property
    def injected(self) -> int:
        """Faults so far, harmless ones among them."""
        return len(self._cases)

    @property
    def harmless(self) -> int:
        """Faults so far under which no canary was lost."""
        now = self._clock()
        return sum(case.harmless(now) for case in self._cases.values())

    @property
    def repairs(self) -> tuple[float, ...]:
        """Seconds to repair of each healed fault."""
        return tuple(case.repair for case in self._cases.values() if case.repair is not None)

    def active(self) -> Sequence[Fault]:
        """The faults that were injected and not cleared."""
        return [case.fault for case in self._cases.values() if case.cleared_at is None]

    def begin(self, fault: Fault) -> None:
        """The fault is there from now on."""
        if "~" in fault.target:
            a, _, b = fault.target.partition("~")
            pairs = [(a, b), (b, a)]
        else:
            around = {b if a == fault.target else a for a, b in self._links if fault.target in (a, b)}
            pairs = [pair for peer in sorted(around) for pair in ((peer, fault.target), (fault.target, peer))]
        self._cases[fault.number] = _Case(
            fault,
            self._clock(),
            [
                direction(fault, source, destination, usual_loss=self._usual_loss)
                for source, destination in pairs
            ],
        )

    def end(self, fault: Fault) -> None:
        """The fault was cleared: what recovers later was not healed."""
        case = self._cases.get(fault.number)
        if case is not None and case.cleared_at is None:
            now = self._clock()
            case.note_harm(now)
            case.cleared_at = now

    def started(self, node: str) -> None:
        """A node runs again."""
        self._started_at[node] = self._clock()

    def acted(self, action: str, node: str, target: str) -> None:
        """A node did something: right only where a fault called for it."""
        if self._called_for(action, target):
            return
        self.wrong.append((action, node, target))
        self._emit("action.wrong", {"action": action, "node": node, "target": target})

    def arrived(self, body: bytes) -> None:
        """A canary came through."""
        if len(body) != _BODY.size:
            return
        number, way, canary = _BODY.unpack(body)
        case = self._cases.get(number)
        if case is None or case.cleared_at is not None or way >= len(case.directions):
            return
        now = self._clock()
        case.directions[way].delivered(canary, now)
        if case.judge(now) and case.repair is not None:
            self._emit(
                "fault.healed",
                {
                    "number": case.fault.number,
                    "kind": case.fault.kind,
                    "target": case.fault.target,
                    "repair_ms": round(case.repair * 1000, 1),
                },
            )

    async def run(self) -> None:
        """Send canaries for every fault that is there and not healed, until cancelled."""
        due = self._clock()
        while True:
            self.send(self._clock())
            due = max(due + _EVERY, self._clock())
            await asyncio.sleep(due - self._clock())

    def send(self, now: float) -> None:
        """Send one canary in each direction that a fault hurts."""
        for case in self._cases.values():
            if case.cleared_at is not None or case.repair is not None:
                continue
            case.note_harm(now)
            for index, way in enumerate(case.directions):
                number = len(way.sent)
                way.sent.append(now)
                # A node that is down sends nothing: its canary counts as lost.
                if self._plane.running(way.source):
                    body = _BODY.pack(case.fault.number, index, number)
                    self._plane.send(way.source, way.destination, CANARY, body)

    def _called_for(self, action: str, target: str) -> bool:
        now = self._clock()
        if action == "restart":
            return target in self._nodes and not self._plane.running(target)
        ends = target.split("~")
        crashed = any(not self._plane.running(end) for end in ends if end in self._nodes)
        on_link = [case for case in self._cases.values() if case.fault.target == target]
        if action == "undrain":
            return not crashed and all(case.cleared_at is not None for case in on_link)
        if crashed or any(now - self._started_at.get(end, -_GRACE) < _GRACE for end in ends):
            return True
        return any(case.cleared_at is None or now - case.cleared_at <= _GRACE for case in on_link)
