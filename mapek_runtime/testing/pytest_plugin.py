"""The pytest plugin: fixtures `recorder` and `autojump`, and a readable difference of two trees.

Installed with the package it is found by its entry point; from a checkout a `conftest.py` imports
the names. `autojump` is asynchronous, so the test needs anyio's plugin (or one of its kind).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from .clock import AutojumpClock
from .recorder import Recorder
from .tree import Tree

__all__ = ["autojump", "pytest_assertrepr_compare", "recorder"]


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    """Every span of the test."""
    with Recorder() as recording:
        yield recording


@pytest.fixture
async def autojump() -> AsyncIterator[AutojumpClock]:
    """The loop's time jumps whenever every task sleeps: an hour passes at once."""
    with AutojumpClock() as clock:
        yield clock


def pytest_assertrepr_compare(op: str, left: object, right: object) -> list[str] | None:
    """Say how two traces differ, line by line."""
    if op != "==" or not isinstance(left, Tree) or not isinstance(right, Tree):
        return None
    recorded, written = (right, left) if left.asked is None and right.asked is not None else (left, right)
    return ["the traces differ (- written, + recorded)", *recorded.difference(written)]
