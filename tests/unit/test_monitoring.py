"""The names of the tracing guide: set-up, getters and the manager."""

from __future__ import annotations

import asyncio
import copy
import logging
import os
from collections.abc import Iterator
from importlib.metadata import EntryPoint

import pytest
from opentelemetry import trace as api
from opentelemetry.sdk.resources import SERVICE_NAME
from opentelemetry.trace import StatusCode
from opentelemetry.util._once import Once

from mapek_runtime import TracerProvider, monitoring
from mapek_runtime.errors import ConfigError, PluginError, PluginNotFound
from mapek_runtime.loop.spans import monitor_phase
from mapek_runtime.monitoring import (
    get_mapek_spans,
    get_network_spans,
    get_tracer_manager,
    initialize_tracing,
)
from mapek_runtime.service import discovery
from mapek_runtime.testing import Recorder, tree
from mapek_runtime.trace import active_provider

GETTERS = [name for name in monitoring.__all__ if name.endswith("_spans")]


@pytest.fixture
def untouched(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process in which nobody has set tracing up."""
    for name in os.environ:
        if name.startswith(("OTEL_", "MAPEK_", "JAEGER_")):
            monkeypatch.delenv(name)
    monkeypatch.setattr(monitoring, "_service", None)
    monkeypatch.setattr(api, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(api, "_TRACER_PROVIDER_SET_ONCE", Once())
    yield
    provider = api._TRACER_PROVIDER
    if isinstance(provider, TracerProvider):
        provider.shutdown()


def service() -> object:
    provider = active_provider()
    assert isinstance(provider, TracerProvider)
    return provider.resource.attributes[SERVICE_NAME]


# Setting up


@pytest.mark.usefixtures("untouched")
def test_one_call_without_a_loop_makes_every_getter_live() -> None:
    with get_network_spans().node_discovery("node-1") as before:
        assert not before.is_recording()

    initialize_tracing(service_name="shop")

    with get_network_spans().node_discovery("node-1") as after:
        assert after.is_recording()
    with get_mapek_spans().monitor_phase("node-1") as after:
        assert after.is_recording()
    with get_tracer_manager().span("anything") as after:
        assert after.is_recording()
    assert service() == "shop"


@pytest.mark.blocking
@pytest.mark.usefixtures("untouched")
async def test_it_works_on_a_running_loop() -> None:
    initialize_tracing()

    async with get_network_spans().node_discovery("node-1") as span:
        assert span.is_recording()
    provider = active_provider()
    assert isinstance(provider, TracerProvider)
    assert await provider.ashutdown(5)


@pytest.mark.parametrize(
    ("given", "variable", "name"),
    [
        (None, None, "x0tta6bl4"),
        (None, "shop", "shop"),
        ("x0tta6bl4", "shop", "shop"),
        ("till", "shop", "till"),
    ],
    ids=["default", "variable", "variable over the default's name", "argument over variable"],
)
@pytest.mark.usefixtures("untouched")
def test_the_service_name(
    given: str | None, variable: str | None, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if variable is not None:
        monkeypatch.setenv("OTEL_SERVICE_NAME", variable)

    initialize_tracing(*(() if given is None else (given,)))

    assert service() == name


@pytest.mark.usefixtures("untouched")
def test_a_second_call_is_told_and_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    manager = initialize_tracing("first")
    provider = active_provider()
    caplog.clear()

    assert initialize_tracing("second") is manager

    assert active_provider() is provider
    assert service() == "first"
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "'second'" in record.message
    assert "initialized already, as service 'first'; this call changes nothing" in record.message


@pytest.mark.usefixtures("untouched")
def test_a_provider_that_was_set_before_stays(caplog: pytest.LogCaptureFixture) -> None:
    with Recorder() as recorder:
        initialize_tracing("shop")
        with get_network_spans().node_discovery("node-1"):
            pass

    assert recorder.tree() == tree("mesh.node_discovery")
    assert "was set up before" in caplog.text


@pytest.mark.usefixtures("untouched")
def test_the_old_variables_are_said_to_be_deprecated_and_are_left_as_they_are(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_ENABLED", "false")
    before = dict(os.environ)

    initialize_tracing()

    with get_network_spans().node_discovery("node-1") as span:
        assert not span.is_recording()
    assert [record.message for record in caplog.records] == [
        "OTEL_ENABLED=false is deprecated and read as OTEL_SDK_DISABLED=true; set that instead"
    ]
    assert dict(os.environ) == before


@pytest.mark.usefixtures("untouched")
def test_a_wrong_setting_stops_the_start_and_the_next_call_may_succeed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MAPEK_EXPORT_QUEUE_SIZE", "many")
    with pytest.raises(ConfigError, match="MAPEK_EXPORT_QUEUE_SIZE is 'many'"):
        initialize_tracing("shop")
    assert active_provider() is None

    monkeypatch.delenv("MAPEK_EXPORT_QUEUE_SIZE")
    initialize_tracing("shop")

    assert service() == "shop"


@pytest.mark.usefixtures("untouched")
def test_something_that_is_no_application_changes_nothing() -> None:
    with pytest.raises(TypeError, match=r"app is 'app'; it must be an aiohttp\.web\.Application"):
        initialize_tracing("shop", app="app")

    assert active_provider() is None


# The getters


@pytest.mark.parametrize("name", GETTERS)
def test_a_getter_gives_the_same_object_which_lists_what_it_has(name: str) -> None:
    getter = getattr(monitoring, name)

    spans = getter()

    assert getter() is spans
    assert dir(spans)
    assert all(callable(getattr(spans, method)) for method in dir(spans))
    assert all(method in repr(spans) for method in dir(spans))


def test_there_are_ten_getters_of_spans() -> None:
    assert len(GETTERS) == 10


def test_a_getter_gives_the_declaration_itself() -> None:
    assert get_mapek_spans().monitor_phase is monitor_phase


def test_a_name_that_is_not_declared_is_answered_with_those_that_are() -> None:
    with pytest.raises(AttributeError) as raised:
        _ = get_network_spans().node_discover

    assert str(raised.value) == (
        "the spans of 'mesh' have no 'node_discover'; did you mean 'node_discovery'? there are "
        "message_forwarding, node_discovery, route_calculation"
    )


def test_what_a_getter_gives_can_be_copied() -> None:
    spans = get_network_spans()

    assert copy.copy(spans).node_discovery is spans.node_discovery


def test_a_wrong_argument_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="discovered"):
        get_network_spans().node_discovery("node-1", discovered=5)


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, EntryPoint]]:
    """The entry points as the test says, found anew."""
    points: dict[str, EntryPoint] = {}
    monkeypatch.setattr(
        discovery, "entry_points", lambda group: [point for point in points.values() if point.group == group]
    )
    monitoring._spans_of.cache_clear()
    yield points
    monitoring._spans_of.cache_clear()


@pytest.mark.usefixtures("nothing_installed")
def test_a_component_that_is_not_installed_is_said_to_be_missing() -> None:
    with pytest.raises(
        PluginNotFound, match=r"no installed package declares the spans of 'mesh'.*mapek\.spans"
    ):
        get_network_spans()


@pytest.mark.usefixtures("nothing_installed")
def test_the_loops_own_spans_need_no_entry_point() -> None:
    assert get_mapek_spans().monitor_phase is monitor_phase


def test_a_component_that_cannot_be_imported_is_said_to_be_broken(
    nothing_installed: dict[str, EntryPoint],
) -> None:
    nothing_installed["mesh"] = EntryPoint("mesh", "no_such_module.spans", "mapek.spans")

    with pytest.raises(PluginError, match="no_such_module"):
        get_network_spans()


# The manager


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    with Recorder() as recorder:
        yield recorder


def test_the_manager_opens_a_span_of_any_name_and_attributes(recorder: Recorder) -> None:
    manager = get_tracer_manager()
    given = {"key": "value", "count": 3, "nothing": None}

    with manager.span("outer", given) as span, manager.span("inner"):
        span.set_attribute("late", True)

    assert recorder.tree("key", "count", "late", "nothing") == tree("""
        outer key=value count=3 late=true
          inner
    """)
    assert given == {"key": "value", "count": 3, "nothing": None}


def test_a_span_of_the_manager_records_an_exception(recorder: Recorder) -> None:
    with pytest.raises(ValueError, match="broken"), get_tracer_manager().span("custom_operation"):
        raise ValueError("broken")

    span = recorder.one("custom_operation")
    assert span.status.status_code is StatusCode.ERROR
    assert [event.name for event in span.events] == ["exception"]


async def test_a_span_of_the_manager_serves_async_with_and_as_decorator(recorder: Recorder) -> None:
    @get_tracer_manager().span("decorated")
    async def work() -> None:
        async with get_tracer_manager().span("inside"):
            await asyncio.sleep(0)

    await asyncio.gather(work(), work())

    assert recorder.tree() == tree("""
        decorated
          inside
        decorated
          inside
    """)


def test_the_decorator_takes_the_functions_name_unless_it_is_given_one(recorder: Recorder) -> None:
    manager = get_tracer_manager()

    @manager.span_decorator()
    def named_after_itself() -> int:
        return 1

    @manager.span_decorator
    def without_brackets() -> int:
        return 2

    @manager.span_decorator("given", service="myservice", retries=3)
    def other() -> int:
        return 3

    assert (named_after_itself(), without_brackets(), other()) == (1, 2, 3)
    assert recorder.tree("service", "retries") == tree("""
        named_after_itself
        without_brackets
        given service=myservice retries=3
    """)


async def test_a_decorated_coroutine_function_is_covered_while_it_waits(recorder: Recorder) -> None:
    @get_tracer_manager().span_decorator("waiting")
    async def wait() -> str:
        await asyncio.sleep(0)
        with get_mapek_spans().monitor_phase("node-1"):
            await asyncio.sleep(0)
        raise ValueError("late")

    with pytest.raises(ValueError, match="late"):
        await wait()

    assert recorder.tree("@status") == tree("""
        waiting @status=error
          mape_k.monitor @status=unset
    """)


@pytest.mark.usefixtures("untouched")
def test_the_manager_works_before_anything_is_set_up() -> None:
    manager = get_tracer_manager()

    @manager.span_decorator()
    def work() -> int:
        with manager.span("custom_operation", {"key": "value"}) as span:
            assert not span.is_recording()
        return 1

    assert work() == 1
    initialize_tracing()
    with manager.span("custom_operation") as span:
        assert span.is_recording()
