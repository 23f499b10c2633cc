"""The shelf: the segments of one process in their order, and what goes when room or time is over.

Segments are filled one after another, read from the oldest on, and removed as a whole. Each process has
its own on disk, in a folder of its own, and takes over those of processes that are gone. Knows segments
and folders; nothing of who asks. Raises OSError as it comes; every count is right by then.
"""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import Literal, NamedTuple

from .folder import Folder, claim, folders, take
from .segment import HEAD_SIZE, RECORD_SIZE, ForeignSegment, Record, Segment

__all__ = ["Found", "Fsync", "Limits", "Shelf", "reason_of"]

Fsync = Literal["always", "segment", "never"]

FEW_FILES = 1024
"""Files beyond those that full segments need: processes that die early leave small ones behind."""

GONE = frozenset({errno.ENOENT, errno.ESTALE, errno.EIO})
"""What reading a segment raises when it will not be read later either."""


class Limits(NamedTuple):
    """How much a shelf holds, how long, in files of which size, and when it waits for the disk."""

    max_bytes: int
    max_age: float
    segment_bytes: int
    fsync: Fsync


class Found(NamedTuple):
    """What processes that are gone had left behind, and now belongs to this one."""

    spans: int = 0
    bytes: int = 0
    torn_bytes: int = 0
    """Cut from the ends of files: what was being written when a process or the power went."""
    unreadable: tuple[str, ...] = ()
    """Files and folders that were left as they are, each with the reason."""


