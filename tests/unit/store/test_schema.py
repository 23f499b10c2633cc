"""Opening the file: ours is opened, an empty one is made ours, every other is refused and left as it is."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mapek_runtime.errors import StoreError
from mapek_runtime.store.schema import VERSION, open_reader, open_writer


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "traces.sqlite"


def test_the_folder_and_the_file_are_made(path: Path) -> None:
    open_writer(path).close()
    connection = open_reader(path)
    assert connection.execute("PRAGMA auto_vacuum").fetchone() == (2,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        connection.execute("DELETE FROM span")
    connection.close()


def test_an_empty_file_becomes_ours(path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    open_writer(path).close()
    open_reader(path).close()


@pytest.mark.parametrize("opened", [open_writer, open_reader])
def test_a_database_of_another_program_is_refused_and_untouched(path: Path, opened: object) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE span (mine TEXT)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="another program"):
        opened(path)  # type: ignore[operator]
    assert path.read_bytes() == before


@pytest.mark.parametrize("opened", [open_writer, open_reader])
def test_a_file_of_another_version_is_refused_with_both_versions(path: Path, opened: object) -> None:
    connection = open_writer(path)
    connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    connection.close()
    with pytest.raises(StoreError, match=f"version {VERSION + 1} .* knows {VERSION}"):
        opened(path)  # type: ignore[operator]


@pytest.mark.parametrize("opened", [open_writer, open_reader])
def test_what_is_no_database_is_refused(path: Path, opened: object) -> None:
    path.parent.mkdir()
    path.write_bytes(b"a shopping list" * 100)
    with pytest.raises(StoreError, match="not a database"):
        opened(path)  # type: ignore[operator]


def test_a_folder_that_is_a_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="folder that this user may write"):
        open_writer(tmp_path / "file" / "traces.sqlite")


def test_a_reader_makes_nothing(path: Path) -> None:
    with pytest.raises(StoreError, match="no trace store"):
        open_reader(path)
    assert not path.parent.exists()


def test_a_reader_of_an_empty_file_says_so(path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    with pytest.raises(StoreError, match="is empty"):
        open_reader(path)


def test_others_may_not_read_what_attributes_hold(path: Path) -> None:
    writer = open_writer(path)
    modes = {each.name: each.stat().st_mode & 0o777 for each in path.parent.iterdir()}
    writer.close()
    assert modes[path.name] == 0o600
    assert set(modes.values()) == {0o600}


def test_an_sqlite_without_strict_tables_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 36, 0))
    for opened in (open_writer, open_reader):
        with pytest.raises(StoreError, match=r"needs SQLite 3\.37 or later"):
            opened(path)


def test_several_may_make_the_same_file_at_once(path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        for number in range(10):
            made = path.with_name(f"{number}.sqlite")
            for connection in list(pool.map(open_writer, [made] * 8)):
                connection.close()
            open_reader(made).close()
