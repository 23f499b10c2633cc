"""Our provider is accepted wherever the SDK's is, and does the same there: samplers and processors.

What a span itself can do is in `test_compatible_spans`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest
from opentelemetry import baggage, trace
from opentelemetry import context as context_api
from opentelemetry.context.context import Context
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.trace import sampling
from opentelemetry.sdk.trace._sampling_experimental import (
    composable_parent_threshold,
    composable_traceid_ratio_based,
    composite_sampler,
)
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    SimpleSpanProcessor,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Link, SpanContext, SpanKind, TraceFlags, TraceState

from tests.unit.trace.alike import Provider, make, same, seen

OTHER = SpanContext(7, 8, is_remote=True, trace_flags=TraceFlags(1), trace_state=TraceState([("k", "v")]))
WORDS = [decision.name for decision in sampling.Decision]


class ByName(sampling.Sampler):
    """Decides by the name, and says in the trace state and the attributes what it was asked."""

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Any = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> sampling.SamplingResult:
        above = trace.get_current_span(parent_context).get_span_context()
        decision = (
            sampling.Decision[name] if name in sampling.Decision.__members__ else sampling.Decision.DROP
        )
        asked: dict[str, Any] = {
            "above": above.span_id,
            "user": str(baggage.get_baggage("user", parent_context)),
            "kind": str(kind),
            "links": len(links or ()),
        }
        return sampling.SamplingResult(
            decision, {**(attributes or {}), **asked}, above.trace_state.update("by", name.lower())
        )

    def get_description(self) -> str:
        return "ByName"


SAMPLERS: Mapping[str, Callable[[], sampling.Sampler]] = {
    "always on": lambda: sampling.ALWAYS_ON,
    "always off": lambda: sampling.ALWAYS_OFF,
    "record only": lambda: sampling.StaticSampler(sampling.Decision.RECORD_ONLY),
    "parent based on": lambda: sampling.DEFAULT_ON,
    "parent based off": lambda: sampling.DEFAULT_OFF,
    "ratio": lambda: sampling.TraceIdRatioBased(0.5),
    "parent based ratio": lambda: sampling.ParentBasedTraceIdRatio(0.5),
    "always record": lambda: sampling.AlwaysRecordSampler(sampling.TraceIdRatioBased(0.5)),
    "delegates turned round": lambda: sampling.ParentBased(
        root=ByName(),
        remote_parent_sampled=sampling.ALWAYS_OFF,
        remote_parent_not_sampled=sampling.ALWAYS_ON,
        local_parent_sampled=sampling.TraceIdRatioBased(0.5),
        local_parent_not_sampled=ByName(),
    ),
    "by name": ByName,
    "composite": lambda: composite_sampler(composable_parent_threshold(composable_traceid_ratio_based(0.5))),
}


@pytest.mark.parametrize("name", SAMPLERS)
def parents() -> Iterator[Context | None]:
    yield None
    states: tuple[list[tuple[str, str]], ...] = ([], [("a", "b"), ("ot", "th:8")])
    for trace_id, remote, flags, state in itertools.product(range(1, 9), (True, False), (0, 1, 3), states):
        known = SpanContext(trace_id << 100 | trace_id, 5, remote, TraceFlags(flags), TraceState(state))
        yield trace.set_span_in_context(trace.NonRecordingSpan(known))


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_of_the_sdk_decides_the_same(name: str) -> None:
    def scenario(kind: Provider) -> Any:
        exporter = InMemorySpanExporter()
        tracer = make(kind, exporter, sampler=SAMPLERS[name]()).get_tracer("tests")
        known = []
        for parent, (outside, inside) in itertools.product(parents(), itertools.permutations(WORDS, 2)):
            with (
                tracer.start_as_current_span(
                    outside, parent, SpanKind.CLIENT, {"a": 1}, [Link(OTHER)]
                ) as outer,
                tracer.start_as_current_span(inside) as inner,
            ):
                known += [(span.get_span_context(), span.is_recording()) for span in (outer, inner)]
        return known, [seen(span) for span in exporter.get_finished_spans()]

    known, _ = same(scenario)

    assert len(known) == 2 * 6 * 97


def test_a_sampler_sees_the_parent_and_what_it_says_is_recorded() -> None:
    def scenario(kind: Provider) -> Any:
        exporter = InMemorySpanExporter()
        tracer = make(kind, exporter, sampler=ByName()).get_tracer("tests")
        token = context_api.attach(baggage.set_baggage("user", "ada"))
        with (
            tracer.start_as_current_span("DROP") as dropped,
            tracer.start_as_current_span("RECORD_AND_SAMPLE", attributes={"mine": 1}) as kept,
        ):
            pass
        context_api.detach(token)
        return [seen(span) for span in exporter.get_finished_spans()], (
            dropped.get_span_context(), kept.get_span_context().trace_state.to_header()
        )  # fmt: skip

    ((span,), (_, state)) = same(scenario)

    assert span["attributes"] == {
        "mine": 1, "above": 2, "user": "ada", "kind": "SpanKind.INTERNAL", "links": 0,
    }  # fmt: skip
    assert state == "by=drop" or "record_and_sample" in state


class Watch(sdk.SpanProcessor):
    """Writes down every call, and tries to change the span in each."""

    def __init__(self, name: str, calls: list[Any]) -> None:
        self._name, self._calls = name, calls

    def _say(self, what: str, span: sdk.ReadableSpan) -> None:
        self._calls.append((self._name, what, span.name, dict(span.attributes or {})))

    def on_start(self, span: sdk.Span, parent_context: Context | None = None) -> None:
        self._say("start", span)
        span.set_attribute("started", self._name)
        span.set_attributes({k: str(v) for k, v in baggage.get_all(parent_context).items()})

    def _on_ending(self, span: sdk.Span) -> None:
        self._say("ending", span)

    def on_end(self, span: sdk.ReadableSpan) -> None:
        self._say(f"end {type(span).__mro__[-2].__name__ != ''} {span.end_time is not None}", span)

    def shutdown(self) -> None:
        self._calls.append((self._name, "shutdown"))

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        self._calls.append((self._name, "flush", timeout_millis > 0))
        return self._name != "stuck"


def nested(calls: list[Any]) -> sdk.SpanProcessor:
    inner = sdk.SynchronousMultiSpanProcessor()  # type: ignore[no-untyped-call]
    inner.add_span_processor(Watch("inner", calls))
    return inner


@pytest.mark.parametrize("multi", ["default", "synchronous", "concurrent", "nested"])
def test_processors_are_called_alike_and_see_the_same(multi: str) -> None:
    def scenario(kind: Provider) -> Any:
        calls: list[Any] = []
        options: dict[str, Any] = {}
        if multi == "synchronous":
            options["active_span_processor"] = sdk.SynchronousMultiSpanProcessor()  # type: ignore[no-untyped-call]
            options["active_span_processor"].add_span_processor(Watch("first", calls))
        if multi == "concurrent":
            options["active_span_processor"] = sdk.ConcurrentMultiSpanProcessor(1)
        provider = make(kind, **options)
        tracer = provider.get_tracer("tests")
        provider.add_span_processor(Watch("early", calls))
        if multi == "nested":
            provider.add_span_processor(nested(calls))
        with tracer.start_as_current_span("outer", baggage.set_baggage("user", "ada"), attributes={"own": 1}):
            provider.add_span_processor(Watch("stuck", calls))
            tracer.start_span("inner", context=baggage.set_baggage("user", "bob", Context())).end()
        calls.append(provider.force_flush(1000))
        provider.shutdown()
        tracer.start_span("late").end()
        return calls

    calls = same(scenario)

    assert calls[0][1:3] == ("start", "outer")
    assert {(name, "ending", "inner", True) for name in ("early", "stuck")} <= {
        (name, what, span, attributes.get("user") == "bob")
        for name, what, span, attributes in (
            call for call in calls if isinstance(call, tuple) and len(call) == 4
        )
    }
    assert False in calls


class Ending(sdk.SpanProcessor):
    """Changes the span at the last moment."""

    def _on_ending(self, span: sdk.Span) -> None:
        span.set_attribute("ending", True)
        span.add_event("ending")
        span.update_name("ending")


def test_what_a_processor_changes_while_a_span_ends_is_treated_alike(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def scenario(kind: Provider) -> Any:
        exporter = InMemorySpanExporter()
        provider = make(kind)
        provider.add_span_processor(Ending())
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        caplog.clear()
        provider.get_tracer("tests").start_span("x").end()
        return [seen(span) for span in exporter.get_finished_spans()], len(caplog.records)

    same(scenario)


class Failing(SpanExporter):
    def export(self, spans: Sequence[sdk.ReadableSpan]) -> SpanExportResult:
        raise ValueError("no")

    def shutdown(self) -> None: ...


def test_an_exporter_that_fails_does_not_reach_the_program(caplog: pytest.LogCaptureFixture) -> None:
    def scenario(kind: Provider) -> Any:
        exporter = InMemorySpanExporter()
        caplog.clear()
        provider = make(kind, Failing())
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        provider.get_tracer("tests").start_span("x").end()
        return [seen(span) for span in exporter.get_finished_spans()], [
            r.getMessage() for r in caplog.records
        ]

    spans, lines = same(scenario)

    assert len(spans) == 1
    assert len(lines) == 1


def test_the_sdks_batch_processor_exports_and_drops_alike() -> None:
    def scenario(kind: Provider) -> Any:
        exporter = InMemorySpanExporter()
        provider = make(kind, sampler=ByName())
        provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=60_000))
        tracer = provider.get_tracer("tests", "1", "https://schema", {"scope": "s"})
        for name in ("RECORD_ONLY", "RECORD_AND_SAMPLE", "DROP") * 5:
            tracer.start_span(name).end()
        flushed = provider.force_flush()
        told = [seen(span) for span in exporter.get_finished_spans()]
        provider.shutdown()
        tracer.start_span("RECORD_AND_SAMPLE").end()
        return flushed, told, len(exporter.get_finished_spans())

    flushed, told, count = same(scenario)

    assert (flushed, len(told), count) == (True, 5, 5)
