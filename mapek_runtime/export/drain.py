"""A private event loop for programs, or moments, without one.

At the interpreter's exit no thread can be started any more, so this loop does in place what others
hand to an executor: looking up a host name, compressing, reading certificates.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

__all__ = ["DrainLoop"]


class DrainLoop(asyncio.SelectorEventLoop):
    """A loop that runs blocking functions in place; nothing else runs on it that could be held up."""

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Call `func` now."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - belongs to whoever awaits the result
            future.set_exception(error)
        return future
