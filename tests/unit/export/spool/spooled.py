"""Spools on one directory, with batches that say how many spans they hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mapek_runtime.export.spool import Spool
from mapek_runtime.export.spool.segment import RECORD_SIZE

__all__ = ["ONE", "Clock", "Make", "batch", "drain", "files", "kill", "put", "spools"]

ONE = RECORD_SIZE + 10
"""Bytes on disk of a batch as `batch` makes them."""

Make = Callable[..., Spool]


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@contextmanager
def spools(directory: Path) -> Iterator[Make]:
    """Opens spools; they are closed at the end."""
    made: list[Spool] = []

    def make(**options: Any) -> Spool:
        spool = Spool(directory, **{"fsync": "never"} | options)
        spool.open()
        made.append(spool)
        return spool

    yield make
    for spool in made:
        spool.close()


def batch(number: int) -> bytes:
    return b"%010d" % number


def put(spool: Spool, *numbers: int) -> None:
    """Batches of as many spans as their number says."""
    for number in numbers:
        spool.append(batch(number), number)


def drain(spool: Spool) -> list[int]:
    given = []
    while (record := spool.oldest()) is not None:
        assert record.payload == batch(record.count)
        given.append(record.count)
        spool.done(record)
    return given


def files(spool: Spool) -> list[Path]:
    return sorted(spool.directory.glob("*/*.seg"))


def kill(spool: Spool) -> None:
    """End it as the system ends a process: descriptors are closed and nothing else happens."""
    spool.after_fork()
