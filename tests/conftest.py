"""What every test has: asyncio, and an alarm for whatever blocks the loop."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from blockbuster import blockbuster_ctx
from hypothesis import settings
from opentelemetry import trace

from mapek_runtime.export.encode import salvage
from mapek_runtime.export.otlp import http_answer, options

# How long an example takes says more about the machine than about the code.
settings.register_profile("without deadline", deadline=None)
settings.load_profile("without deadline")


def eager_loop() -> asyncio.AbstractEventLoop:
    """A loop whose tasks take their first step at once, in `create_task`."""
    loop = asyncio.new_event_loop()
    if sys.version_info >= (3, 12):
        loop.set_task_factory(asyncio.eager_task_factory)
    return loop


EVERY_LOOP: dict[str, tuple[str, dict[str, Any]]] = {
    "asyncio": ("asyncio", {"use_uvloop": False}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
}
if sys.version_info >= (3, 12):
    EVERY_LOOP["eager"] = ("asyncio", {"loop_factory": eager_loop})


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "blocking: the test may block the loop")
    config.addinivalue_line(
        "markers", "every_loop: on asyncio, on uvloop, and on eager tasks where Python has them"
    )


def pytest_collection_finish() -> None:
    """Keep what thousands of collected tests are made of out of each `gc.collect()` of a test."""
    gc.collect()
    gc.freeze()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marked = metafunc.definition.get_closest_marker("every_loop")
    if marked and "anyio_backend" in metafunc.fixturenames:
        # `eager=False` is for what says that a task has not begun.
        kinds = [kind for kind in EVERY_LOOP if kind != "eager" or marked.kwargs.get("eager", True)]
        metafunc.parametrize("anyio_backend", [EVERY_LOOP[kind] for kind in kinds], ids=kinds)


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
def no_warning_was_just_given() -> None:
    """What warns at most every ten seconds in a process does so in each test."""
    for module in (salvage, http_answer, options):
        module._notices._last.clear()


@pytest.fixture(autouse=True, scope="module")
def garbage_is_collected_where_it_was_made() -> Iterator[None]:
    """A warning of what a file has left behind fails a test of that file, and not one of another."""
    yield
    gc.collect()


@pytest.fixture(autouse=True)
def the_global_provider_is_put_back() -> Iterator[None]:
    """OpenTelemetry lets its global provider be set once; a test that sets it must not do so for all."""
    provider, done = trace._TRACER_PROVIDER, trace._TRACER_PROVIDER_SET_ONCE._done
    yield
    trace._TRACER_PROVIDER, trace._TRACER_PROVIDER_SET_ONCE._done = provider, done
