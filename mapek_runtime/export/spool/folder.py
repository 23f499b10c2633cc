"""A folder of the spool's directory: it belongs to one living process, which holds its lock.

Several processes may be given one directory. Each has a folder of its own in it, under `flock`: the
system lets go of the lock however the process ends, and the next one to look takes the folder over,
exactly one of them. Nobody ever waits for a lock. Knows nothing of what the folders hold.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from importlib.util import find_spec
from pathlib import Path

from mapek_runtime.errors import SpoolError

__all__ = ["Folder", "claim", "folders", "take"]

SUFFIX = ".spool"
LOCK = "lock"
ATTEMPTS = 20
"""How often a new folder may be taken away by somebody who tidies up, before it was locked."""


class Folder:
    """A folder whose lock is held."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._fd: int | None = fd

    def release(self) -> None:
        """Let go of the lock; what is in the folder stays for whoever takes it next.

        In the child of a fork this leaves the parent's lock alone: it is closed, never unlocked.
        """
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def remove(self) -> None:
        """Remove the folder, unless something is left in it, and let go of the lock."""
        try:
            if all(path.name == LOCK for path in self.path.iterdir()):
                (self.path / LOCK).unlink(missing_ok=True)
                self.path.rmdir()
        except FileNotFoundError:
            pass
        except OSError as error:
            # Something was put there just now; it is left where it is.
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                raise
        finally:
            self.release()

    def touch(self) -> None:
        """Say that the lock is in use, to what tidies old files away."""
        if self._fd is not None:
            os.utime(self._fd)

    def sync(self) -> None:
        """Wait until the names in the folder are on the disk."""
        _sync_names(self.path)


def claim(directory: Path, *, sync: bool) -> Folder:
    """A new folder in `directory`, which is made if there is none, with its lock held."""
    if find_spec("fcntl") is None:
        raise SpoolError(f"{directory}: the spool needs flock, which this system has not; switch it off")
    made = [path for path in (directory, *directory.parents) if not path.exists()]
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if sync:
        for path in made:
            _sync_names(path.parent)
    for _ in range(ATTEMPTS):
        path = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", suffix=SUFFIX, dir=directory))
        try:
            folder = take(path)
        except BaseException:
            (path / LOCK).unlink(missing_ok=True)
            path.rmdir()
            raise
        if folder is not None:
            if sync:
                _sync_names(directory)
            return folder
    raise SpoolError(f"{directory}: new folders are taken away at once; only spools may use this directory")


def folders(directory: Path) -> list[Path]:
    """The folders of all processes, living or not, oldest first.

    Those of another user are not named: what they hold would be sent in our name.
    """
    found: list[tuple[int, Path]] = []
    for path in directory.iterdir():
        if path.suffix == SUFFIX:
            try:
                seen = path.lstat()
            except FileNotFoundError:
                continue
            if stat.S_ISDIR(seen.st_mode) and seen.st_uid == os.geteuid():
                found.append((seen.st_mtime_ns, path))
    return [path for _, path in sorted(found)]


def take(path: Path) -> Folder | None:
    """The folder with its lock held; None when another process holds it or has removed it."""
    lock = path / LOCK
    try:
        fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except FileNotFoundError:
        return None
    try:
        # Whoever held it before may have removed the file between the opening and the locking.
        held = _lock(fd, path) and os.path.samestat(os.fstat(fd), lock.stat())
    except FileNotFoundError:
        held = False
    except BaseException:
        os.close(fd)
        raise
    if held:
        return Folder(path, fd)
    os.close(fd)
    return None


def _lock(fd: int, path: Path) -> bool:
    import fcntl  # not there on Windows, where `claim` has said so

    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise SpoolError(
            f"{path}: no lock to be had ({error.strerror}); the spool needs a directory on a local disk"
        ) from error
    return True


def _sync_names(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
