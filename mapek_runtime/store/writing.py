"""Who writes: one thread, which takes all requests that wait into one transaction.

The loop only waits. What the thread does with a request is the writer's; here is whose turn it is, what
the file may keep, and what is told of it.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from mapek_runtime.errors import StoreError
from mapek_runtime.export.beside import beside_the_loop
from mapek_runtime.export.worker import Worker

from .journal import Journal
from .retention import Retention, usage
from .schema import identity, open_writer
from .turns import Turns
from .writer import Writer, Written

__all__ = ["StoreStatistics", "Writing", "contents"]

logger = logging.getLogger(__name__)

_MOST_AT_ONCE = 8 << 20
"""Bytes of requests in one transaction: about 40,000 spans."""
_GIVEN_UP = "the request was given up"


class StoreStatistics(NamedTuple):
    """What is in the file, as it was after the last write of this process, and what the process did."""

    spans: int = 0
    bytes: int = 0
    """Of the file, without its journal."""
    oldest: int = 0
    """The earliest start, in nanoseconds since 1970; 0 while there are no spans."""
    newest: int = 0
    """The latest start."""
    last: int = 0
    """The number of the last row."""
    written: int = 0
    refused: int = 0
    deleted: int = 0
    transactions: int = 0
    busy: float = 0.0
    """Seconds that writing took."""


def contents(connection: sqlite3.Connection) -> StoreStatistics:
    """What is in the file; what a process did is 0."""
    row = connection.execute(
        "SELECT sum(last - first + 1), min(earliest), max(latest), max(last) FROM part"
    ).fetchone()
    spans, oldest, newest, last = (value or 0 for value in row)
    return StoreStatistics(spans, usage(connection).file, oldest, newest, last)


class Writing:
    """Writes requests to the file in `path`, and keeps it within `max_age` (seconds) and `max_bytes`."""

    def __init__(self, path: Path, *, max_age: float, max_bytes: int) -> None:
        self._path = path
        # A sum with the time of today is a number that SQLite knows.
        self._max_age = int(min(max_age * 1e9, 1 << 62))
        self._max_bytes = max_bytes
        self._worker = Worker("mapek-store-writer")
        self._waiting: deque[_Request] = deque()
        self._lock = threading.Lock()
        # A thread that closes runs beside one that writes.
        self._turns = Turns(self._let_file_go)
        self._is_parents = False
        """Whether the process that this one was forked from was writing in that moment."""
        self._file: _File | None = None
        self.statistics = StoreStatistics()

    async def open(self) -> None:
        """Open the file, and make it where there is none. Raises `StoreError`."""
        await self._worker.call(self._open)

    async def write(self, payload: bytes) -> Written:
        """Write a request; it is in the file when this returns. Raises `StoreError` when it is not."""
        request = _Request(payload)
        with self._lock:
            self._waiting.append(request)
        try:
            await self._worker.call(lambda: self._write(request))
        finally:
            # Whoever gave up waiting tries again or says that it is lost: it is not to be there as well.
            self._withdraw(request)
        if isinstance(request.outcome, Written):
            return request.outcome
        raise StoreError(f"the trace store in {str(self._path)!r} cannot be written: {request.outcome}")

    async def aclose(self) -> None:
        """Write what still waits and close the file."""
        await self._worker.end(self._close)

    def after_fork(self) -> None:
        """Leave thread and file to the parent; this process opens it anew when it needs it."""
        self._worker.after_fork()
        self._waiting.clear()
        self._lock = threading.Lock()
        self._turns.after_fork()
        self._is_parents = self._is_parents or self._turns.was_taken
        if self._file is not None:
            # Not closed: the parent is in the middle of using it.
            _ABANDONED.append(self._file)
            self._file = None

    def _open(self) -> None:
        with self._turns:
            self._opened()

    def _opened(self) -> _File:
        if self._is_parents:
            raise StoreError(
                f"the trace store in {str(self._path)!r} was being written when this process was forked; "
                "use another file in the child"
            )
        if self._file is not None and self._file.has_gone():
            self._let_file_go()
            logger.warning(
                "the trace store in %r was deleted or replaced while it was open; what was stored before has "
                "gone with it, and a new one is kept from now on",
                str(self._path),
            )
        if self._file is None:
            self._file = _File(self._path, self._max_age, self._max_bytes)
            self._tell(self._file)
        return self._file

    def _write(self, request: _Request) -> None:
        # Its turn may have come in a call before this one. To write what came since would keep whoever
        # sent it waiting for others, and those would come one by one.
        if request.outcome is _GIVEN_UP:
            with self._turns, beside_the_loop():
                self._write_next()

    def _write_next(self) -> None:
        requests = self._next()
        if not requests:
            return
        started = time.perf_counter()
        taken: list[_Request] = []
        try:
            file = self._opened()
            all_written = file.writer.write(_still_wanted(requests, taken))
        except Exception as error:  # noqa: BLE001 - is raised where each of the requests is awaited
            for request in requests:
                request.outcome = error
            if _is_broken(error):
                self._let_file_go()
            return
        for request, each in zip(taken, all_written, strict=True):
            request.outcome = each
        spans = sum(each.spans for each in all_written)
        deleted = file.let_go(spans)
        before = self.statistics
        self.statistics = before._replace(
            written=before.written + spans,
            refused=before.refused + sum(each.refused for each in all_written),
            deleted=before.deleted + deleted,
            transactions=before.transactions + 1,
            busy=before.busy + time.perf_counter() - started,
        )
        self._tell(file)

    def _tell(self, file: _File) -> None:
        """Say what is in the file; what this process did stays as it is."""
        before = self.statistics
        try:
            now = contents(file.connection)
        except sqlite3.Error:
            # The spans are written, which is what counts; the next write tells more.
            return
        self.statistics = now._replace(
            written=before.written,
            refused=before.refused,
            deleted=before.deleted,
            transactions=before.transactions,
            busy=before.busy,
        )

    def _next(self) -> list[_Request]:
        """The requests of one transaction."""
        requests: list[_Request] = []
        size = 0
        with self._lock:
            while self._waiting and (not requests or size + len(self._waiting[0].payload) <= _MOST_AT_ONCE):
                requests.append(self._waiting.popleft())
                size += len(requests[-1].payload)
        return requests

    def _withdraw(self, request: _Request) -> None:
        request.given_up = True
        with self._lock:
            if request in self._waiting:
                self._waiting.remove(request)

    def _close(self) -> None:
        with self._turns:
            while self._waiting:
                self._write_next()
            self._let_file_go()

    def _let_file_go(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.connection.close()


class _Request:
    """A request, and what became of it."""

    __slots__ = ("given_up", "outcome", "payload")

    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        self.given_up = False
        """Whether nobody waits for the outcome any more."""
        self.outcome: Written | Exception | str = _GIVEN_UP


def _still_wanted(requests: Iterable[_Request], taken: list[_Request]) -> Iterator[bytes]:
    """The requests that were not given up while another process wrote; says which ones were `taken`."""
    for request in requests:
        if not request.given_up:
            taken.append(request)
            yield request.payload


def _is_broken(error: Exception) -> bool:
    """Whether another connection may do what this one cannot."""
    # Errors of Python's own module have no code.
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return isinstance(error, sqlite3.Error) and code != sqlite3.SQLITE_BUSY


class _File:
    """The open file."""

    def __init__(self, path: Path, max_age: int, max_bytes: int) -> None:
        self._path = path
        self.connection = open_writer(path)
        self._identity = identity(path)
        self.writer = Writer(self.connection)
        self._retention = Retention(self.connection, max_age=max_age, max_bytes=max_bytes)
        self._journal = Journal(self.connection, path)

    def has_gone(self) -> bool:
        """Whether the path names another file now, or none: nobody would ever find what is written here."""
        return identity(self._path) != self._identity

    def let_go(self, written: int) -> int:
        """Delete what must go after `written` spans came; gives how many spans went."""
        gone = 0
        # The spans are written, which is what counts; what must go goes with the next ones.
        with suppress(sqlite3.Error):
            gone = self._retention.step(time.time_ns(), written)
            self._journal.keep_short()
        if self._retention.forgot():
            self.writer.forget()
        return gone


_ABANDONED: list[_File] = []
"""Files of a parent process."""
