"""Asks the runtime to store what has ended, for a page that is quicker than the batch task."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Awaitable, Callable

__all__ = ["Flushes"]

logger = logging.getLogger(__name__)

_EVERY = 1.0
"""Seconds from the beginning of one flush to the next: ids that do not exist are not to keep us busy."""


class Flushes:
    """At most one flush at a time and one a second; who asks meanwhile waits for the next one."""

    def __init__(self, flush: Callable[[], Awaitable[object]], *, every: float = _EVERY) -> None:
        self._flush = flush
        self._every = every
        self._allowed = 0.0
        self._one = asyncio.Lock()
        self._next: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def flushed(self) -> None:
        """What had ended when this was called is stored, or could not be."""
        # One that has begun may have gone past what the caller looks for.
        if self._next is None:
            # Of its own, because the request that asked first may be given up while others wait.
            self._next = asyncio.get_running_loop().create_task(
                self._run(), name="mapek-web flush", context=contextvars.Context()
            )
            self._tasks.add(self._next)
            self._next.add_done_callback(self._tasks.discard)
        await asyncio.wait((self._next,))

    async def aclose(self) -> None:
        """Cancel what runs."""
        for task in tuple(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(tuple(self._tasks))

    async def _run(self) -> None:
        clock = asyncio.get_running_loop().time
        try:
            async with self._one:
                await asyncio.sleep(max(0.0, self._allowed - clock()))
                self._next = None
                self._allowed = clock() + self._every
                await self._flush()
        except Exception:
            logger.exception("spans could not be flushed for the page")
