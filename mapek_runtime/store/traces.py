"""A trace by its id: whole, or a page of a large one."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from itertools import compress

from mapek_runtime.errors import QueryError

from .decode import Source
from .model import StoredTrace
from .whole import StoredSpan, traces_data

__all__ = ["ids", "of_rows", "read", "trace_id_of"]

_ID = re.compile(r"[0-9a-fA-F]{1,32}")
_EXACT = 100_000
"""Spans up to which a trace is in the order of its starts, and those that were sent twice are counted once;
to sort a larger one for each page would take seconds."""
_MOST_BYTES = 32 << 20
"""Of a page: spans may have megabytes each, and a page is held in memory several times over."""
_BY_START = """
SELECT min(id) AS id FROM span WHERE trace_id = ? GROUP BY span_id ORDER BY min(start), 1 LIMIT ? OFFSET ?
"""
_BY_ARRIVAL = "SELECT id FROM span WHERE trace_id = ? ORDER BY id LIMIT ? OFFSET ?"
_SPANS = """
SELECT span.trace_id, span.span_id, span.parent_id, operation.name, operation.kind, span.source, span.start,
       span.duration, span.body
FROM ({page}) AS page JOIN span ON span.id = page.id JOIN operation ON operation.id = span.operation
"""


def trace_id_of(text: str) -> bytes:
    """The 16 bytes of an id of 32 hexadecimal digits; leading zeros may be left out. Raises QueryError."""
    if not _ID.fullmatch(text):
        raise QueryError(f"trace id {text[:64]!r}; it must be 32 hexadecimal digits")
    return bytes.fromhex(text.rjust(32, "0"))


def read(connection: sqlite3.Connection, trace_id: str, offset: int, limit: int) -> StoredTrace | None:
    """The spans from `offset` on, at most `limit`, fewer of large ones; None when there is no such trace."""
    wanted = trace_id_of(trace_id)
    (total,) = connection.execute("SELECT count(*) FROM span WHERE trace_id = ?", (wanted,)).fetchone()
    if not total:
        return None
    page = _BY_ARRIVAL
    if total <= _EXACT:
        page = _BY_START
        (total,) = connection.execute(
            "SELECT count(DISTINCT span_id) FROM span WHERE trace_id = ?", (wanted,)
        ).fetchone()
    rows: dict[bytes, StoredSpan] = {}
    size = 0
    for row in connection.execute(_SPANS.format(page=page), (wanted, limit, offset)):
        span = StoredSpan(*row)
        size += len(span.body) + len(span.name)
        if size > _MOST_BYTES and rows:
            break
        # The same span may have been sent twice.
        rows.setdefault(span.span_id, span)
    spans = sorted(rows.values(), key=_start)
    data = traces_data(spans, _sources(connection, {span.source for span in spans}))
    return StoredTrace(trace_id=wanted.hex(), data=data, spans=len(spans), total=total, offset=offset)


def ids(connection: sqlite3.Connection, beginning: str, limit: int) -> tuple[str, ...]:
    """Ids that begin with these hexadecimal digits, in order. Raises QueryError for what is none."""
    if not _ID.fullmatch(beginning):
        raise QueryError(f"{beginning[:64]!r} begins no trace id; it must be hexadecimal digits, at most 32")
    low, high = (bytes.fromhex(beginning.lower().ljust(32, digit)) for digit in "0f")
    rows = connection.execute(
        "SELECT DISTINCT trace_id FROM span WHERE trace_id BETWEEN ? AND ? ORDER BY trace_id LIMIT ?",
        (low, high, limit),
    )
    return tuple(trace_id.hex() for (trace_id,) in rows)


def of_rows(
    connection: sqlite3.Connection,
    numbers: Sequence[int],
    first: Callable[[Iterable[bytes]], list[bool]],
) -> tuple[bytes, int, int | None]:
    """Rows as TracesData, how many spans these are, and the last row where that is not the last of all.

    Of each span `first` is asked, by its trace id and span id, whether it is wanted.
    """
    spans: list[StoredSpan] = []
    size = 0
    last: int | None = None
    page = "SELECT value AS id FROM json_each(?)"
    read = connection.execute(f"{_SPANS.format(page=page)} ORDER BY span.id", (json.dumps(list(numbers)),))
    for row in read:
        spans.append(StoredSpan(*row))
        size += len(spans[-1].body) + len(spans[-1].name)
        if size > _MOST_BYTES and len(spans) < len(numbers):
            last = numbers[len(spans) - 1]
            break
    wanted = first(span.trace_id + span.span_id for span in spans)
    spans = list(compress(spans, wanted))
    return traces_data(spans, _sources(connection, {span.source for span in spans})), len(spans), last


def _start(span: StoredSpan) -> int:
    return span.start


def _sources(connection: sqlite3.Connection, numbers: set[int]) -> dict[int, Source]:
    found: dict[int, Source] = {}
    for number in numbers:
        row = connection.execute(
            "SELECT resource, resource_schema, scope, scope_schema FROM source WHERE id = ?", (number,)
        ).fetchone()
        found[number] = Source(*row)
    return found
