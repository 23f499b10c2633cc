"""Limits cut and count, as the SDK does."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.sdk import trace as sdk
from opentelemetry.trace import Link, SpanContext

from mapek_runtime.export.encode import encode_spans
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


@pytest.mark.parametrize("most", [0, 1, 2, 3, None])
def test_which_attributes_stay_and_in_which_order_is_as_in_the_sdk(most: int | None) -> None:
    def kept(provider: sdk.TracerProvider) -> tuple[list[tuple[str, object]], int]:
        span: Any = provider.get_tracer("tests").start_span("x", attributes={"a": 1, "b": 2, "c": 3})
        span.set_attribute("b", 4)
        span.set_attributes({"d": 5, "c": 6, "b": [7]})
        span.set_attribute("a", [8])
        span.set_attribute("d", 9)
        return list(span.attributes.items()), span.dropped_attributes

    limits = sdk.SpanLimits(max_span_attributes=most)
    ours = kept(Traced(span_limits=limits).provider)
    assert ours == kept(sdk.TracerProvider(span_limits=limits, shutdown_on_exit=False))


def test_an_event_whose_name_is_no_text_is_named_by_its_text() -> None:
    traced = Traced()

    with traced.tracer.start_as_current_span("x") as span:
        span.add_event(404)  # type: ignore[arg-type]

    (event,) = traced.one().events
    assert event.name == "404"
    assert encode_spans(traced.spans)
