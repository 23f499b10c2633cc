"""How a run is told to stop, up to three times: by SIGTERM, by SIGINT, or because its terminal was closed.

| told | what happens |
|---|---|
| once | no further cycle starts; those that run are finished, then everything is sent and closed |
| twice | the running cycles are cancelled, which their spans say; then everything is sent and closed |
| three times | the closing is cancelled too; the exit code is 1, because not everything was sent |

Knows nothing of loops and spans. `tracing()`, for programs of others, has `signals.Ending` in its place.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from contextlib import suppress
from typing import Any

__all__ = ["Stop"]

logger = logging.getLogger(__name__)

_NAMES = ("SIGTERM", "SIGINT", "SIGHUP")


class Stop:
    """Inside the block each signal counts as told once; so does a call of `tell`.

    A SIGHUP that is ignored stays so, as `nohup` asks for. On leaving the handlers of before are put back.
    """

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        """Told once or more often."""
        self.hurried = asyncio.Event()
        """Told at least twice."""
        self._task: asyncio.Task[Any] | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Stop:
        self._task = asyncio.current_task()
        self._loop = asyncio.get_running_loop()
        for number in (signal.Signals[name] for name in _NAMES if hasattr(signal, name)):
            before = signal.getsignal(number)
            if before is None or (before is signal.SIG_IGN and number.name == "SIGHUP"):
                # Not Python's, or not wanted.
                continue
            # Not on every platform, and only in the main thread: elsewhere whoever embeds us stops us.
            with suppress(NotImplementedError, RuntimeError, ValueError):
                self._loop.add_signal_handler(number, self.tell, number.name)
                self._before[number] = before
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            self._loop.remove_signal_handler(number)
            signal.signal(number, before)

    def tell(self, why: str = "asked to stop") -> None:
        """Stop; told again, stop at once; told a third time, leave things as they are."""
        if not self.asked.is_set():
            logger.info("%s: stopping; the running cycles are finished first", why)
            self.asked.set()
        elif not self.hurried.is_set():
            logger.info("%s: stopping at once; the running cycles are cancelled", why)
            self.hurried.set()
        elif self._task is not None:
            # The cycles are over, so it is the closing that lasts too long.
            logger.warning("%s: the closing is cancelled; what is not sent yet may be lost", why)
            self._task.cancel()