class Shelf:
    """The segments in a folder of `directory` that belongs to this process."""

    def __init__(self, directory: Path, limits: Limits) -> None:
        self.directory = directory
        self.spans = 0
        self.bytes = 0
        self.lost: dict[str, int] = {}
        """Spans that were given up, by reason."""
        self._limits = limits
        self._max_files = FEW_FILES + limits.max_bytes // limits.segment_bytes
        self._syncs = limits.fsync != "never"
        self._folder: Folder | None = None
        self._segments: list[Segment] = []
        self._active: Segment | None = None
        self._number = 0

    def folder(self) -> Folder:
        """The folder of this process, made when there is none or somebody tidied it away by hand."""
        if self._folder is not None and not self._folder.path.exists():
            self._folder.release()
            self._folder = None
        if self._folder is None:
            self._folder = claim(self.directory, sync=self._syncs)
        return self._folder

    # In

    def put(self, payload: bytes, count: int, now: float) -> None:
        """Put a batch behind all others; nothing of it is there when this raises."""
        limits, need = self._limits, RECORD_SIZE + len(payload)
        if self._active is not None and self._active.removed:
            # Somebody tidied up by hand: what is in the file would die with this process.
            self.give_up(self._active, "spool_damaged")
        self.make_room(need)
        active = self._active or self._start()
        full = active.size + need >= limits.segment_bytes
        sync = limits.fsync == "always" or (full and limits.fsync == "segment")
        try:
            active.append(payload, count, now, sync=sync)
        except OSError:
            if active.broken or not active.spans:
                self._seal(active)
                if not active.spans:
                    self.remove(active)
            raise
        self.spans += count
        self.bytes += need
        if full:
            self._seal(active)

    # Out

    def next(self) -> tuple[Record, Segment] | None:
        """The oldest batch and where it is; damaged ones on the way are given up."""
        while self._segments:
            segment = self._segments[0]
            try:
                record, damaged = segment.read()
            except OSError as error:
                if error.errno not in GONE:
                    raise
                self.give_up(segment, "spool_damaged")
                continue
            self.lose(damaged, "spool_damaged")
            if record is not None:
                return record, segment
            self.remove(segment)
        return None

    def settle(self, segment: Segment, record: Record) -> None:
        """The record that `next` gave is done, and its file is removed with its last record."""
        sync = self._limits.fsync == "always"
        self.spans -= record.count
        segment.advance(len(record.payload), record.count)
        if not segment.drained:
            segment.write_mark(sync=sync)
            return
        # No mark is needed: this frees room on a disk that is full.
        self.remove(segment)
        if sync:
            self.folder().sync()

    def remove(self, segment: Segment) -> None:
        """Remove a segment with which nothing is left to be done."""
        # Forgotten first: a file that cannot be removed must not stand in the way of all others.
        self._segments.remove(segment)
        self.bytes -= segment.size
        segment.gone = True
        if segment is self._active:
            self._active = None
        segment.remove()

    # Away

    def give_up(self, segment: Segment, reason: str) -> None:
        """Remove a segment and count what was in it, but for the record in somebody's hand."""
        self.lose(segment.left - segment.in_hand, reason)
        self.remove(segment)

    def make_room(self, need: int = 0) -> None:
        """Give up the oldest segments until there is room for a record of `need` bytes."""
        limits = self._limits
        while self._segments:
            files = 1 if need and self._active is None else 0
            total = self.bytes + need + files * HEAD_SIZE
            if total <= limits.max_bytes and len(self._segments) + files <= self._max_files:
                return
            # Unlinked first: where nothing can be removed, what is there can still be sent.
            self._segments[0].path.unlink(missing_ok=True)
            self.give_up(self._segments[0], "spool_full")

    def expire(self, now: float) -> None:
        """Give up what is too old, up to the first record that is not."""
        limit = now - self._limits.max_age
        while self._segments and not self._segments[0].in_hand:
            segment = self._segments[0]
            if segment.newest < limit:
                self.give_up(segment, "spool_expired")
                continue
            passed = 0
            try:
                while (header := segment.first()) is not None and header.spooled_at < limit:
                    passed += segment.skip(header)
            except OSError as error:
                if error.errno not in GONE:
                    raise
                self.give_up(segment, "spool_damaged")
                continue
            finally:
                self.lose(passed, "spool_expired")
            if passed:
                segment.write_mark(sync=False)
            return

    def lose(self, spans: int, reason: str) -> None:
        """Count spans that are stored no more."""
        if spans:
            self.spans -= spans
            self.lost[reason] = self.lost.get(reason, 0) + spans

    # Beginning and end

    def inherit(self) -> Found:
        """Take over the segments of processes that are gone.

        A file that is being filled is ended then, so that what comes next stays behind what was found.
        """
        found = Found()
        mine = self.folder()
        for path in folders(self.directory):
            try:
                folder = take(path)
            except OSError as error:
                found = found._replace(unreadable=(*found.unreadable, f"{path}: {reason_of(error)}"))
                continue
            if folder is not None:
                found = self._empty(folder, mine, found)
        if found.spans and self._active is not None:
            if self._syncs:
                self._active.sync()
            self._seal(self._active)
        self._segments.sort(key=lambda segment: segment.path.name)
        return found

    def leave(self) -> None:
        """Let go of everything; what is stored stays for the next process, `spans` and `bytes` too."""
        folder, self._folder = self._folder, None
        segments, self._segments = self._segments, []
        active, self._active = self._active, None
        try:
            if active is not None and self._syncs:
                active.sync()
        finally:
            for segment in segments:
                segment.close()
            if folder is not None:
                folder.release() if segments else folder.remove()

    def forget(self) -> None:
        """Let go of everything without a touch to the files: they are the parent's, this is its child."""
        for segment in self._segments:
            segment.close()
        if self._active is not None:
            self._active.close()
        if self._folder is not None:
            self._folder.release()

    def _start(self) -> Segment:
        folder = self.folder()
        folder.touch()
        # Names sort by age, over processes too, and stay unique where another process takes over.
        self._number = max(self._number + 1, time.time_ns())
        segment = Segment.create(folder.path / f"{self._number:016x}-{os.urandom(4).hex()}.seg")
        try:
            if self._syncs:
                folder.sync()
        except OSError:
            segment.remove()
            raise
        self._segments.append(segment)
        self.bytes += segment.size
        self._active = segment
        return segment

    def _seal(self, segment: Segment) -> None:
        self._active = None
        if segment is not self._segments[0]:
            segment.close()

    def _empty(self, folder: Folder, mine: Folder, found: Found) -> Found:
        spans, size, torn, unreadable = found
        try:
            for path in sorted(folder.path.glob("*.seg")):
                try:
                    segment = Segment.load(path)
                    torn += segment.torn
                    if segment.drained:
                        segment.remove()
                        continue
                    segment.path = path.rename(mine.path / path.name)
                except ForeignSegment as error:
                    unreadable += (str(error),)
                    continue
                except OSError as error:
                    unreadable += (f"{path}: {reason_of(error)}",)
                    continue
                self._segments.append(segment)
                self.bytes += segment.size
                self.spans += segment.left
                spans += segment.left
                size += segment.size
            if self._syncs:
                mine.sync()
            folder.remove()
        except OSError as error:
            unreadable += (f"{folder.path}: {reason_of(error)}",)
        finally:
            folder.release()
        return Found(spans, size, torn, unreadable)


def reason_of(error: OSError) -> str:
    """What the system says is wrong."""
    return error.strerror or type(error).__name__
