"""The referee: judges from outside the loop whether faults were healed and actions were right.

For each fault it sends canaries through the real data plane between the nodes the fault hurts, in
both directions. The fault is healed when every direction delivers `STREAK` canaries in a row while
the fault is still there, and the time to repair runs from the injection until the first of them.
It reads nothing of what the loop believes.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mapek_runtime.loop.domain import Fault

from .node import UdpNode
from .wire import Data

__all__ = ["CANARY", "STREAK", "Referee"]

CANARY = "mesh.canary"
STREAK = 25
_EVERY = 0.02
_GRACE = 1.5
_BODY = struct.Struct("!III")


@dataclass(slots=True)
class _Direction:
    source: str
    destination: str
    sent: list[float] = field(default_factory=list)
    """When each canary was sent; its index is its number."""
    last: int = -2
    streak: int = 0
    streak_began: float = 0.0
    recovered_at: float | None = None

    def delivered(self, number: int) -> None:
        """Canary `number` arrived."""
        if number >= len(self.sent) or number <= self.last:
            return
        if number != self.last + 1:
            self.streak = 0
            self.streak_began = self.sent[number]
        self.last = number
        self.streak += 1
        if self.streak >= STREAK and self.recovered_at is None:
            self.recovered_at = self.streak_began


@dataclass(slots=True)
class _Case:
    fault: Fault
    injected_at: float
    directions: list[_Direction]
    cleared_at: float | None = None
    healed_at: float | None = None

    @property
    def repair(self) -> float | None:
        """Seconds until the slowest direction had recovered."""
        times = [direction.recovered_at for direction in self.directions]
        known = [time for time in times if time is not None]
        return max(known) - self.injected_at if known and len(known) == len(times) else None


class Referee:
    """Watches the faults of one group of nodes."""

    def __init__(
        self,
        nodes: Mapping[str, UdpNode],
        links: Sequence[tuple[str, str]],
        *,
        clock: Callable[[], float],
        emit: Callable[[str, Mapping[str, Any]], None],
    ) -> None:
        self._nodes = nodes
        self._links = links
        self._clock = clock
        self._emit = emit
        self._cases: dict[int, _Case] = {}
        self._started_at: dict[str, float] = {}
        self.wrong: list[tuple[str, str, str]] = []
        """(action, node, target) of each action that no fault called for."""

    @property
    def injected(self) -> int:
        """Faults so far."""
        return len(self._cases)

    @property
    def repairs(self) -> tuple[float, ...]:
        """Seconds to repair of each healed fault."""
        return tuple(
            case.repair for case in self._cases.values() if case.healed_at and case.repair is not None
        )

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
            fault, self._clock(), [_Direction(source, destination) for source, destination in pairs]
        )

    def end(self, fault: Fault) -> None:
        """The fault was cleared: what recovers later was not healed."""
        case = self._cases.get(fault.number)
        if case is not None and case.cleared_at is None:
            case.cleared_at = self._clock()

    def started(self, node: str) -> None:
        """A node runs again."""
        self._started_at[node] = self._clock()

    def acted(self, action: str, node: str, target: str) -> None:
        """A node did something: right only where a fault called for it."""
        if self._called_for(action, target):
            return
        self.wrong.append((action, node, target))
        self._emit("action.wrong", {"action": action, "node": node, "target": target})

    def arrived(self, frame: Data) -> None:
        """A canary came through."""
        if len(frame.payload) != _BODY.size:
            return
        fault, direction, number = _BODY.unpack(frame.payload)
        case = self._cases.get(fault)
        if case is None or case.cleared_at is not None or direction >= len(case.directions):
            return
        case.directions[direction].delivered(number)
        if case.healed_at is None and case.repair is not None:
            case.healed_at = self._clock()
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
            now = self._clock()
            for case in self._cases.values():
                if case.cleared_at is None and case.healed_at is None:
                    self._send(case, now)
            due = max(due + _EVERY, now)
            await asyncio.sleep(due - now)

    def _send(self, case: _Case, now: float) -> None:
        for index, direction in enumerate(case.directions):
            number = len(direction.sent)
            direction.sent.append(now)
            source = self._nodes[direction.source]
            # A node that is down sends nothing: its canary counts as lost.
            if source.running:
                body = _BODY.pack(case.fault.number, index, number)
                source.messages.send(direction.destination, CANARY, body, traced=False)

    def _called_for(self, action: str, target: str) -> bool:
        now = self._clock()
        if action == "restart":
            return target in self._nodes and not self._nodes[target].running
        ends = target.split("~")
        crashed = any(not self._nodes[end].running for end in ends if end in self._nodes)
        on_link = [case for case in self._cases.values() if case.fault.target == target]
        if action == "undrain":
            return not crashed and all(case.cleared_at is not None for case in on_link)
        if crashed or any(now - self._started_at.get(end, -_GRACE) < _GRACE for end in ends):
            return True
        return any(case.cleared_at is None or now - case.cleared_at <= _GRACE for case in on_link)
