"""Computing in a thread of a process whose event loop must go on.

Such a thread keeps the interpreter for 5 ms at a time (`sys.getswitchinterval`), and so long every callback
of the loop would wait. The garbage collector waits for nobody: thousands of new objects look to it like
garbage to come, and then it goes through all there are, tens of milliseconds long. While somebody computes
beside the loop, turns are short and the collector rests; both are the whole interpreter's, so that they
are put back by whoever is the last to be done.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["beside_the_loop"]

_TURN = 0.0001
"""Seconds after which the thread lets the event loop go on, if that waits for it."""
_REST = 10.0
"""Seconds for which the collector rests at most while one computation follows the other: garbage in
circles is there for it alone."""


class _Beside:
    """How many compute, and what there was before the first of them came."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._forks = 0
        self._computing = 0
        self._interval = 0.0
        self._paused = False
        self._since = 0.0

    def begin(self) -> int:
        """One more computes; give what this gives to `end`."""
        with self._lock:
            self._computing += 1
            if self._computing == 1:
                self._interval = sys.getswitchinterval()
                sys.setswitchinterval(min(self._interval, _TURN))
                self._paused = gc.isenabled()
                gc.disable()
                self._since = time.monotonic()
            return self._forks

    def end(self, forks: int) -> None:
        """One is done; without effect in a child of the process in which it began."""
        with self._lock:
            if forks != self._forks:
                return
            self._computing -= 1
            if not self._computing:
                sys.setswitchinterval(self._interval)
            if not self._computing or time.monotonic() - self._since > _REST:
                self._collect_again()

    def after_fork(self) -> None:
        """Threads do not survive a fork: nobody computes."""
        self._lock = threading.Lock()
        self._forks += 1
        if self._computing:
            self._computing = 0
            sys.setswitchinterval(self._interval)
            self._collect_again()

    def _collect_again(self) -> None:
        if self._paused:
            self._paused = False
            gc.enable()


_beside = _Beside()
if hasattr(os, "register_at_fork"):
    # A child has inherited what its parent had set, and none of the threads that would put it back.
    os.register_at_fork(after_in_child=_beside.after_fork)


@contextmanager
def beside_the_loop() -> Iterator[None]:
    """Compute inside the block, in a thread that is not the loop's; several may at once."""
    forks = _beside.begin()
    try:
        yield
    finally:
        _beside.end(forks)
