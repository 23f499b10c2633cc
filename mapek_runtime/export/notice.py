"""Log lines that stay few under load: at most one a subject in ten seconds, with the count since."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from mapek_runtime.trace.forks import follow_forks

__all__ = ["Notices"]


class Notices:
    """Writes warnings to `logger`, at most one for each subject in `interval` seconds.

    What is not written is counted, and the next line of the subject says how many there were.
    """

    def __init__(
        self, logger: logging.Logger, interval: float = 10.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._logger = logger
        self._interval = interval
        self._clock = clock
        self._last: dict[str, float] = {}
        self._missed: dict[str, int] = {}
        self._unlock()
        follow_forks(self._unlock)

    def _unlock(self) -> None:
        # Nobody lets go of it in the child of a fork, and a signal handler may warn in its own thread.
        self._lock = threading.RLock()

    def warn(
        self,
        subject: str,
        message: str,
        *details: object,
        count: int = 1,
        level: int = logging.WARNING,
        error: BaseException | None = None,
    ) -> None:
        """Say it, or count it: `count` is how many spans or faults this one call stands for."""
        now = self._clock()
        with self._lock:
            total = self._missed.get(subject, 0) + count
            last = self._last.get(subject)
            if last is not None and now - last < self._interval:
                self._missed[subject] = total
                return
            self._last[subject] = now
            self._missed[subject] = 0
        if total > 1 or (total and last is not None):
            since = "" if last is None else " since the last such line"
            message, details = f"{message} (count %d{since})", (*details, total)
        self._logger.log(level, message, *details, exc_info=error)
