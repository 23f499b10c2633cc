"""Samplers decide, and what they decided is followed."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from opentelemetry import context, propagate, trace
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import Link, SpanKind, TraceState
from opentelemetry.util.types import Attributes

from mapek_runtime.trace import DroppedSpan
from tests.unit.trace.traced import Traced


@pytest.fixture
def traced() -> Traced:
    return Traced()


def test_an_unsampled_span_has_an_identity_and_its_children_follow() -> None:
    traced = Traced(sampler=ParentBased(ALWAYS_OFF))

    with (
        traced.tracer.start_as_current_span("outer") as outer,
        traced.tracer.start_as_current_span("inner") as inner,
    ):
        assert trace.get_current_span() is inner

    assert isinstance(inner, DroppedSpan)
    assert not inner.is_recording()
    assert inner.get_span_context().trace_id == outer.get_span_context().trace_id
    assert inner.get_span_context().span_id != outer.get_span_context().span_id
    assert not inner.get_span_context().trace_flags.sampled
    assert traced.spans == ()


class _ByName(Sampler):
    """Keeps what is called keep, and adds an attribute."""

    def should_sample(
        self,
        parent_context: context.Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        decision = Decision.RECORD_AND_SAMPLE if name == "keep" else Decision.DROP
        return SamplingResult(decision, {**(attributes or {}), "sampler": "by name"})

    def get_description(self) -> str:
        return "by name"


def test_a_sampler_of_ones_own_decides_and_adds_attributes() -> None:
    traced = Traced(sampler=_ByName())

    for name in ("keep", "drop"):
        traced.tracer.start_span(name, attributes={"a": 1}).end()

    assert dict(traced.one().attributes or {}) == {"a": 1, "sampler": "by name"}


def test_a_ratio_samples_like_the_sdk() -> None:
    ids = iter(range(1, 10_000))

    class Ids(RandomIdGenerator):
        def generate_trace_id(self) -> int:
            return next(ids) << 60

        def generate_span_id(self) -> int:
            return 1

        def is_trace_id_random(self) -> bool:
            return False

    sampler = TraceIdRatioBased(0.3)
    traced = Traced(sampler=ParentBased(sampler), id_generator=Ids())

    for _ in range(50):
        traced.tracer.start_span("x").end()

    expected = [
        n << 60
        for n in range(1, 51)
        if sampler.should_sample(None, n << 60, "x").decision is Decision.RECORD_AND_SAMPLE
    ]
    assert [span.context.trace_id for span in traced.spans if span.context] == expected


def test_a_remote_decision_is_followed(traced: Traced) -> None:
    unsampled = propagate.extract({"traceparent": f"00-{'a' * 32}-{'b' * 16}-00"})

    with traced.tracer.start_as_current_span("server", context=unsampled) as span:
        pass

    assert not span.get_span_context().trace_flags.sampled
    assert traced.spans == ()
