"""Keeps finished spans in memory, the newest ones: for tests, for pages and for looking around."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine, Sequence
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan

from .sink import require_asyncio

__all__ = ["MemorySpanExporter"]


class MemorySpanExporter:
    """An asyncio exporter that keeps the newest `capacity` spans.

    `pause()` makes exports wait until `resume()`, as a collector that is slow does.
    """

    def __init__(self, capacity: int = 10_000) -> None:
        if capacity < 1:
            raise ValueError(f"capacity is {capacity!r}; it must be at least 1")
        self._spans: deque[ReadableSpan] = deque(maxlen=capacity)
        self._paused = False
        self._resumed: set[asyncio.Future[None]] = set()

    @property
    def finished_spans(self) -> tuple[ReadableSpan, ...]:
        """The spans kept, in the order in which they came."""
        return tuple(self._spans)

    def clear(self) -> None:
        """Forget the spans kept."""
        self._spans.clear()

    def pause(self) -> None:
        """Let exports wait."""
        self._paused = True

    def resume(self) -> None:
        """Let exports go on, those that wait and new ones."""
        self._paused = False
        for waiter in self._resumed:
            if not (waiter.done() or waiter.get_loop().is_closed()):
                waiter.set_result(None)

    def export(self, spans: Sequence[ReadableSpan], /) -> Coroutine[Any, Any, None]:
        """Keep `spans`."""
        require_asyncio(self)
        return self._export(spans)

    async def aclose(self) -> None:
        """Nothing to close; the spans stay."""

    async def _export(self, spans: Sequence[ReadableSpan]) -> None:
        while self._paused:
            waiter = asyncio.get_running_loop().create_future()
            self._resumed.add(waiter)
            try:
                await waiter
            finally:
                self._resumed.discard(waiter)
        self._spans.extend(spans)
