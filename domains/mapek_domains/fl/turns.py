"""Taking turns: a thread that computes lets the event loop have the interpreter often.

A thread of Python keeps the interpreter for 5 ms while the loop waits for it (`sys.getswitchinterval`), and
numpy lets go of it inside large operations alone. One that sleeps for a moment gives it away at once.
"""

from __future__ import annotations

import threading
import time

__all__ = ["Turns"]

_SLICE = 0.0005
"""Seconds of computing after which others get their turn."""
_MOMENT = 0.00002


class Turns:
    """Call it between two steps of a computation, as often as you like."""

    def __init__(self) -> None:
        # In the main thread, which mostly is the loop's own, there is nobody to give way to.
        self._gives_way = threading.current_thread() is not threading.main_thread()
        self._since = time.perf_counter()

    def __call__(self) -> None:
        """Give way to other threads where it is time to."""
        if self._gives_way and time.perf_counter() - self._since > _SLICE:
            time.sleep(_MOMENT)
            self._since = time.perf_counter()
