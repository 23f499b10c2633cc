"""What all tests of replicas ask for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.raft.scenes import Scene, scene_of
from tests.unit.raft.simulation import world


@pytest.fixture
def scene() -> Iterator[Scene]:
    with world(1) as made:
        yield scene_of(made)
