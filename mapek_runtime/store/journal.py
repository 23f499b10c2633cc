"""The journal of the file, which must not grow while somebody always reads.

SQLite takes what is in it over into the file by itself, and writes it from its beginning again when in
that moment nobody reads what stands in it. Where one question follows the other that moment never comes, so
once it is large, readers are waited for.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

__all__ = ["Journal"]

_LARGE = 16 << 20
"""Bytes at which readers are waited for, and by which it grows until they are waited for once more."""
_PATIENCE_MS = 250
"""How long readers are waited for, and whoever writes with them; twice as long after each time in vain."""
_MOST_PATIENCE_MS = 8_000
"""Longer than any question may take."""


class Journal:
    """The journal of the file in `path`, to which `connection` writes."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path.with_name(f"{path.name}-wal")
        self._limit = _LARGE
        self._patience = _PATIENCE_MS

    def keep_short(self) -> None:
        """Empty it where it is too large. Raises sqlite3.Error."""
        size = self._size()
        if size <= self._limit:
            return
        execute = self._connection.execute
        (usual,) = execute("PRAGMA busy_timeout").fetchone()
        execute(f"PRAGMA busy_timeout = {self._patience}")
        try:
            (in_vain, _, _) = execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            execute(f"PRAGMA busy_timeout = {usual}")
        self._patience = min(2 * self._patience, _MOST_PATIENCE_MS) if in_vain else _PATIENCE_MS
        self._limit = self._size() + _LARGE

    def _size(self) -> int:
        try:
            return self._path.stat().st_size
        except OSError:
            return 0
