"""The tables of the store, and the opening of its file.

A file of another program, or of a version that this one does not know, is refused and left as it is.
"""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path

from mapek_runtime.errors import StoreError

__all__ = ["APPLICATION_ID", "TABLES", "VERSION", "identity", "open_reader", "open_writer"]

APPLICATION_ID = 0x4D41504B
"""`MAPK`, so that `file` and SQLite's own tools know whose file it is."""
VERSION = 1
_STRICT = (3, 37)
"""The first SQLite with strict tables."""
_BUSY = 10.0
"""Seconds to wait for another process that writes the same file."""
_WRITER_CACHE = 32_000
_READER_CACHE = 16_000
"""Kibibytes of the file that each connection keeps in memory."""

_NOT_WRITABLE = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY}

TABLES = """
CREATE TABLE operation (
    id INTEGER PRIMARY KEY,
    service TEXT NOT NULL,
    name TEXT NOT NULL,
    kind INTEGER NOT NULL,              -- as in OTLP: 0 unspecified, 1 internal, 2 server, 3 client,
                                        -- 4 producer, 5 consumer
    UNIQUE (service, name, kind)
) STRICT;
CREATE TABLE source (                   -- what the spans of one library of one sender have in common
    id INTEGER PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE,
    service TEXT NOT NULL,
    resource BLOB NOT NULL,             -- opentelemetry.proto.resource.v1.Resource
    resource_schema TEXT NOT NULL,
    scope BLOB NOT NULL,                -- opentelemetry.proto.common.v1.InstrumentationScope
    scope_schema TEXT NOT NULL
) STRICT;
CREATE TABLE span (
    id INTEGER PRIMARY KEY AUTOINCREMENT, -- the order of arrival; none is given twice, so that whoever
                                        -- goes on after one misses nothing
    trace_id BLOB NOT NULL,
    span_id BLOB NOT NULL,
    parent_id BLOB,                     -- NULL: a root
    operation INTEGER NOT NULL,
    source INTEGER NOT NULL,
    status INTEGER NOT NULL,            -- as in OTLP: 0 unset, 1 ok, 2 error
    start INTEGER NOT NULL,             -- nanoseconds since 1970
    duration INTEGER NOT NULL,          -- nanoseconds
    body BLOB NOT NULL                  -- opentelemetry.proto.trace.v1.Span without what stands in columns
) STRICT;
CREATE INDEX span_trace ON span (trace_id);
CREATE INDEX span_operation ON span (operation, start);
CREATE INDEX span_error ON span (id) WHERE status = 2;
CREATE TABLE part (                     -- about a thousand spans that arrived together: where a time is
    first INTEGER PRIMARY KEY,          -- span.id
    last INTEGER NOT NULL,
    earliest INTEGER NOT NULL,          -- span.start
    latest INTEGER NOT NULL
) STRICT;
CREATE INDEX part_latest ON part (latest);
CREATE TABLE minute (                   -- durations of each operation, minute by minute
    minute INTEGER NOT NULL,            -- minutes since 1970, of the start
    operation INTEGER NOT NULL,
    spans INTEGER NOT NULL,
    errors INTEGER NOT NULL,
    buckets TEXT NOT NULL,              -- JSON: how many spans are in each bucket of `rollup`
    PRIMARY KEY (minute, operation)
) STRICT, WITHOUT ROWID;
"""


