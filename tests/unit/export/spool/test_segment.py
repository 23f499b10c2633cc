"""A segment gives back what was put in, whatever happened to its bytes meanwhile."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from mapek_runtime.export.spool import segment as module
from mapek_runtime.export.spool.segment import HEAD_SIZE, RECORD_SIZE, ForeignSegment, Segment

RECORDS = [(b"first", 3), (b"the second", 5), (b"3rd", 7)]
NOW = 1_000_000.5


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A segment with three records."""
    path = tmp_path / "a.seg"
    written = Segment.create(path)
    for payload, count in RECORDS:
        written.append(payload, count, NOW, sync=False)
    written.close()
    return path


def ends() -> list[int]:
    """Where the head ends, and each record."""
    found = [HEAD_SIZE]
    for payload, _ in RECORDS:
        found.append(found[-1] + RECORD_SIZE + len(payload))
    return found


def drain(segment: Segment) -> tuple[list[tuple[bytes, int]], int]:
    """Every record, and how many spans were damaged."""
    given: list[tuple[bytes, int]] = []
    damaged = 0
    while True:
        record, lost = segment.read()
        damaged += lost
        if record is None:
            segment.close()
            return given, damaged
        given.append((record.payload, record.count))
        segment.advance(len(record.payload), record.count)


def test_records_come_back_in_order_with_their_time(path: Path) -> None:
    segment = Segment.load(path)

    assert (segment.left, segment.torn, segment.newest) == (15, 0, NOW)
    record, _ = segment.read()
    assert record is not None
    assert record.spooled_at == NOW
    assert drain(segment) == (RECORDS, 0)
    assert (segment.left, segment.drained) == (0, True)


def test_the_file_is_for_its_owner_alone_and_is_never_overwritten(path: Path) -> None:
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        Segment.create(path)
    assert drain(Segment.load(path)) == (RECORDS, 0)


def test_cut_at_any_byte_every_whole_record_survives(path: Path) -> None:
    whole = path.read_bytes()
    assert ends()[-1] == len(whole)

    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        survivors = sum(end <= length for end in ends()[1:])

        segment = Segment.load(path)

        assert drain(segment) == (RECORDS[:survivors], 0), length
        if length >= HEAD_SIZE:
            assert path.stat().st_size == ends()[survivors], length
            assert segment.torn == length - ends()[survivors]


@pytest.mark.parametrize("tail", [b"\0", b"\0" * 5000, b"\xf5rec" * 100, os.urandom(3000)])
def test_zeros_and_garbage_behind_the_last_record_are_cut(path: Path, tail: bytes) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole + tail)

    segment = Segment.load(path)

    assert segment.torn == len(tail)
    assert drain(segment) == (RECORDS, 0)
    assert path.read_bytes() == whole


def test_a_tail_of_zeros_that_begins_anywhere_costs_only_what_it_covers(path: Path) -> None:
    whole = path.read_bytes()
    for length in range(HEAD_SIZE, len(whole)):
        path.write_bytes(whole[:length] + b"\0" * (len(whole) - length))
        segment = Segment.load(path)
        left = segment.left

        given, damaged = drain(segment)

        assert given == RECORDS[: len(given)], length
        assert sum(count for _, count in given) + damaged == left
        assert len(given) >= sum(end <= length for end in ends()[1:]), length


def test_a_flipped_bit_costs_at_most_its_record_and_is_counted(path: Path) -> None:
    whole = path.read_bytes()
    last = len(whole) - RECORD_SIZE - len(RECORDS[2][0])
    for place in range(HEAD_SIZE, len(whole)):
        for bit in range(8):
            harmed = bytearray(whole)
            harmed[place] ^= 1 << bit
            path.write_bytes(harmed)
            segment = Segment.load(path)

            given, damaged = drain(segment)

            assert [record for record in RECORDS if record in given] == given
            assert len(given) == 2, (place, bit)
            if not segment.torn:
                assert sum(count for _, count in given) + damaged == 15, (place, bit)
            else:
                # Nothing behind a last header says that it ever was one.
                assert last <= place < last + RECORD_SIZE


