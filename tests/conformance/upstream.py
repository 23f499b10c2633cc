"""Upstream's tests: fetched once through pip, checked at each use, unpacked for each run.

pip is asked, so that its own configuration says which index is used. What it gave is kept in the
user's cache folder with its checksum.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

__all__ = ["Unavailable", "installed", "provide_requirements", "unpack_tests"]

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
FETCH_LIMIT = 300.0
"""Seconds that one call of pip may take."""


class Unavailable(Exception):
    """Upstream's tests cannot be had here; the message says why."""


def cache_folder() -> Path:
    """Where the source distributions and their requirements are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "mapek-runtime" / "upstream"


def installed(distribution: str) -> str:
    """The version installed; raises Unavailable when there is none."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        raise Unavailable(f"{distribution} is not installed; it comes with the extra `test`") from None


def provide_requirements() -> Path:
    """A folder with the packages that upstream's tests import, for `PYTHONPATH`."""
    # The two are released together: the test utilities of an SDK carry the number of its conventions.
    utilities = f"opentelemetry-test-utils=={installed('opentelemetry-semantic-conventions')}"
    wanted = f"{REQUIREMENTS.read_text()}\n{utilities}\n{sys.version_info[:2]}"
    folder = cache_folder() / f"requirements-{hashlib.sha256(wanted.encode()).hexdigest()[:16]}"
    if not folder.is_dir():
        with _staging() as staging:
            target = Path(staging) / "packages"
            _pip("install", "--no-deps", "--target", str(target), "-r", str(REQUIREMENTS), utilities)
            _settle(target, folder)
    return folder


def unpack_tests(distribution: str, into: Path) -> Path:
    """Unpack the tests of the installed version of `distribution`; the folder that holds `tests`."""
    archive = _archive(distribution, installed(distribution))
    with tarfile.open(archive) as source:
        members = [member for member in source if member.name.split("/")[1:2] == ["tests"]]
        if not members:
            raise Unavailable(f"{archive.name} holds no tests")
        if hasattr(tarfile, "data_filter"):
            source.extraction_filter = tarfile.data_filter  # older Pythons (3.11.3) know no filters
        source.extractall(into, members)
    return into / members[0].name.split("/")[0]


def _archive(distribution: str, number: str) -> Path:
    folder = cache_folder() / f"{distribution}-{number}"
    if not _is_whole(folder):
        shutil.rmtree(folder, ignore_errors=True)
        with _staging() as staging:
            target = Path(staging) / "archive"
            # pip compares what it downloads with the index's checksum; ours guards what is kept.
            _pip(
                "download", "--no-deps", "--no-binary", ":all:", "--no-build-isolation",
                "--dest", str(target), f"{distribution}=={number}",
                path=provide_requirements(),
            )  # fmt: skip
            (archive,) = target.glob("*.tar.gz")
            (target / "SHA256SUMS").write_text(f"{_sum(archive)}  {archive.name}\n")
            _settle(target, folder)
    return next(folder.glob("*.tar.gz"))


def _is_whole(folder: Path) -> bool:
    try:
        checksum, name = (folder / "SHA256SUMS").read_text().split()
        return _sum(folder / name) == checksum
    except (OSError, ValueError):
        return False


def _sum(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _staging() -> tempfile.TemporaryDirectory[str]:
    # Beside what is kept, so that it appears there in one step and whole.
    try:
        cache_folder().mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Unavailable(f"no cache folder: {error}") from None
    return tempfile.TemporaryDirectory(dir=cache_folder(), prefix=".fetching-")


def _settle(staged: Path, folder: Path) -> None:
    try:
        staged.rename(folder)
    except OSError:
        # Another run was faster; what it brought is as good.
        if not folder.is_dir():
            raise


def _pip(command: str, *arguments: str, path: Path | None = None) -> None:
    if find_spec("pip") is None:
        raise Unavailable("pip, which fetches upstream's source distributions, is not installed")
    environment = dict(os.environ)
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pip", command, "--quiet", "--retries", "1", *arguments],
            env=environment, capture_output=True, text=True, timeout=FETCH_LIMIT, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Unavailable(f"pip {command} did not end within {FETCH_LIMIT:g} s") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise Unavailable(f"pip {command} failed: {lines[-1] if lines else done.stderr[-300:]}")
