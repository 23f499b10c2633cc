"""The journal is emptied once it is large, and those who read are waited for, but not without end."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from mapek_runtime.store.journal import Journal
from mapek_runtime.store.schema import open_reader, open_writer
from mapek_runtime.store.writer import Writer

from .filling import request, span


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "traces.sqlite"


@pytest.fixture
def connection(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[sqlite3.Connection]:
    monkeypatch.setattr("mapek_runtime.store.journal._LARGE", 300_000)
    monkeypatch.setattr("mapek_runtime.store.journal._PATIENCE_MS", 1)
    made = open_writer(path)
    yield made
    made.close()


def size(path: Path) -> int:
    return path.with_name("traces.sqlite-wal").stat().st_size


def write(connection: sqlite3.Connection) -> None:
    Writer(connection).write([request(*[span(number=n + 1) for n in range(3000)])])


def test_a_small_one_is_left(connection: sqlite3.Connection, path: Path) -> None:
    Writer(connection).write([request(span())])
    before = size(path)
    Journal(connection, path).keep_short()
    assert 0 < size(path) == before


def test_a_large_one_is_emptied(connection: sqlite3.Connection, path: Path) -> None:
    write(connection)
    Journal(connection, path).keep_short()
    assert size(path) == 0
    assert connection.execute("PRAGMA busy_timeout").fetchone() == (10_000,)


def test_while_somebody_reads_it_stays_and_goes_afterwards(
    connection: sqlite3.Connection, path: Path
) -> None:
    journal = Journal(connection, path)
    reader = open_reader(path)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM span").fetchone()
    write(connection)
    journal.keep_short()
    waited_for = size(path)
    assert waited_for > 300_000
    reader.execute("ROLLBACK")
    reader.close()
    while size(path) <= waited_for + 300_000:
        # It grows by as much again before anybody is waited for once more.
        journal.keep_short()
        assert size(path) > 0
        with sqlite3.connect(path, isolation_level=None) as other:
            other.execute("PRAGMA wal_autocheckpoint = 0")
            other.execute(
                "INSERT INTO source VALUES (NULL, randomblob(16), '', randomblob(9999), '', x'', '')"
            )
        other.close()
    journal.keep_short()
    assert size(path) == 0
    assert connection.execute("SELECT count(*) FROM span").fetchone() == (3000,)


def test_no_journal_is_a_small_one(connection: sqlite3.Connection, path: Path) -> None:
    Journal(connection, path.with_name("another.sqlite")).keep_short()
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