def open_writer(path: Path) -> sqlite3.Connection:
    """Open the file to write, and make it where there is none. Raises `StoreError`."""
    try:
        _require_strict(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        # Attributes may hold what is not for everybody; the journal beside it gets the same rights.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        connection = _connect(path, "rwc", _WRITER_CACHE)
    except (OSError, sqlite3.Error) as error:
        raise _cannot(path, error) from None
    try:
        deadline = time.monotonic() + _BUSY
        while not _is_ours(connection, path):
            try:
                _begin(connection)
            except sqlite3.OperationalError as error:
                # For a journal SQLite does not wait until others, who make the same file, are done.
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        # A killed process loses nothing that was acknowledged; a power cut may lose the last moments,
        # and never the file.
        connection.execute("PRAGMA synchronous = normal")
        connection.execute("PRAGMA journal_size_limit = 67108864")
    except sqlite3.Error as error:
        connection.close()
        raise _cannot(path, error) from None
    except BaseException:
        connection.close()
        raise
    return connection


def open_reader(path: Path) -> sqlite3.Connection:
    """Open a file that is there, to read only. Raises `StoreError`."""
    _require_strict(path)
    if not path.is_file():
        raise StoreError(f"there is no trace store in {str(path)!r}; `mapek run` makes one, or name another")
    try:
        try:
            connection, ours = _opened(path, "ro")
        except sqlite3.OperationalError as error:
            if (
                error.sqlite_errorcode & 0xFF not in _NOT_WRITABLE
                or path.with_name(f"{path.name}-wal").exists()
            ):
                raise
            # Its folder cannot be written, which reading a file with a journal takes; nobody writes it.
            connection, ours = _opened(path, "ro&immutable=1")
    except (OSError, sqlite3.Error) as error:
        raise _cannot(path, error) from None
    if not ours:
        connection.close()
        raise StoreError(f"{str(path)!r} is empty; `mapek run` makes a trace store, or name another file")
    return connection


def identity(path: Path) -> tuple[int, int] | None:
    """Which file the path names now; None for none.

    A connection keeps the file that it opened, also when the path names another one or none any more.
    """
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _require_strict(path: Path) -> None:
    if sqlite3.sqlite_version_info < _STRICT:
        raise StoreError(
            f"the trace store in {str(path)!r} needs SQLite {'.'.join(map(str, _STRICT))} or later, and this "
            f"Python has {sqlite3.sqlite_version}; use a newer Python, or set store.enabled to false"
        )


def _opened(path: Path, mode: str) -> tuple[sqlite3.Connection, bool]:
    """A connection to read, and whether the file has our tables."""
    connection = _connect(path, mode, _READER_CACHE)
    try:
        return connection, _is_ours(connection, path)
    except BaseException:
        connection.close()
        raise


def _connect(path: Path, mode: str, cache: int) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=_BUSY,
        isolation_level=None,
        # Each connection has a thread of its own, which is not the one that closes it at the very end.
        check_same_thread=False,
        cached_statements=64,
    )
    try:
        connection.execute(f"PRAGMA cache_size = -{cache}")
        connection.execute("PRAGMA temp_store = memory")
    except BaseException:
        connection.close()
        raise
    return connection


def _is_ours(connection: sqlite3.Connection, path: Path) -> bool:
    """Whether the file has our tables; False for an empty one. Raises `StoreError` for another's."""
    connection.execute("BEGIN")
    try:
        # One look at all three: somebody may be making the tables.
        (owner,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    finally:
        connection.execute("ROLLBACK")
    if owner == APPLICATION_ID:
        if version != VERSION:
            raise StoreError(
                f"the trace store in {str(path)!r} has version {version} of its tables, this program knows "
                f"{VERSION}; use the version of mapek-runtime that wrote it, or name another file"
            )
        return True
    if owner or tables:
        raise StoreError(f"{str(path)!r} is a database of another program; name another file")
    return False


def _begin(connection: sqlite3.Connection) -> None:
    """Make our tables in an empty file."""
    # Before the journal: on a file that has one it is ignored.
    connection.execute("PRAGMA auto_vacuum = incremental")
    connection.execute("PRAGMA journal_mode = wal")
    connection.execute("BEGIN EXCLUSIVE")
    try:
        # Another process may have made them while this one waited.
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if not tables:
            for statement in TABLES.split(";\n"):
                if statement.strip():
                    connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _cannot(path: Path, error: Exception) -> StoreError:
    why = getattr(error, "strerror", None) or str(error)
    return StoreError(
        f"the trace store in {str(path)!r} cannot be used: {why}; name a file in a folder that this user "
        "may write, or move this one away"
    )
