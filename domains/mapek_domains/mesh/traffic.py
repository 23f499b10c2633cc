"""Application traffic of a demonstration: what its delivery ratio is measured on.

Fire and forget: a message that is not delivered is lost, also one to a node that is down. Messages
on their way are counted once there has been time for them to arrive.
"""

from __future__ import annotations

import asyncio
import random
import struct
from collections import deque
from collections.abc import Callable, Iterable

from .plane import DataPlane

__all__ = ["TOPIC", "Traffic"]

TOPIC = "mesh.traffic"
_STEP = 0.01
_ON_ITS_WAY = 0.5
_MOST_AT_ONCE = 200
_BODY = struct.Struct("!Q")


class Traffic:
    """Sends messages between the nodes at random, and counts those that arrive."""

    def __init__(
        self,
        plane: DataPlane,
        nodes: Iterable[str],
        *,
        rate: float,
        traced_share: float,
        rng: random.Random,
        clock: Callable[[], float],
    ) -> None:
        self._plane = plane
        self._names = sorted(nodes)
        self._rate = rate
        self._traced_share = traced_share
        self._rng = rng
        self._clock = clock
        self._number = 0
        self._waiting: dict[int, float] = {}
        self._order: deque[tuple[int, float]] = deque()
        self._lost = 0
        self.delivered = 0
        plane.receive(TOPIC, self.arrived)

    @property
    def sent(self) -> int:
        """Messages sent, without those that may still arrive."""
        self._give_up()
        return self.delivered + self._lost

    def arrived(self, body: bytes) -> None:
        """A message came through; a copy of one that was counted is passed over."""
        if len(body) == _BODY.size:
            (number,) = _BODY.unpack(body)
            if self._waiting.pop(number, None) is not None:
                self.delivered += 1

    async def run(self) -> None:
        """Send at the rate asked for, until cancelled. Waits first until every node knows every other."""
        if not self._rate or len(self._names) < 2:
            return
        began = self._clock()
        turn = 0
        while True:
            await asyncio.sleep(_STEP)
            if not turn and not self._plane.whole():
                began = self._clock()
                continue
            owed = int((self._clock() - began) * self._rate * len(self._names)) - turn
            if owed > _MOST_AT_ONCE:
                # The host stood still: what was not sent then is not made up for in one burst.
                turn += owed - _MOST_AT_ONCE
                owed = _MOST_AT_ONCE
            for _ in range(owed):
                self._send(self._names[turn % len(self._names)])
                turn += 1
            self._give_up()

    def _send(self, source: str) -> None:
        destination = self._rng.choice([name for name in self._names if name != source])
        traced = self._rng.random() < self._traced_share
        if not self._plane.running(source):
            return
        self._number += 1
        now = self._clock()
        self._waiting[self._number] = now
        self._order.append((self._number, now))
        self._plane.send(source, destination, TOPIC, _BODY.pack(self._number), traced=traced)

    def _give_up(self) -> None:
        now = self._clock()
        while self._order and now - self._order[0][1] > _ON_ITS_WAY:
            number, _ = self._order.popleft()
            if self._waiting.pop(number, None) is not None:
                self._lost += 1
