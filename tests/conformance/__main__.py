"""Runs upstream's tests by hand: `python -m tests.conformance [--stock] SUITE [TEST ...] [-- PYTEST ...]`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.conformance.run import SUITES, process


def main(words: list[str]) -> int:
    """Show what pytest shows; gives its exit code."""
    options: list[str] = []
    if "--" in words:
        options = words[words.index("--") + 1 :]
        words = words[: words.index("--")]
    parser = argparse.ArgumentParser(prog="python -m tests.conformance")
    parser.add_argument("--stock", action="store_true", help="on the stock SDK's classes")
    parser.add_argument("suite", choices=SUITES)
    parser.add_argument("tests", nargs="*", help="files or tests, as the suite names them")
    given = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as folder:
        subject = "stock" if given.stock else "ours"
        done = process(SUITES[given.suite], Path(folder), subject, [*given.tests, *options], shown=True)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
