"""The autojump clock: an hour passes at once.

While it is in force the loop's time stands still as long as anything can run, and jumps to the next
timer as soon as every task sleeps. It does not jump while something real is under way: a socket or a
pipe that is waited for, work in a thread, a child process. Then time flows as it really does until
that has come back. (The idea is that of trio's `MockClock`.)
"""

from __future__ import annotations

import asyncio
import selectors
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

__all__ = ["AutojumpClock", "unix_time_ns"]

_in_force: list[AutojumpClock] = []

_CHILD_WATCHER = "asyncio-waitpid-"
_LONGEST_WAIT = 0.05
"""Seconds after which a wait for something real looks again whether it is still under way."""


def unix_time_ns() -> int:
    """Unix time in nanoseconds; on the autojump clock while one is in force."""
    return _in_force[-1].time_ns() if _in_force else time.time_ns()


class AutojumpClock:
    """Takes over the clock of the running loop inside a `with` block.

        with AutojumpClock() as clock:
            await asyncio.sleep(3600)
            assert clock.elapsed == 3600

    After the block the loop's time goes on at its real pace from where it is; it never runs
    backwards. Raises RuntimeError on a loop without a selector (uvloop, the proactor of Windows).
    """

    def __init__(self) -> None:
        self.jumps = 0
        """How often time has jumped."""
        self._holds = 0
        self._in_threads = 0
        self._now = 0.0
        self._began = 0.0
        self._began_ns = 0
        self._loop: Any = None
        self._real: Callable[[], float] = time.monotonic
        self._select: Callable[[float | None], Any] = _no_select

    def __enter__(self) -> AutojumpClock:
        loop: Any = asyncio.get_running_loop()
        selector = getattr(loop, "_selector", None)
        if not isinstance(selector, selectors.BaseSelector):
            raise RuntimeError(  # noqa: TRY004 - where it runs is wrong, not an argument
                f"autojump cannot steer {type(loop).__name__}: it needs asyncio's own selector event loop"
            )
        if self._loop is not None or any(clock._loop is loop for clock in _in_force):
            raise RuntimeError("an autojump clock is in force on this loop already")
        self._loop, self._real, self._select = loop, loop.time, selector.select
        # A whole number of seconds, so that times in a test are readable and sums of them exact.
        self._now = self._began = float(int(loop.time()) + 1)
        self._began_ns = time.time_ns()
        loop.time = self.time
        loop.run_in_executor = self._run_in_executor
        selector.select = self._jump_or_select  # type: ignore[method-assign]
        _in_force.append(self)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        loop, self._loop = self._loop, None
        _in_force.remove(self)
        del loop.run_in_executor
        del loop._selector.select
        ahead = self._now - self._real()
        real = self._real
        loop.time = lambda: real() + ahead

    def time(self) -> float:
        """The loop's time in seconds."""
        return self._now

    def time_ns(self) -> int:
        """Unix time in nanoseconds, moving with the loop's time."""
        return self._began_ns + round(self.elapsed * 1e9)

    @property
    def elapsed(self) -> float:
        """Seconds since the clock came into force."""
        return self._now - self._began

    @contextmanager
    def hold(self) -> Iterator[None]:
        """No jump inside the block, for what the clock cannot see (a thread of one's own)."""
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1

    def _jump_or_select(self, timeout: float | None = None) -> Any:
        if timeout is not None and timeout <= 0:
            return self._select(timeout)
        ready = self._select(0)
        if ready:
            return ready
        if not self._under_way():
            if timeout is None:
                # Nothing is scheduled: only something the clock cannot see will wake this loop.
                return self._select(_LONGEST_WAIT)
            self._now += timeout
            self.jumps += 1
            return ready
        before = time.monotonic()
        ready = self._select(_LONGEST_WAIT if timeout is None else min(timeout, _LONGEST_WAIT))
        waited = time.monotonic() - before
        self._now += waited if timeout is None else min(waited, timeout)
        return ready

    def _under_way(self) -> bool:
        if self._holds or self._in_threads:
            return True
        loop = self._loop
        # One descriptor is the loop's own, by which threads and signals wake it.
        if len(loop._selector.get_map()) > (1 if loop._ssock is not None else 0):
            return True
        return any(_works_for(loop, thread) for thread in threading.enumerate())

    def _run_in_executor(self, executor: Any, function: Callable[..., Any], *args: Any) -> Any:
        future = type(self._loop).run_in_executor(self._loop, executor, function, *args)
        self._in_threads += 1
        future.add_done_callback(self._came_back)
        return future

    def _came_back(self, _future: Any) -> None:
        self._in_threads -= 1


def _works_for(loop: Any, thread: threading.Thread) -> bool:
    if thread.name.startswith(_CHILD_WATCHER):
        return True
    # A worker of anyio that is not among the idle ones.
    idle = getattr(thread, "idle_workers", None)
    return idle is not None and getattr(thread, "loop", None) is loop and thread not in idle


def _no_select(_timeout: float | None) -> Any:
    raise RuntimeError("the clock is not in force")
