"""Who reads: a few threads, each with a connection that cannot write.

A question waits for a free reader, so that many at once take turns; each has its time limit. One reader is
kept for questions that are quick: whoever asks whether the store answers is not to wait for searches.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from mapek_runtime.errors import StoreError
from mapek_runtime.export import beside
from mapek_runtime.export.worker import Worker

from .functions import register
from .schema import identity, open_reader
from .turns import Turns

__all__ = ["Readers"]

Answer = TypeVar("Answer")


class Readers:
    """`number` threads that answer questions about the file in `path`."""

    def __init__(self, path: Path, number: int = 3) -> None:
        self._path = path
        self._readers = [_Reader(path, f"mapek-store-reader-{index}") for index in range(number)]
        self._free: asyncio.LifoQueue[_Reader] | None = None
        self._slow = asyncio.Semaphore(number - 1)
        self._loop: asyncio.AbstractEventLoop | None = None

    async def search(self, question: Callable[[sqlite3.Connection], Answer]) -> Answer:
        """The same as `ask` for a question that may take seconds."""
        self._free_readers()
        async with self._slow:
            return await self.ask(question)

    async def ask(self, question: Callable[[sqlite3.Connection], Answer]) -> Answer:
        """Call `question` with a connection, in a thread. Raises `StoreError` for what SQLite raises."""
        free = self._free_readers()
        reader = await free.get()
        if reader.given_up:
            # That may have been in the moment before SQLite was asked.
            reader.interrupt()
        try:
            return await reader.worker.call(lambda: reader.answer(question))
        except asyncio.CancelledError:
            # Nobody waits for the answer any more; the next question need not either.
            reader.given_up = True
            reader.interrupt()
            raise
        except sqlite3.Error as error:
            if _code(error) == sqlite3.SQLITE_INTERRUPT:
                raise StoreError(f"the trace store in {str(self._path)!r} was closed") from None
            raise StoreError(
                f"the trace store in {str(self._path)!r} cannot be read: {error}; "
                "look at it with sqlite3's `PRAGMA integrity_check`, or move it away"
            ) from None
        finally:
            free.put_nowait(reader)

    def _free_readers(self) -> asyncio.LifoQueue[_Reader]:
        """Those who have nothing to do, for the loop that runs."""
        loop = asyncio.get_running_loop()
        if self._free is None or self._loop is not loop:
            self._loop, self._free = loop, asyncio.LifoQueue()
            self._slow = asyncio.Semaphore(len(self._readers) - 1)
            for reader in reversed(self._readers):
                self._free.put_nowait(reader)
        return self._free

    async def aclose(self) -> None:
        """Close the connections and end the threads; a question that is being answered ends early."""
        for reader in self._readers:
            reader.interrupt()
        for reader in self._readers:
            await reader.worker.end(reader.close)

    def after_fork(self) -> None:
        """Leave threads and connections to the parent."""
        for reader in self._readers:
            reader.after_fork()
        self._free = None


def _code(error: sqlite3.Error) -> int:
    """SQLite's result code without what it says in addition; 0 for an error of Python's module."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


class _Reader:
    """A thread and its connection."""

    def __init__(self, path: Path, name: str) -> None:
        self._path = path
        self._identity: tuple[int, int] | None = None
        # A thread that closes runs beside one that answers.
        self._turns = Turns(self._let_go, interrupt=self.interrupt)
        self._is_parents = False
        self._connection: sqlite3.Connection | None = None
        self.worker = Worker(name)
        self.given_up = False
        """Whether it may still be at a question for whose answer nobody waits."""

    def answer(self, question: Callable[[sqlite3.Connection], Answer]) -> Answer:
        with self._turns, beside.beside_the_loop():
            self.given_up = False
            if self._is_parents:
                raise StoreError(
                    f"the trace store in {str(self._path)!r} was being read when this process was forked; "
                    "use another file in the child"
                )
            if self._connection is not None and identity(self._path) != self._identity:
                # It was deleted, or replaced by another one.
                self._let_go()
            if self._connection is None:
                self._connection = open_reader(self._path)
                self._identity = identity(self._path)
                register(self._connection)
            try:
                return question(self._connection)
            except sqlite3.Error as error:
                if _code(error) not in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_INTERRUPT}:
                    # What it remembers of the file may be what is wrong.
                    self._let_go()
                raise

    def interrupt(self) -> None:
        """End what SQLite does now; without effect when that is nothing."""
        connection = self._connection
        if connection is not None:
            with suppress(sqlite3.ProgrammingError):
                # Closed in this moment.
                connection.interrupt()

    def close(self) -> None:
        with self._turns:
            self._let_go()

    def _let_go(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def after_fork(self) -> None:
        # Not closed: the parent is in the middle of using it.
        if self._connection is not None:
            _ABANDONED.append(self._connection)
            self._connection = None
        self._turns.after_fork()
        self._is_parents = self._is_parents or self._turns.was_taken
        self.worker.after_fork()


_ABANDONED: list[sqlite3.Connection] = []
"""Connections of a parent process."""
