"""What every test has: asyncio, and an alarm for whatever blocks the loop."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from blockbuster import blockbuster_ctx


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "blocking: the test may block the loop")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def blocking_is_an_error(request: pytest.FixtureRequest) -> Iterator[None]:
    """A blocking call of ours on the loop's thread fails the test.

    Not in tests/integration, which start processes, and not in a test marked `blocking`.
    """
    if "integration" in request.path.parts or request.node.get_closest_marker("blocking"):
        yield
        return
    with blockbuster_ctx(["mapek_runtime", "mapek_domains"]):
        yield
