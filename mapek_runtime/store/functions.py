"""What SQLite asks Python while a query runs: conditions that SQL cannot say, and whether time is up.

One function is registered per connection, once; a query lends it closures under a number while it
runs. So nothing is registered anew, which would make SQLite prepare its statements again, and nothing is
left when the query has ended.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from types import TracebackType
from typing import Any

from mapek_runtime.errors import QueryError

__all__ = ["HOLDS", "Closures", "Deadline", "register", "snapshot", "still_time"]

HOLDS = "mapek_holds"
"""The name in SQL: `mapek_holds(number, a, b, c)`."""
_OPERATIONS = 1_000
"""Steps of SQLite's machine between two looks at the clock: some tens of microseconds."""

Holds = Callable[[Any, Any, Any], bool]

_running: dict[int, Holds] = {}
_numbers = count()


def register(connection: sqlite3.Connection) -> None:
    """Make our function known to a connection, before it is searched."""
    connection.create_function(HOLDS, 4, _holds, deterministic=True)


@contextmanager
def snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """All statements of the block see the database as it is at the first one."""
    own = not connection.in_transaction
    if own:
        connection.execute("BEGIN")
    try:
        yield
    finally:
        if own:
            connection.execute("ROLLBACK")


class Closures:
    """What one query lends; use it as a context manager."""

    def __init__(self) -> None:
        self._lent: list[int] = []

    def __enter__(self) -> Closures:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number in self._lent:
            del _running[number]
        self._lent.clear()

    def lend(self, function: Holds) -> int:
        """The number under which SQL calls `function`, as long as this is open."""
        number = next(_numbers)
        _running[number] = function
        self._lent.append(number)
        return number


class Deadline:
    """The moment (of `time.monotonic`) after which a connection is interrupted.

    Inside `reading` the interruption ends the block, silently: `passed` says so.
    """

    def __init__(self, moment: float) -> None:
        self._moment = moment
        self.passed = False

    def reading(self, connection: sqlite3.Connection) -> _Reading:
        """Read until the end of the block, or until time is up."""
        return _Reading(self, connection)

    def check(self) -> None:
        """For loops of Python: end the block when time is up."""
        if self.late():
            raise _TimeIsUp

    def late(self) -> bool:
        """Whether time is up."""
        if time.monotonic() >= self._moment:
            self.passed = True
        return self.passed


class _TimeIsUp(Exception):
    """Ends a block of `Deadline.reading`."""


class _Current(threading.local):
    """What the thread reads: until when, and what our function raised there."""

    deadline: Deadline | None = None
    raised: QueryError | None = None


_current = _Current()


def still_time() -> None:
    """For conditions that may take long: end the block of `Deadline.reading` when time is up."""
    if _current.deadline is not None:
        _current.deadline.check()


class _Reading:
    """A block that ends when time is up."""

    def __init__(self, deadline: Deadline, connection: sqlite3.Connection) -> None:
        self._deadline = deadline
        self._connection = connection
        self._around: Deadline | None = None

    def __enter__(self) -> None:
        self._around, _current.deadline = _current.deadline, self._deadline
        self._connection.set_progress_handler(self._deadline.late, _OPERATIONS)

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        self._connection.set_progress_handler(None, 0)
        _current.deadline, self._around = self._around, None
        raised, _current.raised = _current.raised, None
        if raised is not None and isinstance(exc, sqlite3.OperationalError):
            # SQLite says only that a function of ours has raised something.
            raise raised
        # Interrupted inside of a function of ours, SQLite's error names the function, not the reason.
        return isinstance(exc, sqlite3.OperationalError | _TimeIsUp) and self._deadline.passed


def _holds(number: int, first: Any, second: Any, third: Any) -> bool:
    try:
        return _running[number](first, second, third)
    except QueryError as error:
        _current.raised = error
        raise
