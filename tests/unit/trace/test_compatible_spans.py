"""A span, a tracer and a provider of ours do what the SDK's do, seen from outside."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry import baggage, propagate, trace
from opentelemetry import context as context_api
from opentelemetry.context.context import Context, _RuntimeContext
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.environment_variables import OTEL_EXPERIMENTAL_RESOURCE_DETECTORS
from opentelemetry.sdk.resources import OTELResourceDetector, Resource, get_aggregated_resources
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from mapek_runtime import TracerProvider
from tests.unit.trace.alike import Provider, make, same, seen, storage

OTHER = SpanContext(7, 8, is_remote=True, trace_flags=TraceFlags(1), trace_state=TraceState([("k", "v")]))

LIMITS = {
    "OTEL_ATTRIBUTE_COUNT_LIMIT": "max_attributes",
    "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "max_attribute_length",
    "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "max_span_attributes",
    "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT": "max_span_attribute_length",
    "OTEL_SPAN_EVENT_COUNT_LIMIT": "max_events",
    "OTEL_SPAN_LINK_COUNT_LIMIT": "max_links",
    "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT": "max_event_attributes",
    "OTEL_LINK_ATTRIBUTE_COUNT_LIMIT": "max_link_attributes",
}


def full_of_everything(kind: Provider, **options: Any) -> list[dict[str, Any]]:
    """A span with more of everything than a limit of 0, 1 or 2 lets through."""
    exporter = InMemorySpanExporter()
    tracer = make(kind, exporter, **options).get_tracer("tests")
    many: dict[str, Any] = {"a": "long text", "b": ["long", "texts"], "c": 3, "d": True, "e": "more"}
    with tracer.start_as_current_span("x", attributes=many, links=[Link(OTHER, many)] * 3) as span:
        span.set_attribute("f", "more text")
        span.set_attributes({"a": "changed", "g": (1.5, 2.5), "h": "8"})
        for name in ("one", "two", "three"):
            span.add_event(name, many)
        span.add_link(OTHER, many)
        span.add_link(SpanContext(0, 0, is_remote=False))
        span.record_exception(ValueError("no"), {"exception.message": "changed", "extra": 1})
    return [seen(span) for span in exporter.get_finished_spans()]


@pytest.mark.parametrize("value", ["0", "1", "2", "5", "", " 3 "])
@pytest.mark.parametrize("variable", LIMITS)
def test_a_limit_in_the_environment_cuts_alike(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)

    same(full_of_everything)


@pytest.mark.parametrize("value", [0, 1, 2, 5, sdk.SpanLimits.UNSET])
@pytest.mark.parametrize("argument", LIMITS.values())
def test_a_limit_given_as_an_argument_cuts_alike(argument: str, value: int) -> None:
    limits = sdk.SpanLimits(**{argument: value})

    (told,) = same(lambda kind: full_of_everything(kind, span_limits=limits))

    assert told["name"] == "x"


@pytest.mark.parametrize("value", ["-1", "many"])
def test_a_limit_that_is_no_number_is_refused_alike(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SPAN_EVENT_COUNT_LIMIT", value)

    for kind in (sdk.TracerProvider, TracerProvider):
        with pytest.raises(ValueError, match="OTEL_SPAN_EVENT_COUNT_LIMIT must be a non-negative integer"):
            kind(shutdown_on_exit=False)


# Spans


def everything_at_once(tracer: trace.Tracer) -> None:
    with tracer.start_as_current_span("x", kind=SpanKind.PRODUCER, start_time=5) as span:
        span.add_event("dated", {"a": [1, 2], "n": 1.5}, 6)
        span.record_exception(KeyError("k"), {"extra": True}, 7, escaped=True)
        span.set_status(Status(StatusCode.ERROR, "bad"))
        span.set_status(StatusCode.UNSET)
        span.set_status(StatusCode.ERROR, "worse")
        span.update_name("y")
        span.end(9)


def ok_is_final(tracer: trace.Tracer) -> None:
    with contextlib.suppress(ValueError), tracer.start_as_current_span("x") as span:
        span.set_status(StatusCode.OK, "described")
        raise ValueError("no")


def quiet_exception(tracer: trace.Tracer) -> None:
    for record in (True, False):
        for status in (True, False):
            with (
                pytest.raises(ValueError, match="no"),
                tracer.start_as_current_span("x", record_exception=record, set_status_on_exception=status),
            ):
                raise ValueError("no")


def through_two_blocks(tracer: trace.Tracer) -> None:
    with (
        pytest.raises(LookupError),
        tracer.start_as_current_span("outer"),
        tracer.start_as_current_span("inner"),
    ):
        raise KeyError("k") from ValueError("cause")


def kept_open(tracer: trace.Tracer) -> None:
    with tracer.start_as_current_span("x", end_on_exit=False) as span:
        pass
    span.set_attribute("still", span.is_recording())
    span.end()


def used_by_hand(tracer: trace.Tracer) -> None:
    span = tracer.start_span("x")
    with trace.use_span(span), tracer.start_span("inner") as inner:
        inner.set_attribute("current", trace.get_current_span() is span)
    with pytest.raises(ValueError, match="no"), trace.use_span(span, end_on_exit=True):
        raise ValueError("no")
    with pytest.raises(ValueError, match="no"), tracer.start_span("y", record_exception=False):
        raise ValueError("no")


def decorated(tracer: trace.Tracer) -> None:
    @tracer.start_as_current_span("call")
    def call(number: int) -> int:
        trace.get_current_span().set_attribute("number", number)
        return number

    assert [call(n) for n in (1, 2)] == [1, 2]


def parents_of_all_kinds(tracer: trace.Tracer) -> None:
    remote = trace.set_span_in_context(trace.NonRecordingSpan(OTHER))
    tracer.start_span("of a remote", remote).end()
    tracer.start_span("of nobody", Context()).end()
    tracer.start_span("of an invalid", trace.set_span_in_context(trace.INVALID_SPAN)).end()
    with tracer.start_as_current_span("current"):
        tracer.start_span("of the current").end()
        tracer.start_span("elsewhere", remote).end()
        token = context_api.attach(context_api.set_value("other", 1))
        tracer.start_span("behind a value").end()
        context_api.detach(token)
        with tracer.start_as_current_span("root again", Context()) as root:
            root.set_attribute("other", str(context_api.get_value("other")))


def links_of_all_kinds(tracer: trace.Tracer) -> None:
    invalid = SpanContext(0, 0, is_remote=False)
    stateful = SpanContext(0, 0, is_remote=False, trace_state=TraceState([("a", "b")]))
    links = [Link(OTHER), Link(invalid), Link(invalid, {"a": 1}), Link(stateful)]
    with tracer.start_as_current_span("x", links=links) as span:
        for link in links:
            span.add_link(link.context, link.attributes)
    tracer.start_span("none", links=None).end()
    tracer.start_span("empty", links=[]).end()


def values_of_all_kinds(tracer: trace.Tracer) -> None:
    values: dict[str, Any] = {
        "text": "é\u0000", "int": 2**62, "float": 1e300, "bool": False, "texts": ("a", "b"), "ints": [1, 2],
        "mixed types": [True, False], "empty": [], "": "no key",
    }  # fmt: skip
    with tracer.start_as_current_span("x", attributes=values) as span:
        for key, value in values.items():
            span.set_attribute(f"set {key}", value)
            span.add_event(key, {key: value})
        span.set_attributes(values)


def in_another_thread(tracer: trace.Tracer) -> None:
    with tracer.start_as_current_span("here"):
        inside = threading.Thread(target=lambda: tracer.start_span("there").end())
        inside.start()
        inside.join()


SCENES: list[Callable[[trace.Tracer], None]] = [
    everything_at_once, ok_is_final, quiet_exception, through_two_blocks, kept_open, used_by_hand, decorated,
    parents_of_all_kinds, links_of_all_kinds, values_of_all_kinds, in_another_thread,
]  # fmt: skip


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_spans_can_be_read_alike(scene: Callable[[trace.Tracer], None]) -> None:
    def scenario(kind: Provider) -> Any:
        exporter = InMemorySpanExporter()
        scene(make(kind, exporter).get_tracer("tests", "1", "https://schema", {"scope": "s"}))
        return [seen(span) for span in exporter.get_finished_spans()]

    assert same(scenario)


def test_a_span_is_what_others_check_for() -> None:
    def scenario(kind: Provider) -> Any:
        exporter = InMemorySpanExporter()
        provider = make(kind, exporter)
        tracer = provider.get_tracer("tests")
        span = tracer.start_span("x")
        span.end()
        (done,) = exporter.get_finished_spans()
        checks = (
            (provider, sdk.TracerProvider), (provider, trace.TracerProvider), (tracer, sdk.Tracer),
            (tracer, trace.Tracer), (span, sdk.Span), (span, sdk.ReadableSpan), (span, trace.Span),
            (done, sdk.ReadableSpan), (done.get_span_context(), SpanContext),
        )  # fmt: skip
        return (
            [isinstance(each, kind) for each, kind in checks],
            seen(done),
            sorted(name for name in dir(done) if not name.startswith("_") and name in dir(sdk.ReadableSpan)),
        )

    checks, _, names = same(scenario)

    assert all(checks)
    assert "to_json" in names


@pytest.mark.parametrize("generator", [None, RandomIdGenerator()], ids=["ours", "the SDK's"])
def test_ids_are_random_and_never_zero(generator: RandomIdGenerator | None) -> None:
    tracer = make(TracerProvider, id_generator=generator).get_tracer("tests")

    contexts = [tracer.start_span("x", Context()).get_span_context() for _ in range(100)]

    assert len({context.trace_id for context in contexts}) == 100
    assert len({context.span_id for context in contexts}) == 100
    assert all(context.is_valid and context.trace_flags == 3 for context in contexts)


def test_generators_whose_ids_are_not_random_do_not_set_the_flag() -> None:
    class Dated(RandomIdGenerator):
        def is_trace_id_random(self) -> bool:
            return False

    span = make(TracerProvider, id_generator=Dated()).get_tracer("tests").start_span("x")

    assert span.get_span_context().trace_flags == TraceFlags(1)


# Resources, tracers, storage


def test_resource_detectors_and_variables_reach_the_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "shop")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "rack=r7,service.name=not-this")
    monkeypatch.setenv(OTEL_EXPERIMENTAL_RESOURCE_DETECTORS, "process,otel")

    def scenario(kind: Provider) -> Any:
        told = []
        for resource in (None, get_aggregated_resources([OTELResourceDetector()]), Resource({"own": 1})):
            exporter = InMemorySpanExporter()
            make(kind, exporter, resource=resource).get_tracer("tests").start_span("x").end()
            told.append(dict(exporter.get_finished_spans()[0].resource.attributes))
        return [{k: v for k, v in each.items() if k != "service.instance.id"} for each in told]

    detected, aggregated, own = same(scenario)

    assert (detected["service.name"], detected["rack"], own) == ("shop", "r7", {"own": 1})
    assert "process.pid" in detected
    assert aggregated["service.name"] == "shop"


def test_a_resource_that_changes_reaches_the_tracers_that_there_are() -> None:
    def scenario(kind: Provider) -> Any:
        exporter = InMemorySpanExporter()
        provider = make(kind, exporter)
        tracer = provider.get_tracer("tests")
        provider._update_resource(Resource({"late": 1}))
        tracer.start_span("x").end()
        return seen(exporter.get_finished_spans()[0])["resource"], dict(provider.resource.attributes)

    told, _ = same(scenario)

    assert told["attributes"]["late"] == 1


def test_a_tracer_that_is_switched_off_hands_its_parent_down() -> None:
    def scenario(kind: Provider) -> Any:
        exporter = InMemorySpanExporter()
        off = ["library"]

        def configure(scope: InstrumentationScope) -> sdk._TracerConfig:
            return sdk._TracerConfig(is_enabled=scope.name not in off)

        provider = make(kind, exporter, _tracer_configurator=configure)
        app, library = provider.get_tracer("app"), provider.get_tracer("library")
        known = []
        remote = trace.set_span_in_context(trace.NonRecordingSpan(OTHER))
        for parent in (None, remote, Context()):
            with (
                app.start_as_current_span("outer", parent),
                library.start_as_current_span("silent") as silent,
                app.start_as_current_span("inner"),
            ):
                known.append((silent.get_span_context(), silent.is_recording()))
            with library.start_as_current_span("silent", parent) as first, app.start_as_current_span("under"):
                known.append((first.get_span_context(), first.is_recording()))
        off[:] = ["app"]
        provider._set_tracer_configurator(tracer_configurator=configure)
        app.start_span("no more").end()
        library.start_span("now").end()
        return known, [seen(span) for span in exporter.get_finished_spans()]

    _, spans = same(scenario)

    assert [span["name"] for span in spans] == ["inner", "outer", "under"] * 3 + ["now"]


def test_a_tracer_without_a_name_works_and_a_disabled_sdk_gives_none(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def scenario(kind: Provider) -> Any:
        caplog.clear()
        exporter = InMemorySpanExporter()
        make(kind, exporter).get_tracer("").start_span("x").end()
        monkeypatch.setenv("OTEL_SDK_DISABLED", " True ")
        disabled = make(kind, exporter).get_tracer("tests")
        monkeypatch.delenv("OTEL_SDK_DISABLED")
        with disabled.start_as_current_span("y") as span:
            carrier: dict[str, str] = {}
            propagate.inject(carrier, baggage.set_baggage("user", "ada"))
        told = [seen(each) for each in exporter.get_finished_spans()]
        return (
            told,
            type(disabled),
            span.get_span_context(),
            carrier,
            [r.getMessage() for r in caplog.records],
        )

    told, tracer, _, carrier, _ = same(scenario)

    assert len(told) == 1
    assert tracer is trace.NoOpTracer
    assert carrier == {"baggage": "user=ada"}


class Stacked(_RuntimeContext):
    """Somebody else's storage: a list, as good as any where there is one thread and no task."""

    def __init__(self) -> None:
        self.stack = [Context()]

    def attach(self, context: Context) -> Any:
        self.stack.append(context)
        return len(self.stack)

    def get_current(self) -> Context:
        return self.stack[-1]

    def detach(self, token: Any) -> None:
        del self.stack[token - 1 :]


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_somebody_elses_context_storage_is_worked_with(scene: Callable[[trace.Tracer], None]) -> None:
    told = []
    for kind in (sdk.TracerProvider, TracerProvider):
        exporter = InMemorySpanExporter()
        theirs = Stacked()
        with storage(theirs):
            scene(make(kind, exporter).get_tracer("tests"))
            assert context_api._RUNTIME_CONTEXT is theirs
        assert theirs.stack == [Context()]
        told.append([seen(span) for span in exporter.get_finished_spans()])

    assert told[0] == told[1]
