"""Who writes: one thread, which takes all requests that wait into one transaction.

The loop only waits. What the thread does with a request is the writer's; here is whose turn it is, what
the file may keep, and what is told of it.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import deque
from pathlib import Path
from typing import NamedTuple

from mapek_runtime.errors import StoreError
from mapek_runtime.export.worker import Worker

from .retention import Retention, usage
from .schema import open_writer
from .writer import Writer, Written

__all__ = ["StoreStatistics", "Writing", "contents"]

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
        self._max_age = int(max_age * 1e9)
        self._max_bytes = max_bytes
        self._worker = Worker("mapek-store-writer")
        self._waiting: deque[_Request] = deque()
        self._lock = threading.Lock()
        self._file: _File | None = None
        self.statistics = StoreStatistics()

    async def open(self) -> None:
        """Open the file, and make it where there is none. Raises `StoreError`."""
        await self._worker.call(self._opened)

    async def write(self, payload: bytes) -> Written:
        """Write a request; it is in the file when this returns. Raises `StoreError` when it is not."""
        request = _Request(payload)
        with self._lock:
            self._waiting.append(request)
        try:
            # Its turn may have come in a call before this one; then this call finds nothing to do.
            await self._worker.call(self._write)
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
        if self._file is not None:
            # Not closed: that would take the parent's locks on the file away.
            _ABANDONED.append(self._file)
            self._file = None

    def _opened(self) -> _File:
        if self._file is None:
            self._file = _File(self._path, self._max_age, self._max_bytes)
            before = self.statistics
            self.statistics = contents(self._file.connection)._replace(
                written=before.written,
                refused=before.refused,
                deleted=before.deleted,
                transactions=before.transactions,
                busy=before.busy,
            )
        return self._file

    def _write(self) -> None:
        requests = self._next()
        if not requests:
            return
        started = time.perf_counter()
        try:
            file = self._opened()
            all_written = file.writer.write([request.payload for request in requests])
        except (StoreError, sqlite3.Error, OSError) as error:
            for request in requests:
                request.outcome = error
            return
        for request, each in zip(requests, all_written, strict=True):
            request.outcome = each
        spans = sum(each.spans for each in all_written)
        deleted = file.let_go(spans)
        before = self.statistics
        self.statistics = contents(file.connection)._replace(
            written=before.written + spans,
            refused=before.refused + sum(each.refused for each in all_written),
            deleted=before.deleted + deleted,
            transactions=before.transactions + 1,
            busy=before.busy + time.perf_counter() - started,
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
        with self._lock:
            if request in self._waiting:
                self._waiting.remove(request)

    def _close(self) -> None:
        while self._waiting:
            self._write()
        file, self._file = self._file, None
        if file is not None:
            file.connection.close()


class _Request:
    """A request, and what became of it."""

    __slots__ = ("outcome", "payload")

    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        self.outcome: Written | Exception | str = _GIVEN_UP


class _File:
    """The open file."""

    def __init__(self, path: Path, max_age: int, max_bytes: int) -> None:
        self.connection = open_writer(path)
        self.writer = Writer(self.connection)
        self._retention = Retention(self.connection, max_age=max_age, max_bytes=max_bytes)

    def let_go(self, written: int) -> int:
        """Delete what must go after `written` spans came; gives how many spans went."""
        try:
            gone = self._retention.step(time.time_ns(), written)
        except sqlite3.Error:
            # The spans are written, which is what counts; what is too old goes with the next ones.
            return 0
        self.writer.gone(self._retention.last_gone)
        return gone


_ABANDONED: list[_File] = []
"""Files of a parent process."""
