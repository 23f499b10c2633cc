"""The signature is the schema."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NoOpTracerProvider, SpanKind, StatusCode

from mapek_runtime import Key, NodeId, SpanGroup, TracerProvider
from mapek_runtime.errors import SpanSpecError
from mapek_runtime.trace import use_provider

Round = Annotated[int, Key("round")]
group = SpanGroup("demo")


@group.span("training", constants={"phase": "local"}, derived={"pairs": lambda a: a["epochs"] * 2})
def local_training(node_id: NodeId, round_num: Round, epochs: int = 1, note: str | None = None) -> None:
    """A client trained."""


@group.span(elapsed="latency_ms")
def inference(model: str, latency_ms: float = 0, success: bool = True) -> None:
    """A model was asked."""


@group.span
def bare(name: str) -> None:
    """Named after the function."""


class Providers:
    """The same declarations under our provider and under the stock SDK's."""

    def __init__(self, provider: sdk.TracerProvider) -> None:
        self.exporter = InMemorySpanExporter()
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.provider = provider

    def one(self) -> sdk.ReadableSpan:
        (span,) = self.exporter.get_finished_spans()
        return span


@pytest.fixture(params=["ours", "stock"])
def under(request: pytest.FixtureRequest) -> Iterator[Providers]:
    kinds = {"ours": TracerProvider, "stock": sdk.TracerProvider}
    providers = Providers(kinds[request.param](shutdown_on_exit=False))
    with use_provider(providers.provider):
        yield providers


def test_arguments_become_attributes_under_their_keys(under: Providers) -> None:
    with local_training("node-1", 5, epochs=3):
        pass

    done = under.one()
    assert done.name == "demo.training"
    assert done.kind is SpanKind.INTERNAL
    assert dict(done.attributes or {}) == {
        "node_id": "node-1",
        "round": 5,
        "epochs": 3,
        "phase": "local",
        "pairs": 6,
    }


def test_a_default_is_recorded_and_none_is_not(under: Providers) -> None:
    with local_training("node-1", round_num=1):
        pass

    attributes = under.one().attributes or {}
    assert attributes["epochs"] == 1
    assert "note" not in attributes


def test_values_known_late_win(under: Providers) -> None:
    with local_training("node-1", 1) as span:
        span.set(epochs=7, round_num=2, note="late")

    attributes = under.one().attributes or {}
    assert (attributes["epochs"], attributes["round"], attributes["note"]) == (7, 2, "late")


def test_a_late_value_that_was_not_declared_is_a_type_error(under: Providers) -> None:
    with (
        pytest.raises(TypeError, match=r"declares no 'epoch'; it has node_id, round_num, epochs, note"),
        local_training("node-1", 1) as span,
    ):
        span.set(epoch=3)


def test_the_elapsed_time_is_filled_in_milliseconds_unless_it_was_given(under: Providers) -> None:
    with inference("graphsage"):
        pass
    with inference("graphsage", latency_ms=25.5):
        pass

    measured, given = under.exporter.get_finished_spans()
    value = (measured.attributes or {})["latency_ms"]
    assert isinstance(value, float)
    assert 0 < value < 1000
    assert (given.attributes or {})["latency_ms"] == 25.5


def test_an_integer_for_a_float_is_recorded_as_a_float(under: Providers) -> None:
    with inference("graphsage", latency_ms=25):
        pass

    value = (under.one().attributes or {})["latency_ms"]
    assert type(value) is float


@pytest.mark.parametrize("odd", [None, "n/a"])
def test_what_is_no_number_where_a_float_is_declared_does_not_stop_the_work(
    odd: Any, under: Providers
) -> None:
    with inference("graphsage", latency_ms=odd) as span:
        span.set(latency_ms=odd)
        span.set(success=True)

    recorded = under.one().attributes or {}
    assert recorded["success"] is True
    assert recorded["latency_ms"] == odd if odd else recorded.get("latency_ms") != odd


def test_an_exception_makes_success_false_and_is_raised(under: Providers) -> None:
    with pytest.raises(ValueError, match="bad"), inference("graphsage"):
        raise ValueError("bad")

    done = under.one()
    assert (done.attributes or {})["success"] is False
    assert done.status.status_code is StatusCode.ERROR
    assert [event.name for event in done.events] == ["exception"]


async def test_a_declared_span_decorates_coroutines_afresh_each_call(under: Providers) -> None:
    @bare("x")
    async def work() -> None:
        await asyncio.sleep(0)

    await asyncio.gather(work(), work(), work())

    spans = under.exporter.get_finished_spans()
    assert [span.name for span in spans] == ["demo.bare"] * 3
    assert len({span.context.span_id for span in spans if span.context}) == 3


def test_without_a_provider_the_block_runs_and_yields_something_to_set() -> None:
    with use_provider(NoOpTracerProvider()), local_training("node-1", 1) as span:
        span.set(epochs=3)
        span.set_attribute("a", 1)
        assert not span.is_recording()


@pytest.mark.parametrize(
    "call",
    [local_training, lambda: local_training("n", 1, epoch=2), lambda: bare("a", "b")],  # type: ignore[call-arg]
    ids=["missing", "misspelt", "too many"],
)
def test_a_wrong_argument_is_a_type_error_at_the_call(call: object) -> None:
    with pytest.raises(TypeError):
        call()  # type: ignore[operator]


def test_the_declaration_is_known_to_the_catalogue() -> None:
    spec = group.specs["local_training"]

    assert spec.name == "demo.training"
    assert spec.doc == "A client trained."
    assert spec.keys == {"node_id": "node_id", "round_num": "round", "epochs": "epochs", "note": "note"}


def test_a_declaration_without_annotations_is_refused() -> None:
    with pytest.raises(SpanSpecError, match=r"'source' has no annotation"):

        @group.span("x")
        def untyped(source) -> None:  # type: ignore[no-untyped-def]
            "No."


def test_two_parameters_of_one_key_are_refused() -> None:
    with pytest.raises(SpanSpecError, match=r"two parameters have the key 'round'"):

        @group.span("x")
        def doubled(a: Round, b: Round) -> None:
            "No."


def test_a_name_declared_twice_is_refused() -> None:
    with pytest.raises(SpanSpecError, match="declared twice"):

        @group.span("again")
        def bare(name: str) -> None:
            "No."


def test_a_span_of_another_provider_that_fails_does_not_stay_current() -> None:
    class Failing(sdk.SpanProcessor):
        def on_start(self, span: sdk.Span, parent_context: object = None) -> None:
            def fail(*_: object) -> None:
                raise OSError("the disk is full")

            setattr(span, "set_attribute", fail)  # noqa: B010 - to mypy a method

    provider = sdk.TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(Failing())
    with use_provider(provider):
        scope = inference("graphsage")
        with pytest.raises(OSError, match="full"), scope:
            assert trace.get_current_span().is_recording()

    assert trace.get_current_span() is trace.INVALID_SPAN
