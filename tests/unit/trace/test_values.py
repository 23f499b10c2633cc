"""Whatever a program has at hand can be given to a span: never an error, always something OTLP can say."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans as sdk_encode
from opentelemetry.sdk import trace as sdk
from opentelemetry.trace import Link, SpanContext

from mapek_runtime import SpanGroup
from mapek_runtime.export.encode import encode_spans
from mapek_runtime.trace import use_provider, values
from tests.unit.trace.both import one, traced_by
from tests.unit.trace.kinds import ENDLESS, KINDS, ODD, Blank, Colour, Liar, Peer
from tests.unit.trace.traced import Traced

OTHER = SpanContext(1, 2, is_remote=False)
group = SpanGroup("values")


@group.span("any")
def declared(value: Any = None) -> None:
    """A span that is given anything."""


Place = Callable[[Traced, Any], Any]


def by_set_attribute(traced: Traced, value: Any) -> Any:
    with traced.tracer.start_as_current_span("x") as span:
        span.set_attribute("value", value)
    return traced.one().attributes


def by_set_attributes(traced: Traced, value: Any) -> Any:
    with traced.tracer.start_as_current_span("x") as span:
        span.set_attributes({"value": value})
    return traced.one().attributes


def by_start_span(traced: Traced, value: Any) -> Any:
    traced.tracer.start_span("x", attributes={"value": value}).end()
    return traced.one().attributes


def by_start_as_current_span(traced: Traced, value: Any) -> Any:
    with traced.tracer.start_as_current_span("x", attributes={"value": value}):
        pass
    return traced.one().attributes


def by_add_event(traced: Traced, value: Any) -> Any:
    with traced.tracer.start_as_current_span("x") as span:
        span.add_event("happened", {"value": value})
    return traced.one().events[0].attributes


def by_a_link(traced: Traced, value: Any) -> Any:
    traced.tracer.start_span("x", links=[Link(OTHER, {"value": value})]).end()
    return traced.one().links[0].attributes


def by_add_link(traced: Traced, value: Any) -> Any:
    with traced.tracer.start_as_current_span("x") as span:
        span.add_link(OTHER, {"value": value})
    return traced.one().links[0].attributes


def by_a_declaration(traced: Traced, value: Any) -> Any:
    with use_provider(traced.provider), declared(value):
        pass
    return traced.one().attributes


def by_set(traced: Traced, value: Any) -> Any:
    with use_provider(traced.provider), declared() as span:
        span.set(value=value)
    return traced.one().attributes


PLACES: tuple[Place, ...] = (
    by_set_attribute,
    by_set_attributes,
    by_start_span,
    by_start_as_current_span,
    by_add_event,
    by_a_link,
    by_add_link,
    by_a_declaration,
    by_set,
)


@pytest.fixture(autouse=True)
def _every_key_may_be_warned_of() -> None:
    values._warned.clear()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("given", "wanted"), KINDS.values(), ids=KINDS)
def test_a_value_is_recorded_as_otlp_can_say_it(given: Any, wanted: Any, place: Place) -> None:
    traced = Traced()

    kept = dict(place(traced, given) or {})

    assert kept == ({} if given is None else {"value": wanted})
    assert exact(kept) == exact({} if given is None else {"value": wanted})
    assert_encoded_as_the_sdk_does(traced)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("given", ODD.values(), ids=ODD)
def test_no_value_does_harm(given: Any, place: Place) -> None:
    traced = Traced()

    place(traced, given)

    assert_encoded_as_the_sdk_does(traced)


@pytest.mark.parametrize("place", PLACES)
def test_an_object_that_raises_whatever_it_is_asked_does_no_harm(place: Place) -> None:
    traced = Traced()

    assert dict(place(traced, Liar()) or {}) == {"value": None}

    assert_encoded_as_the_sdk_does(traced)


def exact(value: Any) -> Any:
    """The value with its types: 1 is not True, and no subclass."""
    if isinstance(value, dict):
        return {key: exact(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(exact(item) for item in value)
    return type(value), value


def assert_encoded_as_the_sdk_does(traced: Traced) -> None:
    span = traced.one()
    assert encode_spans([span]) == sdk_encode([span]).SerializeToString(deterministic=True)


ACCEPTED = [
    "text", "empty text", "true", "integer", "largest integer", "double", "infinity", "bytes", "list",
    "mixed list", "nested list", "empty tuple", "named tuple", "range", "deque", "array", "mapping",
    "ordered", "mapping with odd keys", "int enum", "str enum", "int of its own",
    "str of its own", "complex", "uuid", "path", "pure path", "address", "dataclass", "namespace",
    "exception", "type", "no text", "no text in a list", "numpy double", "numpy text"
]  # fmt: skip


@pytest.mark.parametrize("kind", ACCEPTED)
def test_what_the_sdk_keeps_is_kept_as_it_keeps_it(kind: str) -> None:
    given, wanted = KINDS[kind]
    assert dict(BoundedAttributes(attributes={"value": given})) == {"value": wanted}


@pytest.mark.parametrize("name", ["ours", "stock"])
def test_declared_values_are_the_same_under_any_provider(name: str) -> None:
    with traced_by(name):
        with declared(np.int64(3)) as span:
            span.set(value=Colour.RED)
        first = dict(one("values.any").attributes or {})
    with traced_by(name):
        with declared({Path("/a")}):
            pass
        second = dict(one("values.any").attributes or {})

    assert (first, second) == ({"value": 1}, {"value": ("/a",)})


# Limits


def test_what_the_limits_cut_is_counted_everywhere() -> None:
    limits = sdk.SpanLimits(
        max_span_attributes=2, max_event_attributes=2, max_link_attributes=2,
        max_attribute_length=3, max_span_attribute_length=3,
    )  # fmt: skip
    traced = Traced(span_limits=limits)
    given: Any = {"a": Decimal(1), "b": ["12345"], "c": Path("/a/b/c"), "": 1, "none": None}

    with traced.tracer.start_as_current_span("x", attributes=given, links=[Link(OTHER, given)]) as span:
        span.add_event("happened", given)
        span.add_link(OTHER, given)

    done = traced.one()
    wanted = {"b": ("123",), "c": "/a/"}
    assert dict(done.attributes or {}) == wanted
    assert done.dropped_attributes == 2
    parts: list[Any] = [*done.events, *done.links]
    for part in parts:
        assert dict(part.attributes or {}) == wanted
        assert part.dropped_attributes == 2


def test_declared_values_keep_the_limits() -> None:
    traced = Traced(span_limits=sdk.SpanLimits(max_span_attributes=1, max_span_attribute_length=2))

    with use_provider(traced.provider), declared("first") as span:
        span.set_attribute("other", "1")
        span.set(value="long")

    assert dict(traced.one().attributes or {}) == {"value": "lo"}
    assert traced.one().dropped_attributes == 2


# What cannot be kept


def test_a_key_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    traced = Traced()
    nothing: Any = Blank()
    fine: Any = Peer("a")

    with caplog.at_level(logging.WARNING), traced.tracer.start_as_current_span("x") as span:
        for _ in range(3):
            span.set_attribute("one", nothing)
            span.add_event("e", {"two": nothing, "fine": fine})

    assert [cast("Any", record.args)[0] for record in caplog.records] == ["one", "two"]


def test_warnings_are_bounded(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values, "MOST_WARNED", 10)
    traced = Traced()
    nothing: Any = Blank()

    with traced.tracer.start_as_current_span("x") as span:
        for number in range(100):
            span.set_attribute(f"key {number}", nothing)

    assert len(caplog.records) == 10


def test_an_absent_value_leaves_what_was_there_and_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    traced = Traced()

    with traced.tracer.start_as_current_span("x", attributes={"a": 1}) as span:
        span.set_attribute("a", None)
        span.set_attributes({"a": None, "b": 2})

    assert dict(traced.one().attributes or {}) == {"a": 1, "b": 2}
    assert traced.one().dropped_attributes == 0
    assert caplog.records == []


def test_what_is_too_much_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    many: Any = "leaf"
    for _ in range(8):
        many = [many] * 100

    assert len(values.clean_value("a", range(10**12), None)) == values.MOST_ITEMS
    assert values.clean_value("b", many, None)
    assert values.clean_value("c", ENDLESS, None)[0] == 1
    assert len(values.clean_value("d", Peer("x" * 100_000), None)) == values.MOST_TEXT
    assert [cast("Any", record.args)[0] for record in caplog.records] == ["a", "b", "c"]


def test_a_set_has_the_same_order_in_every_process() -> None:
    mixed = {"b", 2, "a", 1, None}

    assert values.clean_value("a", mixed, None) == (1, 2, None, "a", "b")


def test_numpy_is_not_imported_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    scalar = np.int64(3)
    monkeypatch.delitem(sys.modules, "numpy")

    assert values.clean_value("a", scalar, None) == "3"
    assert "numpy" not in sys.modules


def test_what_is_changed_later_was_recorded_as_it_was() -> None:
    traced = Traced()
    inner = [1]
    given: Any = {"inner": inner}

    with traced.tracer.start_as_current_span("x", attributes={"a": given}) as span:
        span.add_event("e", {"a": given})
        inner.append(2)
        given["more"] = [3]

    assert (traced.one().attributes or {})["a"] == {"inner": (1,)}
    assert (traced.one().events[0].attributes or {})["a"] == {"inner": (1,)}
