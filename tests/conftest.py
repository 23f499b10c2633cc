"""What every test has: asyncio, and an alarm for whatever blocks the loop."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from blockbuster import blockbuster_ctx
from opentelemetry import trace


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


@pytest.fixture(autouse=True)
def the_global_provider_is_put_back() -> Iterator[None]:
    """OpenTelemetry lets its global provider be set once; a test that sets it must not do so for all."""
    provider, done = trace._TRACER_PROVIDER, trace._TRACER_PROVIDER_SET_ONCE._done
    yield
    trace._TRACER_PROVIDER, trace._TRACER_PROVIDER_SET_ONCE._done = provider, done
