"""The state folder: what is kept between runs, and the file by which an operator halts the loops."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

from mapek_runtime.config import Settings
from mapek_runtime.errors import ConfigError

__all__ = ["halt", "halt_file", "knowledge_file", "resume", "state_folder"]


def state_folder(settings: Settings, environ: Mapping[str, str]) -> Path:
    """Where state is kept: the setting, else `$XDG_STATE_HOME/mapek`, else `~/.local/state/mapek`."""
    if settings.state:
        return Path(settings.state).expanduser()
    base = environ.get("XDG_STATE_HOME", "")
    # The XDG specification: a relative path is invalid and counts as unset.
    root = Path(base) if base and Path(base).is_absolute() else Path.home() / ".local" / "state"
    return root / "mapek"


def halt_file(folder: Path) -> Path:
    """The file that halts every loop that uses this folder."""
    return folder / "halt"


def knowledge_file(folder: Path, node_id: str) -> Path:
    """Where the knowledge of a node is kept."""
    # A node's name is free text; its file must stay in the folder.
    name = "".join(c if c.isalnum() or c in "-_." else f"%{ord(c):02x}" for c in node_id)
    return folder / "knowledge" / f"{name.lstrip('.') or '%2e'}.sqlite"


def halt(folder: Path, reason: str) -> Path:
    """Halt: from the next cycle on no loop acts. Raises `ConfigError` when the file cannot be written."""
    path = halt_file(folder)
    new = path.with_name(f".halt.{os.getpid()}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # In one step: a loop must not read half a reason.
        new.write_text(f"{reason} (since {time.strftime('%Y-%m-%d %H:%M:%S %z')})\n", "utf-8")
        new.replace(path)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written: {error.strerror or error}; give a folder with --state"
        ) from None
    return path


def resume(folder: Path) -> bool:
    """Let the loops act again; False when they were not halted. Raises `ConfigError`."""
    path = halt_file(folder)
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise ConfigError(f"{path} cannot be removed: {error.strerror or error}") from None
    return True
