"""The end of the process: what is to be done before it, wherever the process comes from.

Programs run their exit handlers. Processes that `multiprocessing` made do not, on the Pythons and start
methods where they end without the interpreter's ado, but have finalizers of their own.
"""

from __future__ import annotations

import atexit
import sys
from collections.abc import Callable
from typing import Any

__all__ = ["at_exit", "at_exit_of_child", "not_at_exit"]

BEFORE_OTHERS = 10
"""Finalizers of `multiprocessing` with a priority run before those without."""


def at_exit(work: Callable[[], None]) -> None:
    """Call `work`, a bound method, when this process ends."""
    atexit.register(work)
    process = sys.modules.get("multiprocessing.process")
    if process is not None and process.parent_process() is not None:
        _finalize(work.__self__, work)  # type: ignore[attr-defined]


def at_exit_of_child(work: Callable[[], None]) -> None:
    """The same in the child of a fork, where exit handlers are inherited and finalizers are not."""
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        # It forgets its finalizers in a new process, and then calls what was registered here.
        util.register_after_fork(work.__self__, lambda owner: _finalize(owner, work))  # type: ignore[attr-defined]


def not_at_exit(work: Callable[[], None]) -> None:
    """Call `work` no more: it is done."""
    atexit.unregister(work)


def _finalize(owner: Any, work: Callable[[], None]) -> None:
    from multiprocessing.util import Finalize

    Finalize(owner, work, exitpriority=BEFORE_OTHERS)
