"""Knowledge on disk: one SQLite file a node, written in one transaction a save.

The file is used in a thread, never on the loop. A full disk or a broken file is a `KnowledgeError`
that names the file; the caller keeps what was not written.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from mapek_runtime.errors import KnowledgeError

from .knowledge import Record

__all__ = ["SqliteStore"]

T = TypeVar("T")

_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS fact (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS incident (
  id INTEGER PRIMARY KEY, target TEXT NOT NULL, problem TEXT NOT NULL, opened REAL NOT NULL,
  action TEXT NOT NULL, closed REAL, repair_seconds REAL, success INTEGER, trace_id TEXT NOT NULL
) STRICT;
-- A write that was given up in the middle is repeated; what it had kept already is not kept twice.
CREATE UNIQUE INDEX IF NOT EXISTS incident_once ON incident (target, problem, opened, action);
"""
_KEPT = 1000


class SqliteStore:
    """The knowledge of one node in `path`; the folder is made when it is missing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = None
        # Only threads wait for it: one whose caller was cancelled may still be writing.
        self._lock = threading.Lock()

    async def load(self) -> Sequence[Record]:
        """Facts, and the newest incidents oldest first. Raises `KnowledgeError`."""
        return await self._in_thread(self._load)

    async def write(self, records: Sequence[Record]) -> None:
        """Write all records in one transaction. Raises `KnowledgeError` and writes none of them."""
        await self._in_thread(lambda: self._write(records))

    async def aclose(self) -> None:
        """Close the file."""
        await self._in_thread(self._close)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        def alone() -> T:
            with self._lock:
                return work()

        try:
            return await asyncio.to_thread(alone)
        except (sqlite3.Error, OSError, ValueError) as error:
            raise KnowledgeError(
                f"knowledge in {str(self.path)!r}: {error}; "
                "what was learned stays in memory and is tried again"
            ) from error

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None:
            return self._connection
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Calls come one after another, from whichever thread is free.
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        try:
            # Looked at first: a file of a newer program is left as it is.
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > _VERSION:
                raise sqlite3.DatabaseError(
                    f"the file has version {version}, this program knows {_VERSION}; "
                    "use the newer program or another folder"
                )
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.executescript(_SCHEMA)
            connection.execute(f"PRAGMA user_version = {_VERSION}")
        except sqlite3.Error:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _load(self) -> list[Record]:
        connection = self._open()
        records = [
            Record("fact", (key, json.loads(value)))
            for key, value in connection.execute("SELECT key, value FROM fact ORDER BY key")
        ]
        rows = connection.execute(
            "SELECT target, problem, opened, action, closed, repair_seconds, success, trace_id FROM incident "
            "ORDER BY id DESC LIMIT ?",
            (_KEPT,),
        ).fetchall()
        records.extend(Record("incident", tuple(row)) for row in reversed(rows))
        return records

    def _write(self, records: Sequence[Record]) -> None:
        connection = self._open()
        connection.execute("BEGIN IMMEDIATE")
        try:
            for record in records:
                if record.kind == "fact":
                    key, value = record.values
                    connection.execute(
                        "INSERT INTO fact VALUES (?, ?) "
                        "ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                        (key, json.dumps(value)),
                    )
                else:
                    connection.execute(
                        "INSERT OR IGNORE INTO incident (target, problem, opened, action, closed, "
                        "repair_seconds, success, trace_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                        record.values,
                    )
            connection.execute(
                "DELETE FROM incident WHERE id <= (SELECT max(id) FROM incident) - ?", (_KEPT * 10,)
            )
            connection.execute("COMMIT")
        except Exception:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
