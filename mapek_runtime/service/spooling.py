"""Whether spans wait on disk while a collector is away, where, and for which exporters.

A run of the service spools unless it is told not to, a library only when it is told to. Only what was
asked for can stop the start: a folder that nobody named and that cannot be written costs a warning.
"""

from __future__ import annotations

import inspect
import logging
import os
import re
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mapek_runtime.config import Configuration
from mapek_runtime.errors import ConfigError
from mapek_runtime.export.spool import SpooledExporter

from .state import state_folder

__all__ = ["obstacle", "spool_folder", "with_spools"]

logger = logging.getLogger(__name__)


def spool_folder(
    configuration: Configuration, environ: Mapping[str, str], *, by_default: bool
) -> Path | None:
    """The folder of the spool, None where there is none; made by whoever writes first.

    `by_default` says what `spool.enabled` means where it is unset. Looks at the disk, so not on a
    running loop. Raises `ConfigError` when a spool was asked for and cannot be had.
    """
    settings, spool = configuration.settings, configuration.settings.spool
    if not (by_default if spool.enabled is None else spool.enabled):
        return None
    named = Path(spool.directory).expanduser() if spool.directory else None
    folder = named or state_folder(settings, environ) / "spool"
    reason = obstacle(folder)
    if reason is None:
        return folder
    if spool.enabled or named is not None:
        path = "spool.directory" if named is not None else "spool.enabled"
        raise ConfigError(
            f"{configuration.origin(path)}: there is to be a spool in {str(folder)!r}: {reason}; set "
            "spool.directory to a folder that this user may write, or spool.enabled to false"
        )
    logger.warning(
        "spans do not wait on disk while a collector is away: %r: %s; set spool.directory, or spool.enabled "
        "to false",
        str(folder),
        reason,
    )
    return None


def with_spools(
    exporters: Iterable[Any], configuration: Configuration, environ: Mapping[str, str], *, by_default: bool
) -> tuple[Any, ...]:
    """The exporters, those that can have a spool with one in a folder of its own; as `spool_folder` says."""
    exporters = tuple(exporters)
    if not any(map(_can_spool, exporters)):
        return exporters
    folder = spool_folder(configuration, environ, by_default=by_default)
    if folder is None:
        return exporters
    settings = configuration.settings.spool
    return tuple(
        SpooledExporter(
            exporter,
            folder / _name(exporter),
            max_bytes=settings.max_bytes,
            max_age=settings.max_age,
            fsync=settings.fsync,
            rate=settings.rate,
        )
        if _can_spool(exporter)
        else exporter
        for exporter in exporters
    )


def _can_spool(exporter: Any) -> bool:
    return inspect.iscoroutinefunction(getattr(exporter, "send", None))


def _name(exporter: Any) -> str:
    """The folder of an exporter: named for where it sends, so that no other collector gets what waits."""
    address = str(exporter.endpoint)
    # Readable, and told apart by the number where two addresses differ in signs only.
    readable = re.sub(r"[^A-Za-z0-9.]+", "-", address).strip("-.")[:60]
    return f"{readable}-{zlib.crc32(f'{type(exporter).__name__} {address}'.encode()):08x}"


def obstacle(folder: Path) -> str | None:
    """Why nothing can be written there; None when it can, or when the folder can be made."""
    try:
        # Nothing is made here: `mapek check` only looks.
        there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        if not there.is_dir():
            return f"{str(there)!r} is a file" if there != folder else "it is a file"
    except OSError as error:
        return error.strerror or type(error).__name__
    if not os.access(there, os.W_OK | os.X_OK):
        return f"{str(there)!r} cannot be written by this user"
    return None
