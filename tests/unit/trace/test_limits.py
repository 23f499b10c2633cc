"""Limits cut and count, as the SDK does."""

from __future__ import annotations

from opentelemetry.sdk import trace as sdk
from opentelemetry.trace import Link, SpanContext

from tests.unit.trace.traced import Traced


def test_limits_drop_the_oldest_and_count() -> None:
    traced = Traced(span_limits=sdk.SpanLimits(max_span_attributes=2, max_events=2, max_links=1))
    first, second = (Link(SpanContext(1, n, is_remote=False)) for n in (1, 2))

    with traced.tracer.start_as_current_span(
        "x", attributes={"a": 1, "b": 2, "c": 3}, links=[first, second]
    ) as span:
        span.set_attribute("d", 4)
        for name in ("one", "two", "three"):
            span.add_event(name)

    done = traced.one()
    assert set(done.attributes or {}) == {"c", "d"}
    assert done.dropped_attributes == 2
    assert [event.name for event in done.events] == ["two", "three"]
    assert done.dropped_events == 1
    assert len(done.links) == 1
    assert done.dropped_links == 1


def test_a_long_value_is_cut() -> None:
    traced = Traced(span_limits=sdk.SpanLimits(max_span_attribute_length=3))

    with traced.tracer.start_as_current_span("x", attributes={"a": "12345"}) as span:
        span.set_attribute("b", "67890")

    assert dict(traced.one().attributes or {}) == {"a": "123", "b": "678"}
