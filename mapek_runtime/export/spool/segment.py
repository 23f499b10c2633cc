"""A segment: one file of the spool, with encoded batches in the order in which they came.

```
segment = head, mark, record…      head = magic, version, salt, CRC
record  = header, payload          mark = where the records that are not done begin, spans before it, CRC
```
Every CRC-32 begins from the segment's own random salt, so that neither old blocks of the disk nor a
payload that looks like a record is ever taken for one. A record's header says how many spans of the
segment came before it: whatever is damaged, the spans that are missing can be counted. What is torn at
the end is cut when the file is opened; what is damaged in between costs those records only.

Knows one file; nothing of its neighbours, of limits, of age, and of exporters. Raises OSError as it
comes, and is used by one thread at a time.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

__all__ = [
    "HEAD_SIZE",
    "LARGEST",
    "RECORD_SIZE",
    "ForeignSegment",
    "Header",
    "Record",
    "Segment",
    "sync_file",
]

MAGIC = b"\x93mapeksp"
VERSION = 1
HEAD = struct.Struct("<8sIII")
"""Magic, version, salt, CRC of these; this much is the same in every version."""
MARK = struct.Struct("<QQI")
"""Offset of the first record that is not done, spans before it, CRC of these."""
START = b"\xf5rec"
FIELDS = struct.Struct("<4sIIIQd")
"""Start, bytes and spans of the payload, its CRC, spans before this record, when it was spooled."""
CHECK = struct.Struct("<I")
"""CRC of the fields."""

MARK_AT = HEAD.size
HEAD_SIZE = HEAD.size + MARK.size
RECORD_SIZE = FIELDS.size + CHECK.size
LARGEST = 1 << 30
"""Bytes of the largest payload: what one read gives on every system."""
WINDOW = 1 << 20
"""Bytes that are searched at once for the next record after a damaged one."""

FLAGS = os.O_RDWR | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)

sync_file = getattr(os, "fdatasync", os.fsync)
"""Wait until the file's bytes, and what is needed to find them, are on the disk."""


class ForeignSegment(Exception):
    """The file was written by a version that this one does not know; it is left as it is."""


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """An encoded batch that waited on disk."""

    payload: bytes
    count: int
    spooled_at: float
    """Seconds since the epoch, on the clock of the process that spooled it."""


@dataclass(frozen=True, slots=True)
class Header:
    """Where a record is and what it says of itself."""

    offset: int
    size: int
    count: int
    check: int
    before: int
    spooled_at: float

    @property
    def end(self) -> int:
        """The offset behind the record."""
        return self.offset + RECORD_SIZE + self.size


