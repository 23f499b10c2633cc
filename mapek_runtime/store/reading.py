"""Who reads: a few threads, each with a connection that cannot write.

A question waits for a free reader, so that many at once take turns; each has its time limit.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from mapek_runtime.errors import StoreError
from mapek_runtime.export import beside
from mapek_runtime.export.worker import Worker

from .functions import register
from .schema import open_reader

__all__ = ["Readers"]

Answer = TypeVar("Answer")


class Readers:
    """`number` threads that answer questions about the file in `path`."""

    def __init__(self, path: Path, number: int = 2) -> None:
        self._path = path
        self._readers = [_Reader(path, f"mapek-store-reader-{index}") for index in range(number)]
        self._free: asyncio.LifoQueue[_Reader] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def ask(self, question: Callable[[sqlite3.Connection], Answer]) -> Answer:
        """Call `question` with a connection, in a thread. Raises `StoreError` for what SQLite raises."""
        loop = asyncio.get_running_loop()
        if self._free is None or self._loop is not loop:
            self._loop, self._free = loop, asyncio.LifoQueue()
            for reader in reversed(self._readers):
                self._free.put_nowait(reader)
        free = self._free
        reader = await free.get()
        try:
            return await reader.worker.call(lambda: reader.answer(question), finish=_FINISH)
        except sqlite3.Error as error:
            raise StoreError(
                f"the trace store in {str(self._path)!r} cannot be read: {error}; "
                "look at it with sqlite3's `PRAGMA integrity_check`, or move it away"
            ) from None
        finally:
            free.put_nowait(reader)

    async def aclose(self) -> None:
        """Close the connections and end the threads."""
        for reader in self._readers:
            if reader.connection is not None:
                reader.connection.interrupt()
            await reader.worker.end(reader.close)

    def after_fork(self) -> None:
        """Leave threads and connections to the parent."""
        beside.after_fork()
        for reader in self._readers:
            reader.after_fork()
        self._free = None


_FINISH = 1.0
"""Seconds that a question has to end when nobody waits for its answer any more."""


class _Reader:
    """A thread and its connection."""

    def __init__(self, path: Path, name: str) -> None:
        self._path = path
        self.worker = Worker(name)
        self.connection: sqlite3.Connection | None = None

    def answer(self, question: Callable[[sqlite3.Connection], Answer]) -> Answer:
        if self.connection is None:
            connection = open_reader(self._path)
            register(connection)
            self.connection = connection
        with beside.beside_the_loop():
            return question(self.connection)

    def close(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.close()

    def after_fork(self) -> None:
        # Not closed: that would take the parent's locks on the file away.
        if self.connection is not None:
            _ABANDONED.append(self.connection)
            self.connection = None
        self.worker.after_fork()


_ABANDONED: list[sqlite3.Connection] = []
"""Connections of a parent process."""
