"""The model on disk: it comes back as it was, and a file that is something else is set aside."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from mapek_domains.fl.keep import load, path_of, save
from mapek_domains.fl.wire import MOST, Version

LIKE = (np.zeros((2, 2), np.float32), np.zeros(2, np.float32))
WEIGHTS = (np.array([[1, 2], [3, 4]], np.float32), np.array([5, 6], np.float32))
VERSION = Version(12, "node-1")


def test_what_was_kept_comes_back(tmp_path: Path) -> None:
    path = path_of(tmp_path, "node-1")

    save(path, Version(11, "node-2"), "k", LIKE)
    save(path, VERSION, "k", WEIGHTS)
    kept = load(path, "k", LIKE)

    assert kept is not None
    assert kept[0] == VERSION
    assert all(np.array_equal(a, b) for a, b in zip(kept[1], WEIGHTS, strict=True))
    assert [each.name for each in path.parent.iterdir()] == ["node-1.model"]


def test_where_nothing_was_kept_there_is_nothing(tmp_path: Path) -> None:
    assert load(path_of(tmp_path, "node-1"), "k", LIKE) is None


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/b", "..", ".", "", "node 1", "\x00", "ünode"])
def test_any_name_stays_in_the_folder(tmp_path: Path, name: str) -> None:
    path = path_of(tmp_path, name)

    save(path, VERSION, "k", WEIGHTS)

    assert path.parent == tmp_path / "fl"
    assert load(path, "k", LIKE) is not None


def broken(content: bytes, how: str) -> bytes:
    match how:
        case "cut":
            return content[:-1]
        case "one bit":
            return content[:40] + bytes([content[40] ^ 1]) + content[41:]
        case "empty":
            return b""
        case "newer":
            return b"MKFL\x02" + content[5:]
        case "pickle":
            return pickle.dumps(WEIGHTS)
        case "huge":
            return bytes(MOST + 1000)
    raise AssertionError(how)


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("cut", "digest"),
        ("one bit", "digest"),
        ("empty", "not_ours"),
        ("newer", "not_ours"),
        ("pickle", "not_ours"),
        ("huge", "too_long"),
    ],
)
def test_a_file_that_is_broken_is_set_aside(tmp_path: Path, how: str, reason: str) -> None:
    path = path_of(tmp_path, "node-1")
    save(path, VERSION, "k", WEIGHTS)
    content = broken(path.read_bytes(), how)
    path.write_bytes(content)
    told: list[str] = []

    assert load(path, "k", LIKE, on_broken=told.append) is None
    assert told == [reason]
    assert not path.exists()
    assert path.with_name("node-1.model.broken").read_bytes() == content


@pytest.mark.parametrize(
    ("kind", "weights", "reason"),
    [
        ("other", WEIGHTS, "kind"),
        ("k", WEIGHTS[:1], "shape"),
        ("k", (WEIGHTS[0], np.array([np.nan, 0], np.float32)), "not_finite"),
    ],
)
def test_a_model_of_something_else_is_set_aside(
    tmp_path: Path,
    kind: str,
    weights: tuple[np.ndarray[tuple[int, ...], np.dtype[np.float32]], ...],
    reason: str,
) -> None:
    path, told = path_of(tmp_path, "node-1"), list[str]()
    save(path, VERSION, kind, weights)

    assert load(path, "k", LIKE, on_broken=told.append) is None
    assert told == [reason]


def test_where_the_disk_refuses_what_was_kept_before_is_still_there(tmp_path: Path) -> None:
    path = path_of(tmp_path, "node-1")
    save(path, VERSION, "k", WEIGHTS)
    (tmp_path / "fl" / f".node-1.model.{os.getpid()}").mkdir()

    with pytest.raises(OSError, match="directory"):
        save(path, Version(13, "node-1"), "k", LIKE)

    kept = load(path, "k", LIKE)
    assert kept is not None
    assert kept[0] == VERSION
