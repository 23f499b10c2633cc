"""Which of upstream's tests ours does not pass, and why: `expected.toml`, read."""

from __future__ import annotations

import tomllib
from pathlib import Path

__all__ = ["deviations"]


def deviations(suite: str) -> dict[str, str]:
    """The reason, by test."""
    listed = tomllib.loads(Path(__file__).with_name("expected.toml").read_text())
    return {
        test: entry["reason"]
        for entry in listed["deviation"]
        if entry["suite"] == suite
        for test in entry["tests"]
    }