class Segment:
    """A segment file that was created by `create` or opened by `load`."""

    def __init__(self, path: Path, salt: int) -> None:
        self.path = path
        self.size = HEAD_SIZE
        """Bytes of the file that are whole."""
        self.spans = 0
        """Spans ever put in, done or not."""
        self.newest = 0.0
        self.broken = False
        """Nothing may be appended any more: what stands behind `size` could not be taken back."""
        self.torn = 0
        """Bytes that `load` has cut from the end."""
        self.in_hand = 0
        """Spans of the record that somebody is sending now."""
        self.gone = False
        """It was removed; a record in somebody's hand may be left of it."""
        self._salt = salt
        self._cursor = HEAD_SIZE
        self._passed = 0
        self._fd: int | None = None

    @classmethod
    def create(cls, path: Path) -> Segment:
        """A new, empty segment; the file must not exist."""
        segment = cls(path, int.from_bytes(os.urandom(4), "little"))
        fields = MAGIC, VERSION, segment._salt
        check = crc32(HEAD.pack(*fields, 0)[:-4], segment._salt)
        fd = segment._fd = os.open(path, FLAGS | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            head = HEAD.pack(*fields, check) + segment._mark()
            _write(fd, [head], 0)
        except BaseException:
            segment.remove()
            raise
        return segment

    @classmethod
    def load(cls, path: Path) -> Segment:
        """Read which records a file holds, without their payloads, and cut what is torn at its end.

        A file without a head that can be read holds nothing: its `size` is 0 and all of it is `torn`.
        Raises ForeignSegment for one of another version.
        """
        segment = cls(path, 0)
        length = os.fstat(segment._open()).st_size
        try:
            if not segment._load_head():
                segment.size, segment.torn = 0, length
                return segment
            segment._load_mark()
            segment._load_records(length)
        finally:
            segment.close()
        return segment

    @property
    def left(self) -> int:
        """Spans that are not done."""
        return self.spans - self._passed

    @property
    def drained(self) -> bool:
        """Whether no record is left to be read."""
        return self._cursor >= self.size

    @property
    def removed(self) -> bool:
        """Whether somebody else has removed the file, while it was open here."""
        return self._fd is not None and os.fstat(self._fd).st_nlink == 0

    def append(self, payload: bytes, count: int, spooled_at: float, *, sync: bool) -> None:
        """Put a record behind the others: all of it or, when OSError is raised, nothing.

        A file that was not synced may have lost anything since, as Linux drops the pages: after such
        an error, and when half a record could not be taken back, the segment is `broken`.
        """
        fields = FIELDS.pack(START, len(payload), count, crc32(payload, self._salt), self.spans, spooled_at)
        header = fields + CHECK.pack(crc32(fields, self._salt))
        fd = self._open()
        written = False
        try:
            _write(fd, [header, payload], self.size)
            written = True
            if sync:
                sync_file(fd)
        except OSError:
            self.broken = written
            try:
                os.ftruncate(fd, self.size)
            except OSError:
                self.broken = True
            raise
        self.size += RECORD_SIZE + len(payload)
        self.spans += count
        self.newest = max(self.newest, spooled_at)

    def first(self) -> Header | None:
        """The oldest record that is not done, as far as its header says; None when there is none."""
        return None if self.drained else self._find(self._cursor, self.size, self._passed)

    def read(self) -> tuple[Record | None, int]:
        """The oldest record that is not done, and how many spans before it were damaged.

        Those are passed over for good. None when no whole record is left.
        """
        damaged = 0
        while (header := self.first()) is not None:
            damaged += header.before - self._passed
            self._cursor, self._passed = header.offset, header.before
            payload = self._payload(header)
            if payload is not None:
                return Record(payload, header.count, header.spooled_at), damaged
            damaged += header.count
            self._cursor, self._passed = header.end, header.before + header.count
        damaged += self.left
        self._cursor, self._passed = self.size, self.spans
        return None, damaged

    def advance(self, size: int, count: int) -> None:
        """Pass over the oldest record, whose payload has `size` bytes and `count` spans."""
        self._cursor += RECORD_SIZE + size
        self._passed += count

    def skip(self, header: Header) -> int:
        """Pass over the record that `first` gave; how many spans went, damaged ones before it included."""
        gone = header.before + header.count - self._passed
        self._cursor, self._passed = header.end, header.before + header.count
        return gone

    def write_mark(self, *, sync: bool) -> None:
        """Write down what is done, for the next process: 20 bytes in place, which need no room."""
        fd = self._open()
        _write(fd, [self._mark()], MARK_AT)
        if sync:
            sync_file(fd)

    def sync(self) -> None:
        """Wait until everything appended is on the disk."""
        sync_file(self._open())

    def close(self) -> None:
        """Let go of the file; the next call opens it again."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def remove(self) -> None:
        """Remove the file, whether or not it is still there."""
        try:
            self.path.unlink(missing_ok=True)
        finally:
            self.close()

    def _open(self) -> int:
        if self._fd is None:
            self._fd = os.open(self.path, FLAGS)
        return self._fd

    def _mark(self) -> bytes:
        place = MARK.pack(self._cursor, self._passed, 0)[:-4]
        return place + CHECK.pack(crc32(place, self._salt))

    def _load_head(self) -> bool:
        raw = os.pread(self._open(), HEAD.size, 0)
        if len(raw) < HEAD.size:
            return False
        magic, version, salt, check = HEAD.unpack(raw)
        if magic != MAGIC or check != crc32(raw[:-4], salt):
            return False
        if version != VERSION:
            raise ForeignSegment(f"{self.path} has version {version}; this one reads version {VERSION}")
        self._salt = salt
        return True

    def _load_mark(self) -> None:
        # Without a mark that can be believed everything is sent again, which is allowed; losing is not.
        # A mark behind the end, of a file that lost its tail, says that all that is left is done.
        raw = os.pread(self._open(), MARK.size, MARK_AT)
        if len(raw) == MARK.size:
            cursor, passed, check = MARK.unpack(raw)
            if check == crc32(raw[:-4], self._salt):
                self._cursor, self._passed = cursor, passed
        self.size, self.spans = self._cursor, self._passed

    def _load_records(self, length: int) -> None:
        while (header := self._find(self.size, length, self.spans)) is not None:
            self.size, self.spans = header.end, header.before + header.count
            self.newest = max(self.newest, header.spooled_at)
        self.torn = max(0, length - self.size)
        if self.torn:
            os.ftruncate(self._open(), self.size)

    def _find(self, offset: int, end: int, before: int) -> Header | None:
        """The first whole record between `offset` and `end`, behind at least `before` spans."""
        header = self._header(offset, end, before)
        at = offset + 1
        while header is None and at + RECORD_SIZE <= end:
            window = os.pread(self._open(), min(WINDOW, end - at), at)
            place = window.find(START)
            while header is None and place >= 0:
                header = self._header(at + place, end, before)
                place = window.find(START, place + 1)
            if len(window) < RECORD_SIZE:
                break
            # The start of a record may stand across the border of two windows.
            at += len(window) - len(START) + 1
        return header

    def _header(self, offset: int, end: int, least: int) -> Header | None:
        raw = os.pread(self._open(), RECORD_SIZE, offset)
        if len(raw) < RECORD_SIZE or crc32(raw[:-4], self._salt) != CHECK.unpack(raw[-4:])[0]:
            return None
        start, size, count, check, before, spooled_at = FIELDS.unpack(raw[:-4])
        header = Header(offset, size, count, check, before, spooled_at)
        return header if start == START and header.end <= end and before >= least else None

    def _payload(self, header: Header) -> bytes | None:
        try:
            payload = os.pread(self._open(), header.size, header.offset + RECORD_SIZE)
        except OSError as error:
            if isinstance(error, FileNotFoundError):
                raise
            return None
        whole = len(payload) == header.size and crc32(payload, self._salt) == header.check
        return payload if whole else None


def _write(fd: int, parts: list[bytes], offset: int) -> None:
    """Write all of `parts` at `offset`; a disk that is full takes a part and then raises."""
    while parts:
        done = os.pwritev(fd, parts, offset)
        offset += done
        while parts and done >= len(parts[0]):
            done -= len(parts.pop(0))
        if parts:
            parts[0] = parts[0][done:]
