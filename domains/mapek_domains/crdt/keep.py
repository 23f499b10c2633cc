"""The document on disk: updates as they come, one after another, and now and then the whole in their place.

The file begins with a word of ours; then come records: length, CRC-32 and the bytes of an update. The end of
a record that was being written when the process died is cut off. A file that is broken elsewhere is put
aside under another name and what was whole of it goes on: the other nodes have the rest. Every touch of the
disk is in a thread. What is appended is not forced to the disk, so a power failure may cost the last seconds
of it, which the others have too; the whole is forced before it takes the place of the log.
"""

from __future__ import annotations

import asyncio
import logging
import os
import struct
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

__all__ = ["Keep", "path_of"]

T = TypeVar("T")

logger = logging.getLogger(__name__)

_HEAD = b"mapek-crdt 1\n"
_RECORD = struct.Struct(">II")
_LARGEST_RECORD = 1 << 28
_MOST_WAITING = 4 << 20
_WORTH_COMPACTING = 256 << 10
_LONGEST_PAUSE = 60.0


def path_of(folder: Path, node_id: str) -> Path:
    """Where the document of a node is kept."""
    # A node's name is free text; its file must stay in the folder.
    name = "".join(c if c.isalnum() or c in "-_." else f"%{ord(c):02x}" for c in node_id)
    return folder / "crdt" / f"{name.lstrip('.') or '%2e'}.log"


class Keep:
    """The file of one node, over all its lives in this process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.failures = 0
        """How often the disk refused."""
        # One touch of the file after another, also when whoever asked for it was cancelled meanwhile.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="crdt keep")
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._something = asyncio.Event()
        self._is_stale = False
        self._size = 0
        self._whole_size = 0

    async def load(self) -> Sequence[bytes]:
        """The updates that were kept, oldest first; nothing where there is no file, or it cannot be read."""
        try:
            return await self._in_thread(self._load)
        except OSError as error:
            self.failures += 1
            logger.warning(
                "the shared knowledge in %s cannot be read: %s; it is had from the other nodes",
                self.path,
                error,
            )
            return ()

    def add(self, update: bytes) -> None:
        """Keep an update; without waiting."""
        self._waiting.append(update)
        self._waiting_bytes += len(update)
        if self._waiting_bytes > _MOST_WAITING:
            # The disk does not keep up: the whole is written when it does again.
            self._forget_waiting()
            self._is_stale = True
        self._something.set()

    def forget(self) -> None:
        """What is not on disk yet is gone, as in a crash."""
        self._forget_waiting()
        self._is_stale = False

    async def run(self, whole: Callable[[], bytes]) -> None:
        """Write what is added until cancelled; `whole` gives the document when it takes the log's place."""
        pause = 0.0
        while True:
            await self._something.wait()
            self._something.clear()
            try:
                await self._write(whole)
                pause = 0.0
            except OSError as error:
                self._something.set()
                if not pause:
                    logger.warning(
                        "the shared knowledge cannot be written to %s: %s; it stays in memory and is tried "
                        "again",
                        self.path,
                        error,
                    )
                pause = min(_LONGEST_PAUSE, max(1.0, 2 * pause))
                await asyncio.sleep(pause)

    def close(self) -> None:
        """Let go of the thread; what waits is not written."""
        self._thread.shutdown(wait=False)

    async def finish(self, whole: Callable[[], bytes]) -> None:
        """Write what is left, once, and close."""
        try:
            await self._write(whole)
        except OSError as error:
            logger.warning("the last of the shared knowledge was not written to %s: %s", self.path, error)
        finally:
            self.close()

    # Inside

    def _forget_waiting(self) -> None:
        self._waiting.clear()
        self._waiting_bytes = 0

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def _write(self, whole: Callable[[], bytes]) -> None:
        updates = list(self._waiting)
        self._forget_waiting()
        is_done = False
        try:
            if self._is_stale or self._size > max(_WORTH_COMPACTING, 4 * self._whole_size):
                everything = whole()
                self._is_stale = False
                await self._in_thread(lambda: self._compact(everything))
            else:
                # Also where there is nothing: what was begun before is done then.
                await self._in_thread(lambda: self._append(updates))
            is_done = True
        except OSError:
            self.failures += 1
            raise
        finally:
            # Also when this was cancelled, and nobody knows how far it went.
            self._is_stale |= not is_done

    # In the thread

    def _append(self, updates: Sequence[bytes]) -> None:
        if not updates:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            head = b"" if file.tell() else _HEAD
            data = head + b"".join(map(_record, updates))
            self._size = file.tell() + len(data)
            file.write(data)

    def _compact(self, whole: bytes) -> None:
        self._replace([whole])
        self._whole_size = self._size

    def _replace(self, updates: Sequence[bytes]) -> None:
        new = self.path.with_name(f"{self.path.name}.{os.getpid()}.new")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        data = _HEAD + b"".join(map(_record, updates))
        try:
            with new.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self.path)
        finally:
            with suppress(OSError):
                new.unlink(missing_ok=True)
        with suppress(OSError):
            # The name is on disk only when its folder is. Not every system can do that.
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        self._size = len(data)

    def _load(self) -> Sequence[bytes]:
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return ()
        updates, good, is_torn = _read(data)
        self._size = good
        if good == len(data):
            return updates
        if is_torn:
            os.truncate(self.path, good)
            return updates
        aside = self.path.with_name(f"{self.path.name}.broken")
        self.path.replace(aside)
        logger.warning(
            "the shared knowledge in %s is broken after %d of %d bytes; it was put aside as %s, and what is "
            "missing is had from the other nodes",
            self.path,
            good,
            len(data),
            aside.name,
        )
        self._replace(updates)
        return updates


def _record(update: bytes) -> bytes:
    return _RECORD.pack(len(update), zlib.crc32(update)) + update


def _read(data: bytes) -> tuple[list[bytes], int, bool]:
    """The updates in a file, how far it is whole, and whether what follows is the torn end of a record."""
    if not data.startswith(_HEAD):
        return [], 0, len(data) < len(_HEAD) and _HEAD.startswith(data)
    updates: list[bytes] = []
    at = len(_HEAD)
    while at < len(data):
        if at + _RECORD.size > len(data):
            return updates, at, True
        length, checksum = _RECORD.unpack_from(data, at)
        end = at + _RECORD.size + length
        if length > _LARGEST_RECORD:
            return updates, at, False
        if end > len(data):
            return updates, at, True
        update = data[at + _RECORD.size : end]
        if zlib.crc32(update) != checksum:
            # Of the last record the length may be on disk and the rest not.
            return updates, at, end == len(data)
        updates.append(update)
        at = end
    return updates, at, False
