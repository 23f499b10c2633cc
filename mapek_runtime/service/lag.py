"""How late the event loop is: the oldest question to an asyncio program that misbehaves."""

from __future__ import annotations

import asyncio
from collections import deque

__all__ = ["LoopLag"]

_EVERY = 0.05
_KEPT = 20_000


class LoopLag:
    """Samples by how much a timer of the loop comes late; `run` it in a task."""

    def __init__(self) -> None:
        self._samples: deque[float] = deque(maxlen=_KEPT)
        self._worst = 0.0

    async def run(self) -> None:
        """Sample until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _EVERY
            await asyncio.sleep(_EVERY)
            late = max(0.0, loop.time() - due)
            self._samples.append(late)
            self._worst = max(self._worst, late)

    def milliseconds(self) -> dict[str, float]:
        """Median and 99th percentile of the newest samples, and the worst ever, in milliseconds."""
        ordered = sorted(self._samples) or [0.0]
        return {
            "median": round(ordered[len(ordered) // 2] * 1000, 3),
            "p99": round(ordered[int(len(ordered) * 0.99)] * 1000, 3),
            "max": round(self._worst * 1000, 3),
        }
