"""What goes from the spool, for want of room, of old age or by damage, is counted to the span."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mapek_runtime.errors import SpoolError
from mapek_runtime.export.spool import Lost, Spool, shelf
from mapek_runtime.export.spool import segment as segments
from mapek_runtime.export.spool.segment import HEAD_SIZE, RECORD_SIZE

from .spooled import ONE, Clock, Make, drain, files, kill, put, spools


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    with spools(tmp_path / "spool") as make:
        yield make


def test_a_full_spool_lets_the_oldest_files_go_and_counts_them(make: Make) -> None:
    spool = make(segment_bytes=2 * ONE, max_bytes=3 * (HEAD_SIZE + 2 * ONE))
    put(spool, 1, 2, 3, 4, 5, 6)
    assert spool.take_lost() == ()

    put(spool, 7)

    assert spool.take_lost() == (Lost(3, "spool_full"),)
    assert spool.take_lost() == ()
    assert drain(spool) == [3, 4, 5, 6, 7]


def test_what_another_process_left_counts_towards_the_limit(make: Make) -> None:
    first = make(segment_bytes=2 * ONE)
    put(first, *range(1, 9))
    first.close()

    second = make(segment_bytes=2 * ONE, max_bytes=2 * (HEAD_SIZE + 2 * ONE))

    assert second.size_bytes <= 2 * (HEAD_SIZE + 2 * ONE)
    assert second.take_lost() == (Lost(1 + 2 + 3 + 4, "spool_full"),)
    assert drain(second) == [5, 6, 7, 8]


def test_small_files_do_not_pile_up(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "FEW_FILES", 4)
    crashed = [make(segment_bytes=1 << 20) for _ in range(8)]
    for number, spool in enumerate(crashed, 1):
        put(spool, number)
    for spool in crashed:
        kill(spool)

    last = make(max_bytes=1 << 20, segment_bytes=1 << 20)

    assert len(files(last)) == 5
    assert sum(lost.spans for lost in last.take_lost()) + last.spans == 36


def test_the_batch_in_hand_survives_want_of_room_and_is_lost_only_when_put_back(make: Make) -> None:
    spool = make(segment_bytes=2 * ONE, max_bytes=HEAD_SIZE + 2 * ONE)
    put(spool, 1, 2)
    record = spool.oldest()
    assert record is not None

    put(spool, 3)
    assert spool.take_lost() == (Lost(2, "spool_full"),)
    assert spool.spans == 1 + 3
    assert spool.oldest() is record
    spool.put_back(record)

    assert spool.take_lost() == (Lost(1, "spool_full"),)
    assert drain(spool) == [3]

    put(spool, 4, 5)
    record = spool.oldest()
    assert record is not None
    put(spool, 6)
    spool.done(record)
    assert spool.take_lost() == (Lost(5, "spool_full"),)
    assert spool.spans == 6


def test_what_is_too_old_is_let_go_batch_by_batch(make: Make) -> None:
    clock = Clock()
    spool = make(clock=clock, max_age=60, segment_bytes=2 * ONE)
    for number in range(1, 6):
        put(spool, number)
        clock.now += 10
    clock.now += 35

    assert drain(spool) == [4, 5]
    assert spool.take_lost() == (Lost(1 + 2 + 3, "spool_expired"),)


def test_what_was_let_go_for_its_age_is_not_found_by_the_next_process(make: Make) -> None:
    clock = Clock()
    spool = make(clock=clock, max_age=60)
    put(spool, 1)
    clock.now += 50
    put(spool, 2)
    clock.now += 20
    spool.expire()
    kill(spool)
    clock.now -= 20

    assert drain(make(clock=clock, max_age=60)) == [2]


def test_a_batch_in_hand_does_not_grow_too_old(make: Make) -> None:
    clock = Clock()
    spool = make(clock=clock, max_age=60)
    put(spool, 1, 2)
    record = spool.oldest()
    assert record is not None
    clock.now += 100

    spool.expire()
    assert spool.take_lost() == ()
    spool.done(record)

    assert spool.oldest() is None
    assert spool.take_lost() == (Lost(2, "spool_expired"),)


def test_a_damaged_batch_is_passed_over_and_counted(make: Make) -> None:
    spool = make()
    put(spool, 1, 2, 3)
    kill(spool)
    [file] = files(spool)
    harmed = bytearray(file.read_bytes())
    harmed[HEAD_SIZE + ONE + RECORD_SIZE] ^= 0x40
    file.write_bytes(harmed)

    second = make()

    assert second.spans == 6
    assert drain(second) == [1, 3]
    assert second.take_lost() == (Lost(2, "spool_damaged"),)


def test_a_file_that_cannot_be_read_stands_in_nobodys_way(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = make()
    put(spool, 1)
    kill(spool)
    [whole] = files(spool)
    for name, content in {"0.seg": b"", "1.seg": os.urandom(500), "2.seg": whole.read_bytes()[:10]}.items():
        (whole.parent / name).write_bytes(content)
    (whole.parent / "note.txt").write_text("not ours")
    other = Spool(spool.directory)
    with monkeypatch.context() as patched:
        patched.setattr(segments, "VERSION", 2)
        found = other.open()
        assert found.spans == 0
        assert found.torn_bytes == 510
        assert found.unreadable == (f"{whole} has version 1; this one reads version 2",)
        other.close()

    assert drain(make()) == [1]
    assert (whole.parent / "note.txt").read_text() == "not ours"


def test_a_file_that_was_removed_by_hand_is_counted_and_the_spool_goes_on(make: Make) -> None:
    spool = make(segment_bytes=2 * ONE)
    put(spool, 1, 2, 3, 4, 5)
    for file in files(spool):
        file.unlink()

    put(spool, 6)

    assert spool.take_lost() == (Lost(5, "spool_damaged"),)
    assert drain(spool) == [1, 2, 6], "the oldest file was open and can still be read"
    assert spool.take_lost() == (Lost(3 + 4, "spool_damaged"),)
    assert (spool.spans, spool.size_bytes) == (0, 0)


def test_the_directory_may_be_removed_by_hand(make: Make) -> None:
    spool = make()
    put(spool, 1)
    [file] = files(spool)
    file.unlink()
    (file.parent / "lock").unlink()
    file.parent.rmdir()
    spool.directory.rmdir()

    put(spool, 2)

    assert spool.take_lost() == (Lost(1, "spool_damaged"),)
    kill(spool)
    assert drain(make()) == [2]


def test_a_batch_that_the_disk_does_not_take_is_an_error_and_the_next_one_is_taken(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int, parts: list[bytes], offset: int) -> int:
        if offset > HEAD_SIZE + ONE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return os.pwrite(fd, b"".join(parts)[:20], offset)

    spool = make()
    put(spool, 1)
    with monkeypatch.context() as patched:
        patched.setattr(os, "pwritev", full)
        with pytest.raises(SpoolError, match="could not take a batch of 2 spans: No space left"):
            put(spool, 2)
        assert files(spool)[0].stat().st_size == HEAD_SIZE + ONE
    assert spool.spans == 1

    put(spool, 3)

    kill(spool)
    assert drain(make()) == [1, 3]


def test_after_an_unconfirmed_write_a_new_file_is_begun(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    spool = make(fsync="always")
    put(spool, 1)
    with monkeypatch.context() as patched:
        patched.setattr(segments, "sync_file", fail)
        with pytest.raises(SpoolError, match="Input/output error"):
            put(spool, 2)

    put(spool, 3)

    assert len(files(spool)) == 2
    assert drain(spool) == [1, 3]


def test_a_batch_larger_than_the_spool_costs_nothing_else(make: Make) -> None:
    spool = make(max_bytes=HEAD_SIZE + ONE, segment_bytes=ONE)
    put(spool, 1)

    with pytest.raises(SpoolError, match="no batch of 11 bytes; the largest is 10"):
        spool.append(b"x" * 11, 1)

    assert drain(spool) == [1]
