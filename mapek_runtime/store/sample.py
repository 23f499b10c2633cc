"""Some of the spans that a query chooses, by chance and from the whole time: for questions about shares."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from zlib import crc32

from .functions import Closures, Deadline, snapshot
from .query.compile import Compiler
from .query.plan import rows_between
from .query.syntax import Query
from .search import chosen

__all__ = ["Sample", "choose_sample", "thin"]


class Sample:
    """At most `most` of some rows: one of `stride`, by chance.

    Every n-th row would be a wrong choice: spans repeat, and only some of a cycle's would be in it.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.numbers: list[int] = []
        self.stride = 1
        self.complete = True
        """False when there are more."""

    def add(self, number: int) -> None:
        """The next row."""
        if _chance(number) % self.stride == 0:
            self.numbers.append(number)
            if len(self.numbers) > self._most:
                self.thin(self.stride * 2)

    def thin(self, stride: int) -> None:
        """Keep one of `stride` rows, a power of 2."""
        self.numbers = [number for number in self.numbers if _chance(number) % stride == 0]
        self.stride = stride
        self.complete = False

    def chunks(self, size: int) -> Iterator[list[int]]:
        """The rows, so many at a time, in an order that says nothing."""
        numbers = sorted(self.numbers, key=_chance)
        for first in range(0, len(numbers), size):
            yield numbers[first : first + size]


def thin(samples: Sequence[Sample], most: int) -> None:
    """Keep the same share of each of some samples, so that they have at most `most` rows together."""
    stride = max((sample.stride for sample in samples), default=1)
    for sample in samples:
        if sample.stride < stride:
            sample.thin(stride)
    while sum(len(sample.numbers) for sample in samples) > most:
        stride *= 2
        for sample in samples:
            sample.thin(stride)


def _chance(number: int) -> int:
    return crc32(number.to_bytes(8, "big"))


def choose_sample(
    connection: sqlite3.Connection,
    query: Query,
    *,
    start: int,
    end: int,
    most: int,
    looked_at: int,
    deadline: float,
) -> Sample:
    """Some of the spans that `choose` gives, from the whole time; only among the newest `looked_at` rows."""
    clock = Deadline(deadline)
    found = Sample(most)
    complete = False
    with Closures() as closures, snapshot(connection):
        rows = rows_between(connection, start, end)
        after = max(rows.start, rows.stop - looked_at) - 1
        with clock.reading(connection):
            compiler = Compiler(connection, closures)
            for number in chosen(
                connection, compiler, query, start=start, end=end, after=after, check=clock.check
            ):
                found.add(number)
            complete = not compiler.facts.cut and after < rows.start
    found.complete = complete and not clock.passed and found.stride == 1
    return found
