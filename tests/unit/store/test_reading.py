"""The threads that read: what becomes of a question when the file, or whoever asked, is gone."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from mapek_runtime.errors import StoreError
from mapek_runtime.store import catalog
from mapek_runtime.store.reading import Readers
from mapek_runtime.store.schema import open_writer
from mapek_runtime.store.writer import Writer

from .filling import request, span

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"


def write(path: Path, *names: str) -> None:
    connection = open_writer(path)
    Writer(connection).write([request(*[span(number=i + 1, name=n) for i, n in enumerate(names)])])
    connection.close()


async def names(readers: Readers) -> list[str]:
    found = await readers.ask(lambda connection: catalog.operations(connection, None, None))
    return [operation.name for operation in found]


@pytest.fixture
async def readers(tmp_path: Path) -> AsyncIterator[Readers]:
    await asyncio.to_thread(write, tmp_path / "traces.sqlite", "old")
    made = Readers(tmp_path / "traces.sqlite", number=1)
    yield made
    await made.aclose()


async def test_a_file_that_was_replaced_is_read_anew(readers: Readers, tmp_path: Path) -> None:
    assert await names(readers) == ["old"]
    await asyncio.to_thread(write, tmp_path / "other", "new")
    (tmp_path / "other").replace(tmp_path / "traces.sqlite")
    assert await names(readers) == ["new"]


async def test_a_file_that_was_deleted_is_missed(readers: Readers, tmp_path: Path) -> None:
    assert await names(readers) == ["old"]
    (tmp_path / "traces.sqlite").unlink()
    with pytest.raises(StoreError, match="there is no trace store"):
        await names(readers)
    await asyncio.to_thread(write, tmp_path / "traces.sqlite", "again")
    assert await names(readers) == ["again"]


async def test_a_question_that_was_given_up_ends(readers: Readers) -> None:
    begun = asyncio.Event()
    asking = asyncio.create_task(readers.ask(without_end(begun)))
    await begun.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    async with asyncio.timeout(20):
        # There is one reader: it is free again.
        assert await names(readers) == ["old"]


async def test_closing_ends_a_question_and_says_so(readers: Readers) -> None:
    begun = asyncio.Event()
    asking = asyncio.create_task(readers.ask(without_end(begun)))
    await begun.wait()
    threads = [each for each in threading.enumerate() if each.name.startswith("mapek-store-reader")]
    async with asyncio.timeout(20):
        await readers.aclose()
        with pytest.raises(StoreError, match="was closed"):
            await asking
        for thread in threads:
            await asyncio.to_thread(thread.join)
    assert threads


def without_end(begun: asyncio.Event) -> Callable[[sqlite3.Connection], int]:
    """A question that SQLite answers for ever; tells when it has begun to."""
    loop = asyncio.get_running_loop()

    def ask(connection: sqlite3.Connection) -> int:
        cursor = connection.execute(ENDLESS)
        loop.call_soon_threadsafe(begun.set)
        return sum(1 for _ in cursor)

    return ask


async def test_a_quick_question_does_not_wait_for_slow_ones(tmp_path: Path) -> None:
    await asyncio.to_thread(write, tmp_path / "traces.sqlite", "old")
    readers = Readers(tmp_path / "traces.sqlite")
    ends = threading.Event()
    try:
        slow = [asyncio.create_task(readers.search(lambda _: ends.wait(30))) for _ in range(5)]
        async with asyncio.timeout(10):
            assert await readers.ask(lambda connection: connection.execute("SELECT 7").fetchone()) == (7,)
        assert not any(each.done() for each in slow)
        ends.set()
        assert await asyncio.gather(*slow) == [True] * 5
    finally:
        ends.set()
        await readers.aclose()
