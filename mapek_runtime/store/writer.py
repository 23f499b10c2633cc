"""What the writer's thread does: requests become rows, several in one transaction.

The only place that writes. A transaction holds spans, the counts of their minutes and the time they cover,
so that whatever ends the process, a file never has one without the others.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from hashlib import blake2b
from itertools import chain

from .decode import Source, SpanRow, decode, service_of
from .minutes import Minutes, SpanColumns

__all__ = ["Written", "Writer"]

_KNOWN = 20_000
"""Operations and sources whose numbers are remembered; an application that names its spans by what they
handle must not fill the memory."""
_PART = 1024
"""Spans after which a new part begins."""
_COLUMNS = "(trace_id, span_id, parent_id, operation, source, status, start, duration, body)"
_ROW = "(?, ?, ?, ?, ?, ?, ?, ?, ?)"
# Many rows a statement, because the interpreter is let go and taken again for each statement: with one
# row in each, a thread whose loop is busy would wait 5 ms a row.
_INSERTS = {rows: f"INSERT INTO span {_COLUMNS} VALUES {', '.join([_ROW] * rows)}" for rows in (64, 16, 4, 1)}


class Written:
    """What became of one request: `refused` spans have no valid ids; `error` where it could not be read."""

    __slots__ = ("error", "refused", "spans")

    def __init__(self) -> None:
        self.spans = 0
        self.refused = 0
        self.error = ""


class Writer:
    """Writes requests by a connection of its own; one thread calls it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._operations: dict[tuple[str, str, int], int] = {}
        self._sources: dict[Source, tuple[int, str]] = {}
        self._part: list[int] | None = None
        """First and last row of the part that still grows, and its earliest and latest start."""
        self._part_is_saved = True
        self._version = -1
        """Another one when another connection has written; what is remembered may have gone."""

    def write(self, payloads: Iterable[bytes]) -> list[Written]:
        """Write requests in one transaction; they are in the file when this returns.

        They are asked for when it is this writer's turn to write. A request that cannot be read is left out
        as a whole. Raises sqlite3.Error, and nothing is written.
        """
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        try:
            self._look_again()
            minutes = Minutes()
            written = [self._request(payload, minutes) for payload in payloads]
            minutes.save(self._connection)
            self._save_part()
            execute("COMMIT")
        except BaseException:
            self.forget()
            if self._connection.in_transaction:
                execute("ROLLBACK")
            raise
        return written

    def forget(self) -> None:
        """Forget the numbers of operations and sources: some are not in the file any more."""
        self._operations.clear()
        self._sources.clear()

    def _look_again(self) -> None:
        """Take from the file what another process, or retention, may have changed since the last time."""
        execute = self._connection.execute
        (version,) = execute("PRAGMA data_version").fetchone()
        if version != self._version:
            self._version = version
            self.forget()
        part = execute(
            "SELECT first, last, earliest, latest FROM part ORDER BY first DESC LIMIT 1"
        ).fetchone()
        self._part = None if part is None else list(part)

    def _request(self, payload: bytes, minutes: Minutes) -> Written:
        written = Written()
        own = Minutes()
        execute = self._connection.execute
        # What came before is to stay when this request cannot be read.
        self._save_part()
        execute("SAVEPOINT request")
        try:
            for source, rows, refused in decode(payload):
                written.refused += refused
                if rows:
                    written.spans += self._insert(source, rows, own)
        except ValueError as error:
            execute("ROLLBACK TO request")
            self.forget()
            self._look_again()
            written.spans, written.error = 0, str(error)
        else:
            minutes.join(own)
        execute("RELEASE request")
        return written

    def _insert(self, source: Source, rows: list[SpanRow], minutes: Minutes) -> int:
        number, service = self._source(source)
        operations = self._operations
        values: list[SpanColumns] = []
        for trace_id, span_id, parent_id, name, kind, status, start, duration, body in rows:
            operation = operations.get((service, name, kind))
            if operation is None:
                operation = self._operation(service, name, kind)
            values.append((trace_id, span_id, parent_id, operation, number, status, start, duration, body))
        minutes.add(values)
        last = self._insert_rows(values)
        starts = [row[6] for row in rows]
        self._arrived(last - len(values) + 1, last, min(starts), max(starts))
        return len(values)

    def _insert_rows(self, values: list[SpanColumns]) -> int:
        execute = self._connection.execute
        position, last = 0, 0
        for size, statement in _INSERTS.items():
            while len(values) - position >= size:
                some = values[position : position + size]
                cursor = execute(statement, tuple(chain.from_iterable(some)))
                last = cursor.lastrowid or 0
                position += size
        return last

    def _arrived(self, first: int, last: int, earliest: int, latest: int) -> None:
        part = self._part
        if part is not None and part[1] == first - 1 and last - part[0] < _PART:
            part[1:] = last, min(part[2], earliest), max(part[3], latest)
        else:
            self._save_part()
            self._part = [first, last, earliest, latest]
        self._part_is_saved = False

    def _save_part(self) -> None:
        if self._part is not None and not self._part_is_saved:
            self._connection.execute("INSERT OR REPLACE INTO part VALUES (?, ?, ?, ?)", self._part)
            self._part_is_saved = True

    def _operation(self, service: str, name: str, kind: int) -> int:
        if len(self._operations) >= _KNOWN:
            self._operations.clear()
        key = service, name, kind
        execute = self._connection.execute
        execute("INSERT OR IGNORE INTO operation (service, name, kind) VALUES (?, ?, ?)", key)
        (number,) = execute(
            "SELECT id FROM operation WHERE service = ? AND name = ? AND kind = ?", key
        ).fetchone()
        self._operations[key] = number
        return int(number)

    def _source(self, source: Source) -> tuple[int, str]:
        known = self._sources.get(source)
        if known is not None:
            return known
        if len(self._sources) >= _KNOWN:
            self._sources.clear()
        service = service_of(source.resource)
        # Lengths between the fields: no two sources are to run into one another.
        fields = (
            source.resource, source.resource_schema.encode(), source.scope, source.scope_schema.encode()
        )  # fmt: skip
        digest = blake2b(b"".join(b"%d:%b" % (len(each), each) for each in fields), digest_size=16).digest()
        execute = self._connection.execute
        execute(
            "INSERT OR IGNORE INTO source (digest, service, resource, resource_schema, scope, scope_schema) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (digest, service, *source),
        )
        (number,) = execute("SELECT id FROM source WHERE digest = ?", (digest,)).fetchone()
        self._sources[source] = int(number), service
        return int(number), service
