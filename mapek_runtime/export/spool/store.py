"""The spool: encoded batches on disk while their collector is away, kept for this process or the next.

`append` puts a batch behind the others; `oldest` gives the first one into the caller's hand, and `done`
or `put_back` says what became of it. What goes for want of room, of old age or by damage is counted and
told by `take_lost`, so that after every call, in spans

```
appended + found = done + lost{reason} + stored
```

One directory holds what goes to one destination; any number of processes may share it. Plain
synchronous file I/O: every method may wait for the disk, and is called by one thread at a time, which
need not always be the same. `spans` and `size_bytes` may be read by any thread at any time. Knows no event
loop, no exporter and no span, only bytes and counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from mapek_runtime.errors import SpoolError

from .segment import HEAD_SIZE, LARGEST, RECORD_SIZE, Record, Segment
from .shelf import Found, Fsync, Limits, Shelf, reason_of

__all__ = ["DEFAULT_SEGMENT", "Found", "Fsync", "Lost", "Record", "Spool"]

DEFAULT_BYTES = 256 << 20
"""About 1.3 million spans, at 200 bytes each: 20 minutes at 1,000 spans/s, on a disk of any size."""
DEFAULT_AGE = 86_400.0
"""A day: a collector that was away over night is told everything, and older traces are seldom looked for."""
DEFAULT_SEGMENT = 8 << 20
"""Space comes back, and goes for want of room, in steps of a thirty-second of the default limit."""
DEFAULT_FSYNC: Fsync = "segment"
"""Whatever ends a process, nothing is lost. A power cut may cost what the system has not yet written by
itself (about 30 s on Linux, one segment at most); `always` closes that gap and waits for the disk once a
batch, which wears out memory cards."""


class Lost(NamedTuple):
    """Spans that are stored no more, and why: spool_full, spool_expired or spool_damaged."""

    spans: int
    reason: str


class Spool:
    """A queue of encoded batches in `directory`, first in, first out.

    Bounded to `max_bytes` on disk for each process that uses the directory, with what is done but not
    yet removed; what is older than `max_age` seconds is not given any more. `clock` gives seconds since
    the epoch: a machine whose clock is set forward by a day finds its batches a day older. Does not
    touch the disk before `open`.
    """

    def __init__(
        self,
        directory: Path | str,
        *,
        max_bytes: int = DEFAULT_BYTES,
        max_age: float = DEFAULT_AGE,
        segment_bytes: int = DEFAULT_SEGMENT,
        fsync: Fsync = DEFAULT_FSYNC,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not max_bytes > 0:
            raise ValueError(f"max_bytes is {max_bytes!r}; it must be positive")
        if not max_age > 0:
            raise ValueError(f"max_age is {max_age!r}; it must be positive")
        if not 0 < segment_bytes <= max_bytes:
            raise ValueError(f"segment_bytes is {segment_bytes!r}; it must be 1 to max_bytes, {max_bytes}")
        if fsync not in {"always", "segment", "never"}:
            raise ValueError(f"fsync is {fsync!r}; it must be 'always', 'segment' or 'never'")
        self.directory = Path(directory)
        self._limits = Limits(max_bytes, max_age, segment_bytes, fsync)
        self._clock = clock
        self._shelf = Shelf(self.directory, self._limits)
        self._is_open = False
        self._hand: tuple[Record, Segment] | None = None

    @property
    def spans(self) -> int:
        """Spans that are stored, those in the caller's hand included."""
        return self._shelf.spans

    @property
    def size_bytes(self) -> int:
        """Bytes of the files."""
        return self._shelf.bytes

    def open(self) -> Found:
        """Make the directory, take a folder in it, and take over what processes that are gone left.

        What it found and cannot keep, for age or room, is told by `take_lost`. Raises SpoolError when
        the directory cannot be used.
        """
        if self._is_open:
            raise SpoolError(f"{self.directory}: the spool is open already")
        self._shelf = Shelf(self.directory, self._limits)
        try:
            self._shelf.folder()
            found = self._shelf.inherit()
        except BaseException as error:
            self._shelf.leave()
            if not isinstance(error, OSError):
                raise
            raise SpoolError(
                f"{self.directory} cannot hold the spool: {reason_of(error)}; "
                "it must be a directory in which this user may write"
            ) from error
        self._is_open = True
        try:
            self.expire()
        except SpoolError:
            self.close()
            raise
        return found

    def adopt(self) -> Found:
        """Take over what processes left that ended since `open`, which has done so already.

        What does not fit is given up by the next `expire` or `append`.
        """
        with self._at_work("look for what was left behind"):
            return self._shelf.inherit()

    def append(self, payload: bytes, count: int) -> None:
        """Put a batch of `count` spans behind the others.

        When it returns, the batch outlives this process, and a power cut too where `fsync` is `always`.
        Raises SpoolError when the disk does not take it; then nothing of it is stored.
        """
        if not 0 < count < 1 << 32 or not payload:
            raise ValueError(f"a batch of {count!r} spans in {len(payload)} bytes; it must have some of both")
        most = min(LARGEST, self._limits.max_bytes - HEAD_SIZE - RECORD_SIZE)
        if len(payload) > most:
            raise SpoolError(
                f"{self.directory}: the spool takes no batch of {len(payload)} bytes; the largest is {most}"
            )
        with self._at_work(f"take a batch of {count} spans"):
            now = self._clock()
            self._shelf.expire(now)
            self._shelf.put(payload, count, now)

    def oldest(self) -> Record | None:
        """The oldest batch, into the caller's hand; None when nothing is stored.

        One at a time: the same is given until `done` or `put_back`, and until then its spans are lost
        neither by age nor for want of room. Damaged ones before it are passed over, and lost.
        """
        with self._at_work("give a batch back"):
            if self._hand is None:
                self._shelf.expire(self._clock())
                self._hand = self._shelf.next()
                if self._hand is not None:
                    record, segment = self._hand
                    segment.in_hand = record.count
        return None if self._hand is None else self._hand[0]

    def done(self, record: Record) -> None:
        """The batch that `oldest` gave was delivered, or refused for good: it is never given again.

        When SpoolError is raised because the disk did not take note, this process does not give it
        again, but the next one may.
        """
        segment = self._let_go(record)
        with self._at_work("take note of what is done"):
            if segment.gone:
                self._shelf.spans -= record.count
            else:
                self._shelf.settle(segment, record)

    def put_back(self, record: Record) -> None:
        """The batch that `oldest` gave was not delivered and will be given again.

        When there was no room left for it meanwhile, it is lost now.
        """
        if self._let_go(record).gone:
            self._shelf.lose(record.count, "spool_full")

    def expire(self) -> None:
        """Give up what is too old or too much; `append` does so too."""
        with self._at_work("give up what is too old"):
            self._shelf.expire(self._clock())
            self._shelf.make_room()

    def take_lost(self) -> tuple[Lost, ...]:
        """What was lost since the last call; to be asked after each call, also after one that raised."""
        lost, self._shelf.lost = self._shelf.lost, {}
        return tuple(Lost(spans, reason) for reason, spans in lost.items())

    def close(self) -> None:
        """Leave everything on disk for the next process and let go of the lock.

        `spans` and `size_bytes` stay and say what was left. A closed spool may be opened again; what it left
        is found then, as what anybody left.
        """
        if not self._is_open:
            return
        if self._hand is not None:
            self.put_back(self._hand[0])
        try:
            with self._at_work("be closed"):
                self._shelf.leave()
        finally:
            self._is_open = False

    def after_fork(self) -> None:
        """This is the child of a fork: what is stored is the parent's, and its files are let go of.

        An open spool stays open and takes a folder of its own when it is next used. May be called
        whatever another thread of the parent was doing at that moment.
        """
        self._shelf.forget()
        self._shelf = Shelf(self.directory, self._limits)
        self._hand = None

    def _let_go(self, record: Record) -> Segment:
        if self._hand is None or record is not self._hand[0]:
            raise ValueError("this is not the batch that oldest() gave last; each is settled once")
        segment = self._hand[1]
        self._hand = None
        segment.in_hand = 0
        return segment

    @contextmanager
    def _at_work(self, what: str) -> Iterator[None]:
        if not self._is_open:
            raise SpoolError(f"{self.directory}: the spool is not open; call open() first")
        try:
            yield
        except OSError as error:
            raise SpoolError(f"{self.directory}: the spool could not {what}: {reason_of(error)}") from error
