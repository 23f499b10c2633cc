"""A folder belongs to one at a time, and to nobody who took it while it went away."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from mapek_runtime.errors import SpoolError
from mapek_runtime.export.spool.folder import claim, folders, take


def test_a_folder_is_taken_by_one_at_a_time(tmp_path: Path) -> None:
    mine = claim(tmp_path / "new" / "spool", sync=True)

    assert folders(tmp_path / "new" / "spool") == [mine.path]
    assert take(mine.path) is None
    mine.release()
    theirs = take(mine.path)
    assert theirs is not None
    assert take(mine.path) is None
    theirs.remove()
    assert folders(tmp_path / "new" / "spool") == []


def test_a_folder_that_holds_something_is_not_removed(tmp_path: Path) -> None:
    folder = claim(tmp_path, sync=False)
    (folder.path / "a.seg").write_text("batches")

    folder.remove()

    again = take(folder.path)
    assert again is not None
    again.release()


@pytest.mark.parametrize("replaced", [False, True], ids=["removed", "replaced"])
def test_a_lock_that_went_away_before_it_was_locked_is_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replaced: bool
) -> None:
    folder = claim(tmp_path, sync=False)
    folder.release()
    lock = folder.path / "lock"
    flock = fcntl.flock

    def somebody_was_faster(fd: int, operation: int) -> None:
        lock.unlink()
        if replaced:
            (tmp_path / "new lock").write_text("")
            (tmp_path / "new lock").rename(lock)
        flock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", somebody_was_faster)

    assert take(folder.path) is None


def test_a_new_folder_that_is_tidied_away_at_once_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []
    real = os.open

    def tidy(path: Path, flags: int, mode: int = 0o777) -> int:
        if path.name == "lock":
            opened.append(path)
            if len(opened) < 3:
                path.parent.rmdir()
        return real(path, flags, mode)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", tidy)
        folder = claim(tmp_path, sync=False)

    assert len(opened) == 3
    assert folder.path.is_dir()
    folder.remove()


def test_a_disk_without_locks_is_told_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_fd: int, _operation: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)

    with pytest.raises(SpoolError, match=r"No locks available.*needs a directory on a local disk"):
        claim(tmp_path / "spool", sync=False)
    assert list((tmp_path / "spool").iterdir()) == []


def test_a_lock_in_use_does_not_look_old(tmp_path: Path) -> None:
    folder = claim(tmp_path, sync=False)
    lock = folder.path / "lock"
    os.utime(lock, (1, 1))

    folder.touch()

    assert lock.stat().st_mtime > 1_000_000
    folder.remove()
