"""Work on the loop of another thread, which may be held up, stop or be closed at any moment.

Whoever waits is not cancelled with it and waits no longer than its limit: it is told that the loop is
gone, and can go on by itself.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import time
from collections.abc import Callable, Coroutine
from typing import Any

__all__ = ["do_elsewhere", "do_elsewhere_and_block", "loop_here"]

GRACE = 0.2
"""Seconds beyond the limit for work that has a deadline of its own; a loop that is held up has none."""
LOOK_EVERY = 0.05
"""Seconds between two looks whether the other loop still runs."""

Work = Callable[[], Coroutine[Any, Any, bool]]


def loop_here() -> asyncio.AbstractEventLoop | None:
    """The loop that runs in this thread, if there is one."""
    return asyncio._get_running_loop()


async def do_elsewhere(loop: asyncio.AbstractEventLoop, work: Work, limit: float) -> bool | None:
    """Await `work()` on `loop`; False after `limit` seconds, None when `loop` ended before it was done."""
    errand = _Errand(loop, work, limit)
    waiting = asyncio.wrap_future(errand.future)
    try:
        while (pause := errand.pause) > 0:
            if waiting.done():
                await asyncio.sleep(pause)
            else:
                await asyncio.wait({waiting}, timeout=pause)
    finally:
        errand.give_up()
    return errand.result


def do_elsewhere_and_block(loop: asyncio.AbstractEventLoop, work: Work, limit: float) -> bool | None:
    """The same from a thread that has no loop and may wait."""
    errand = _Errand(loop, work, limit)
    try:
        while (pause := errand.pause) > 0:
            if errand.future.done():
                time.sleep(pause)
            else:
                concurrent.futures.wait({errand.future}, timeout=pause)
    finally:
        errand.give_up()
    return errand.result


class _Errand:
    """Work that another loop was asked to do."""

    def __init__(self, loop: asyncio.AbstractEventLoop, work: Work, limit: float) -> None:
        self._loop = loop
        self._end = time.monotonic() + limit + GRACE
        self._coroutine = _quietly(work)
        self.future: concurrent.futures.Future[bool] = concurrent.futures.Future()
        try:
            self.future = asyncio.run_coroutine_threadsafe(self._coroutine, loop)
        except RuntimeError:
            # It was closed at this moment.
            self.future.cancel()
            self._coroutine.close()

    @property
    def pause(self) -> float:
        """Seconds to wait before the next look; 0 when there is nothing to wait for."""
        if self._has_answer or not self._loop.is_running():
            return 0.0
        return max(0.0, min(LOOK_EVERY, self._end - time.monotonic()))

    @property
    def result(self) -> bool | None:
        if self._has_answer:
            return self.future.result()
        return False if self._loop.is_running() else None

    def give_up(self) -> None:
        """Whoever asked waits no longer."""
        if inspect.getcoroutinestate(self._coroutine) == inspect.CORO_CREATED and not self._loop.is_running():
            # The loop has stopped and comes to it no more.
            self._coroutine.close()
        elif not self._loop.is_closed():
            self.future.cancel()

    @property
    def _has_answer(self) -> bool:
        # The end of a loop cancels what it finds; that is no answer yet, the loop may work for a while.
        return self.future.done() and not self.future.cancelled()


async def _quietly(work: Work) -> bool:
    task: Any = asyncio.current_task()
    # A loop may be closed in the midst of it; whoever asked knows what to do then.
    task._log_destroy_pending = False
    return await work()