def test_a_flipped_bit_in_the_head_gives_nothing_false(path: Path) -> None:
    whole = path.read_bytes()
    for place in range(HEAD_SIZE):
        harmed = bytearray(whole)
        harmed[place] ^= 1
        path.write_bytes(harmed)

        segment = Segment.load(path)

        if place < HEAD_SIZE - 20:
            assert (segment.size, segment.torn, segment.drained) == (0, len(whole), True)
        else:
            assert drain(segment) == (RECORDS, 0), "without its mark, everything is given again"


def test_damage_that_comes_while_it_is_open_is_counted_to_the_span(path: Path) -> None:
    segment = Segment.load(path)
    harmed = bytearray(path.read_bytes())
    harmed[HEAD_SIZE + RECORD_SIZE + len(RECORDS[0][0]) + 4] ^= 1
    path.write_bytes(harmed)

    assert drain(segment) == ([RECORDS[0], RECORDS[2]], 5)

    segment = Segment.load(path)
    os.truncate(path, HEAD_SIZE + 10)
    assert drain(segment) == ([], 15)


def test_a_payload_that_looks_like_a_record_is_never_taken_for_one(tmp_path: Path, path: Path) -> None:
    inner = path.read_bytes()[HEAD_SIZE:]
    outer = tmp_path / "b.seg"
    segment = Segment.create(outer)
    segment.append(inner, 2, NOW, sync=False)
    segment.append(b"next", 1, NOW, sync=False)
    segment.close()
    harmed = bytearray(outer.read_bytes())
    harmed[HEAD_SIZE + 5] ^= 1
    outer.write_bytes(harmed)

    assert drain(Segment.load(outer)) == ([(b"next", 1)], 2)


@pytest.mark.parametrize("before_border", range(5))
def test_a_record_behind_megabytes_of_damage_is_found(tmp_path: Path, before_border: int) -> None:
    border = HEAD_SIZE + 1 + 2 * module.WINDOW
    size = border - before_border - RECORD_SIZE - HEAD_SIZE
    path = tmp_path / "large.seg"
    segment = Segment.create(path)
    segment.append((b"\xf5re" * size)[:size], 4, NOW, sync=False)
    assert segment.size == border - before_border
    segment.append(b"next", 1, NOW, sync=False)
    segment.close()
    with path.open("r+b") as file:
        file.seek(HEAD_SIZE)
        file.write(b"\0" * RECORD_SIZE)

    assert drain(Segment.load(path)) == ([(b"next", 1)], 4)


def test_what_is_marked_as_done_is_not_given_to_the_next_process(path: Path) -> None:
    segment = Segment.load(path)
    segment.read()
    segment.advance(len(RECORDS[0][0]), 3)
    segment.write_mark(sync=True)
    segment.close()

    again = Segment.load(path)

    assert again.left == 12
    assert drain(again) == (RECORDS[1:], 0)


def test_a_file_that_lost_everything_behind_its_mark_is_done(path: Path) -> None:
    segment = Segment.load(path)
    for payload, count in RECORDS[:2]:
        segment.advance(len(payload), count)
    segment.write_mark(sync=False)
    segment.close()
    os.truncate(path, HEAD_SIZE + 20)

    again = Segment.load(path)

    assert (again.left, again.drained) == (0, True)


def test_a_file_of_another_version_is_left_as_it_is(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = path.read_bytes()
    monkeypatch.setattr(module, "VERSION", 2)

    with pytest.raises(ForeignSegment, match="has version 1; this one reads version 2"):
        Segment.load(path)

    assert path.read_bytes() == whole


def test_a_record_the_disk_did_not_confirm_is_taken_back_and_the_file_closed_to_more(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    segment = Segment.load(path)
    whole = path.read_bytes()
    monkeypatch.setattr(module, "sync_file", fail)

    with pytest.raises(OSError, match="Input/output"):
        segment.append(b"unsure", 1, NOW, sync=True)

    assert segment.broken
    assert segment.left == 15
    assert path.read_bytes() == whole
    segment.close()


def test_it_notices_that_its_file_was_removed(path: Path) -> None:
    segment = Segment.load(path)
    segment.read()
    before = segment.removed

    path.unlink()

    assert (before, segment.removed) == (False, True)
    segment.remove()
