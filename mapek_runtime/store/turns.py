"""Who may use a connection: one thread at a time, and nobody while the process forks.

A connection that is closed while another thread uses it takes the process with it. One that is open in a
fork is worse: SQLite remembers in memory which locks the process has, and the child would believe in locks
that only its parent has. The parent would then close the file as if it were alone, and what the child
writes would be gone. So connections are closed before a fork, and each of the two opens its own.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from types import TracebackType

__all__ = ["Turns"]

_WAIT = 1.0
"""Seconds to wait, at a fork, for whoever uses a connection."""


class Turns:
    """Use it as a context manager around each use; `let_go` closes the connection, where there is one."""

    def __init__(self, let_go: Callable[[], None], *, interrupt: Callable[[], None] | None = None) -> None:
        self._lock = threading.Lock()
        self._let_go = let_go
        self._interrupt = interrupt
        self._held = False
        self.was_taken = False
        """Whether somebody used it during the last fork, so that the child must not."""
        _all.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lock.release()

    def before_fork(self) -> None:
        """Close the connection and let nobody use it, unless it is in use for long."""
        if self._interrupt is not None:
            self._interrupt()
        self._held = self._lock.acquire(timeout=_WAIT)
        self.was_taken = not self._held
        if self._held:
            self._let_go()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        if self._held:
            self._held = False
            self._lock.release()

    def after_fork(self) -> None:
        """Go on in the child, where whoever held a lock is not any more."""
        self._held = False
        self._lock = threading.Lock()


_all: weakref.WeakSet[Turns] = weakref.WeakSet()
_held: list[Turns] = []


def _before() -> None:
    # The same ones afterwards: the garbage collector may take some in between.
    _held[:] = list(_all)
    for turns in _held:
        turns.before_fork()


def _after() -> None:
    for turns in _held:
        turns.after_fork_in_parent()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after)
