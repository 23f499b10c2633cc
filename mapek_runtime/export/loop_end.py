"""The end of a loop: the moment in which its tasks are over and it still works.

`asyncio.run` first cancels every task and waits for it, then closes the asynchronous generators, then the
loop. What is to come after the last span and still needs the network has its place in between. Knows
nothing of spans.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any
from weakref import WeakKeyDictionary

__all__ = ["outlive", "when_loop_ends"]

logger = logging.getLogger(__name__)

Work = Callable[[], Awaitable[object]]


async def when_loop_ends(work: Work) -> Callable[[], None]:
    """Have `work` awaited when the running loop ends; gives a function that takes it back.

    The last that was asked for comes first, as with exit handlers. Where the owner of a loop does
    not close its asynchronous generators (`asyncio.run`, `asyncio.Runner`, uvloop and anyio do) it
    is never called.
    """
    loop = asyncio.get_running_loop()
    end = _ends.get(loop)
    if end is None:
        if getattr(loop, "_asyncgens_shutdown_called", False):
            return _nothing  # it has ended already
        end = _ends[loop] = _End()
        await end.wait()
    end.works.append(work)

    def withdraw() -> None:
        if work in end.works:
            end.works.remove(work)

    return withdraw


def outlive(task: asyncio.Task[Any]) -> None:
    """Let the cancelling at the end of the loop pass `task` by; what `when_loop_ends` was given ends it.

    It does not appear in `asyncio.all_tasks()` any more; whoever made it keeps it.
    """
    asyncio._unregister_task(task)
    # Where the owner of a loop closes nothing, the task is left with it; its owner knows what it was doing.
    task._log_destroy_pending = False  # type: ignore[attr-defined]


class _End:
    """What is to be done at the end of one loop."""

    def __init__(self) -> None:
        self.works: list[Work] = []
        # The loop itself holds it only weakly.
        self._generator = self._run()

    async def wait(self) -> None:
        """Let the loop know of the generator: it does so when that is begun."""
        await anext(self._generator)

    async def _run(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            _ends.pop(asyncio.get_running_loop(), None)
            while self.works:
                work = self.works.pop()
                try:
                    await work()
                except Exception:
                    # The others have their turn all the same.
                    logger.exception("what was to be done at the end of the loop failed")


def _nothing() -> None:
    """There is nothing to take back."""


_ends: WeakKeyDictionary[asyncio.AbstractEventLoop, _End] = WeakKeyDictionary()
