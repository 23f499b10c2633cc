"""Whether spans are kept in an embedded trace store, and where.

A run of the service keeps them unless it is told not to, a library only when it is told to. Only what was
asked for can stop the start: a file that nobody named and that cannot be had costs a warning.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from mapek_runtime.config import Configuration, Settings
from mapek_runtime.errors import ConfigError, StoreError

from .spooling import obstacle
from .state import state_folder

if TYPE_CHECKING:
    from mapek_runtime.store import TraceStore

__all__ = ["keeps_spans", "open_store", "store_file", "store_path"]

logger = logging.getLogger(__name__)

FILE = "traces.sqlite"
_REST = 1.0
"""Seconds to close the store once everything else is closed."""


def store_path(configuration: Configuration, environ: Mapping[str, str], *, by_default: bool) -> Path | None:
    """The file of the trace store, None where there is none; made by whoever opens it.

    `by_default` says what `store.enabled` means where it is unset, unless nothing is to be exported. Looks
    at the disk, so not on a running loop. Raises `ConfigError` when a store was asked for and cannot be
    had.
    """
    if not keeps_spans(configuration.settings, by_default=by_default):
        return None
    path = store_file(configuration, environ)
    reason = _obstacle(path)
    if reason is None:
        return path
    _tell(configuration, f"{str(path)!r}: {reason}")
    return None


def keeps_spans(settings: Settings, *, by_default: bool) -> bool:
    """Whether there is to be a store."""
    # Who wants nothing exported does not want to pay for a store either, unless it is asked for.
    wanted = by_default and "none" not in settings.export.exporters
    return wanted if settings.store.enabled is None else settings.store.enabled


@asynccontextmanager
async def open_store(
    configuration: Configuration, environ: Mapping[str, str], *, by_default: bool
) -> AsyncIterator[TraceStore | None]:
    """The trace store, open, None where there is none; closed on exit. As `store_path` says."""
    path = await asyncio.to_thread(store_path, configuration, environ, by_default=by_default)
    store = None
    if path is not None:
        # In a thread: it imports much.
        store = await asyncio.to_thread(_make, path, configuration)
        try:
            await store.open()
        except StoreError as error:
            await _close(store, configuration)
            store = None
            _tell(configuration, str(error))
    try:
        yield store
    finally:
        if store is not None:
            await _close(store, configuration)


def store_file(configuration: Configuration, environ: Mapping[str, str]) -> Path:
    """The file that the settings name, whether it is used or not."""
    named = configuration.settings.store.path
    return Path(named).expanduser() if named else state_folder(configuration.settings, environ) / FILE


def _make(path: Path, configuration: Configuration) -> TraceStore:
    from mapek_runtime.store import TraceStore

    settings = configuration.settings.store
    return TraceStore(path, max_age=settings.max_age, max_bytes=settings.max_bytes)


async def _close(store: TraceStore, configuration: Configuration) -> None:
    # The processor in front of it has closed it already, when all went well, and has had its time when
    # another program held the file; this is for the rest.
    with anyio.move_on_after(min(_REST, configuration.settings.export.shutdown), shield=True):
        await store.aclose()


def _tell(configuration: Configuration, reason: str) -> None:
    """Stop the start for a store that was asked for, else warn."""
    store = configuration.settings.store
    if store.enabled or store.path:
        path = "store.path" if store.path else "store.enabled"
        raise ConfigError(
            f"{configuration.origin(path)}: there is to be a trace store in {reason}; set store.path to a "
            "file that this user may write, or store.enabled to false"
        )
    logger.warning("spans are not kept: %s; set store.path, or store.enabled to false", reason)


def _obstacle(path: Path) -> str | None:
    """Why there can be no store there; None when there can."""
    try:
        if path.is_dir():
            return "it is a folder"
        if path.exists():
            return None if os.access(path, os.R_OK | os.W_OK) else "it cannot be written by this user"
    except OSError as error:
        return error.strerror or type(error).__name__
    return obstacle(path.parent)
