"""The document on disk: torn, broken, compacted, and a disk that refuses."""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from unittest import mock

import pytest

from mapek_domains.crdt import keep as module
from mapek_domains.crdt.keep import Keep, path_of
from tests.unit.crdt.net import until

HEAD = b"mapek-crdt 1\n"


@asynccontextmanager
async def running(keep: Keep, whole: bytes = b"") -> AsyncIterator[None]:
    task = asyncio.create_task(keep.run(lambda: whole))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await keep.finish(lambda: whole)


async def kept(path: Path, *updates: bytes) -> bytes:
    keep = Keep(path)
    async with running(keep):
        for update in updates:
            keep.add(update)
    return await asyncio.to_thread(path.read_bytes)


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


async def write(path: Path, content: bytes) -> None:
    await asyncio.to_thread(path.write_bytes, content)


async def test_what_was_added_is_loaded_in_its_order(tmp_path: Path) -> None:
    path = tmp_path / "crdt" / "node-1.log"
    updates = [bytes([number]) * number for number in range(1, 50)]

    await kept(path, *updates)
    await kept(path, b"more")

    assert await Keep(path).load() == [*updates, b"more"]
    assert await Keep(tmp_path / "none").load() == ()


async def test_a_torn_end_is_cut_off_wherever_it_tears(tmp_path: Path) -> None:
    path = tmp_path / "node-1.log"
    whole = await kept(path, b"first", b"second")
    first = len(HEAD) + 8 + len(b"first")

    for cut in range(len(whole)):
        await write(path, whole[:cut])
        found = await Keep(path).load()
        assert list(found) == ([b"first"] if cut >= first else [])
        await kept(path, b"third")
        assert await Keep(path).load() == [*found, b"third"]
    assert names(tmp_path) == ["node-1.log"]


async def test_a_last_record_that_is_not_what_it_says_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "node-1.log"
    whole = await kept(path, b"first", b"second")
    await write(path, whole[:-1] + b"?")

    assert await Keep(path).load() == [b"first"]
    assert names(tmp_path) == ["node-1.log"]


@pytest.mark.parametrize(
    ("spoil", "left"),
    [
        (lambda whole: whole.replace(b"first", b"farst"), []),
        (lambda whole: whole.replace(b"second", b"sekond"), [b"first"]),
        (lambda _: b"a diary, and no log at all", []),
        (lambda whole: whole.replace(b"crdt 1", b"crdt 9"), []),
        (lambda whole: whole[: len(HEAD)] + struct.pack(">II", 2**31, 0) + b"x" * 100, []),
    ],
    ids=["first", "second", "diary", "version", "length"],
)
async def test_what_is_broken_is_put_aside_in_words(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, spoil: object, left: list[bytes]
) -> None:
    path = tmp_path / "node-1.log"
    assert callable(spoil)
    broken = spoil(await kept(path, b"first", b"second", b"third"))
    await write(path, broken)

    with caplog.at_level(logging.WARNING):
        found = await Keep(path).load()

    assert list(found) == left
    assert "node-1.log is broken after" in caplog.text
    assert "node-1.log.broken" in caplog.text
    assert await asyncio.to_thread((tmp_path / "node-1.log.broken").read_bytes) == broken
    await kept(path, b"new")
    assert await Keep(path).load() == [*left, b"new"]


async def test_a_long_log_gives_way_to_the_whole(tmp_path: Path) -> None:
    path = tmp_path / "node-1.log"
    keep = Keep(path)
    with mock.patch.object(module, "_WORTH_COMPACTING", 1000):
        async with running(keep, whole=b"W" * 100):
            for _ in range(40):
                keep.add(b"x" * 100)
                await asyncio.sleep(0.02)

    found = await Keep(path).load()
    assert found[0] == b"W" * 100
    assert len(found) < 20
    assert names(tmp_path) == ["node-1.log"]


async def test_a_crash_while_the_whole_is_written_leaves_the_log(tmp_path: Path) -> None:
    path = tmp_path / "node-1.log"
    await kept(path, b"first")
    keep = Keep(path)

    with (
        mock.patch.object(Path, "replace", side_effect=OSError("power")),
        pytest.raises(OSError, match="power"),
    ):
        await asyncio.to_thread(keep._compact, b"whole")

    assert await Keep(path).load() == [b"first"]
    assert names(tmp_path) == ["node-1.log"]


async def test_a_disk_that_refuses_is_told_of_once_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "node-1.log"
    keep = Keep(path)
    real = Keep._compact
    with (
        caplog.at_level(logging.WARNING),
        mock.patch.object(Keep, "_append", side_effect=OSError("no space left on device")),
        mock.patch.object(Keep, "_compact", side_effect=OSError("no space left on device")),
        mock.patch.object(module, "_LONGEST_PAUSE", 0.02),
    ):
        task = asyncio.create_task(keep.run(lambda: b"everything"))
        keep.add(b"first")
        await until(lambda: keep.failures >= 4)
        with mock.patch.object(Keep, "_compact", real):
            await until(path.exists)
        task.cancel()
    with suppress(asyncio.CancelledError):
        await task

    assert caplog.text.count("no space left on device") == 1
    assert await Keep(path).load() == [b"everything"]


async def test_what_a_slow_disk_leaves_waiting_is_bounded(tmp_path: Path) -> None:
    keep = Keep(tmp_path / "node-1.log")
    for _ in range(100):
        keep.add(b"x" * 100_000)

    assert sum(map(len, keep._waiting)) <= 4 << 20
    await keep.finish(lambda: b"everything")
    assert await Keep(keep.path).load() == [b"everything"]


async def test_a_crash_forgets_what_waits(tmp_path: Path) -> None:
    keep = Keep(tmp_path / "node-1.log")
    keep.add(b"first")
    keep.forget()
    await keep.finish(lambda: b"everything")

    assert await Keep(keep.path).load() == ()


async def test_a_file_that_cannot_be_read_is_no_reason_to_fail(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "node-1.log"
    await asyncio.to_thread(path.mkdir)

    with caplog.at_level(logging.WARNING):
        assert await Keep(path).load() == ()
    assert "cannot be read" in caplog.text


@pytest.mark.parametrize("name", ["node-1", "../../etc/passwd", "a/b", ".", "..", "", "ü ~", "x" * 64])
def test_the_file_of_a_node_stays_in_its_folder(tmp_path: Path, name: str) -> None:
    path = path_of(tmp_path, name)

    assert path.parent == tmp_path / "crdt"
    assert path.name.endswith(".log")
