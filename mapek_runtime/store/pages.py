"""Every span that a query chooses, the oldest first, a page at a time: to write them all somewhere else.

Pages follow the rows in the order of arrival, so that each costs the same and none is held longer than it
takes to read it. What arrives meanwhile is not in them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import NamedTuple

from mapek_runtime.errors import QueryError

from .functions import Closures, Deadline, snapshot
from .query.compile import Compiler
from .query.plan import rows_between
from .query.syntax import Query
from .search import chosen
from .traces import of_rows

__all__ = ["Once", "Page", "page", "rows"]

_REMEMBERED = 100_000


class Page(NamedTuple):
    """TracesData, how many spans are in it, and the row up to which spans were looked at."""

    data: bytes
    spans: int
    last: int


class Once:
    """Which spans were met: at least the last hundred thousand, for what is sent twice is sent soon again."""

    def __init__(self) -> None:
        self._before: set[bytes] = set()
        self._met: set[bytes] = set()

    def first(self, identities: Iterable[bytes]) -> list[bool]:
        """Of each whether it is met for the first time."""
        found = []
        for identity in identities:
            found.append(identity not in self._met and identity not in self._before)
            self._met.add(identity)
        if len(self._met) >= _REMEMBERED:
            self._before, self._met = self._met, set()
        return found


def rows(connection: sqlite3.Connection, start: int | None, end: int | None) -> range:
    """The rows among which the spans of a time are."""
    return rows_between(connection, start, end)


def page(
    connection: sqlite3.Connection,
    query: Query,
    within: range,
    once: Once,
    *,
    start: int | None,
    end: int | None,
    deadline: float,
) -> Page:
    """The spans of some rows that a query chooses; those that were met before are left out.

    Raises `QueryError` for what cannot be asked, and when the time was not enough.
    """
    clock = Deadline(deadline)
    numbers: list[int] = []
    done = False
    with Closures() as closures, snapshot(connection):
        with clock.reading(connection):
            compiler = Compiler(connection, closures)
            numbers.extend(
                chosen(
                    connection, compiler, query, start=start, end=end, after=within.start - 1,
                    before=within.stop, check=clock.check,
                )
            )  # fmt: skip
            if compiler.facts.cut:
                raise QueryError(
                    "a trace has too many spans to relate them to one another; ask without relations"
                )
            done = True
        if not done:
            raise QueryError(
                f"{len(within):,} rows took too long to look at; ask for less with a simpler query"
            )
        data, spans, last = of_rows(connection, sorted(numbers), once.first)
    return Page(data, spans, within.stop - 1 if last is None else last)
