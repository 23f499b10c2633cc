"""The spool keeps what could not be sent, in order, for this process or the next."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mapek_runtime.errors import ExportError, SpoolError
from mapek_runtime.export.spool import Found, Spool
from mapek_runtime.export.spool import segment as segments
from mapek_runtime.export.spool.segment import HEAD_SIZE

from .spooled import ONE, Make, batch, drain, files, kill, put, spools


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    with spools(tmp_path / "spool") as make:
        yield make


def test_batches_come_back_in_the_order_in_which_they_came(make: Make) -> None:
    spool = make(segment_bytes=3 * ONE)
    put(spool, *range(1, 11))
    assert len(files(spool)) == 4
    assert spool.spans == 55

    assert drain(spool) == list(range(1, 11))
    assert spool.take_lost() == ()


def test_nothing_is_left_on_disk_once_everything_is_done(make: Make) -> None:
    spool = make(segment_bytes=2 * ONE)
    put(spool, 1, 2, 3, 4, 5)
    assert spool.size_bytes == sum(file.stat().st_size for file in files(spool))

    drain(spool)

    assert (spool.spans, spool.size_bytes, files(spool)) == (0, 0, [])
    spool.close()
    assert list(spool.directory.iterdir()) == []


def test_files_and_folders_are_for_their_owner_alone(make: Make) -> None:
    spool = make()
    put(spool, 1)

    modes = {path.stat().st_mode & 0o777 for path in [spool.directory, *spool.directory.glob("**/*")]}

    assert modes == {0o700, 0o600}


def test_the_batch_in_hand_is_given_until_it_is_settled(make: Make) -> None:
    spool = make()
    put(spool, 1, 2)
    first = spool.oldest()
    assert first is not None

    assert spool.oldest() is first
    spool.put_back(first)
    again = spool.oldest()

    assert again is not None
    assert again.payload == batch(1)
    with pytest.raises(ValueError, match="settled once"):
        spool.done(first)
    spool.done(again)
    with pytest.raises(ValueError, match="settled once"):
        spool.put_back(again)
    assert drain(spool) == [2]


def test_what_was_left_is_found_and_what_was_done_is_not(make: Make) -> None:
    first = make(segment_bytes=3 * ONE)
    put(first, 1, 2, 3, 4, 5)
    record = first.oldest()
    assert record is not None
    first.done(record)
    first.close()
    assert first.spans == 14

    second = Spool(first.directory)
    found = second.open()

    assert found == Found(spans=14, bytes=first.size_bytes)
    assert drain(second) == [2, 3, 4, 5]
    second.close()


def test_a_killed_process_loses_nothing_and_the_batch_in_hand_is_given_again(make: Make) -> None:
    first = make()
    put(first, 1, 2)
    first.oldest()

    kill(first)

    assert drain(make()) == [1, 2]


def test_a_spool_may_be_opened_again_and_finds_what_it_left(make: Make) -> None:
    spool = make()
    put(spool, 3)
    spool.close()

    assert spool.open().spans == 3
    assert drain(spool) == [3]


def test_what_a_living_process_holds_is_left_alone_until_it_ends(make: Make) -> None:
    living, other = make(), make()
    put(living, 1, 2)
    put(other, 3)

    assert other.adopt() == Found()
    kill(living)

    assert other.adopt().spans == 3
    assert other.spans == 6
    assert drain(other) == [1, 2, 3], "the older file first"


@pytest.mark.parametrize(("fsync", "waits"), [("always", 5), ("segment", 2), ("never", 0)])
def test_it_waits_for_the_disk_as_often_as_it_was_told(
    make: Make, monkeypatch: pytest.MonkeyPatch, fsync: str, waits: int
) -> None:
    waited: list[int] = []
    monkeypatch.setattr(segments, "sync_file", waited.append)
    spool = make(fsync=fsync, segment_bytes=HEAD_SIZE + 2 * ONE)

    put(spool, 1, 2, 3, 4, 5)

    assert len(waited) == waits


def test_the_folder_of_somebody_else_is_not_taken_over(make: Make, tmp_path: Path) -> None:
    spool = make()
    put(spool, 1)
    kill(spool)
    [folder] = [path for path in spool.directory.iterdir() if list(path.glob("*.seg"))]
    elsewhere = folder.rename(tmp_path / "elsewhere")
    (spool.directory / "1-planted.spool").symlink_to(elsewhere)
    (spool.directory / "2-planted.spool").write_text("a file")

    assert spool.adopt() == Found()


def test_a_file_in_the_place_of_the_directory_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for wrong in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(SpoolError, match=rf"{wrong} cannot hold the spool.*may write"):
            Spool(wrong).open()
    assert issubclass(SpoolError, ExportError)


def test_a_system_without_flock_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)

    with pytest.raises(SpoolError, match="needs flock, which this system has not; switch it off"):
        Spool(tmp_path / "spool").open()


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_bytes": 0},
        {"max_age": 0},
        {"max_age": float("nan")},
        {"segment_bytes": 0},
        {"max_bytes": 10, "segment_bytes": 11},
        {"fsync": "sometimes"},
    ],
    ids=repr,
)
def test_wrong_arguments_are_told_with_what_would_be_right(tmp_path: Path, wrong: dict[str, Any]) -> None:
    *_, (name, value) = wrong.items()
    with pytest.raises(ValueError, match=rf"{name} is {value!r}; it must be"):
        Spool(tmp_path, **wrong)


def test_a_spool_that_is_not_open_says_so_and_touches_nothing(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    for call in (spool.oldest, spool.expire, spool.adopt, lambda: spool.append(b"x", 1)):
        with pytest.raises(SpoolError, match=r"not open; call open\(\) first"):
            call()
    spool.close()
    assert not spool.directory.exists()

    spool.open()
    with pytest.raises(SpoolError, match="open already"):
        spool.open()
    with pytest.raises(ValueError, match="0 spans in 1 bytes"):
        spool.append(b"x", 0)
    spool.close()
    spool.close()
    assert list(spool.directory.iterdir()) == []
