"""Leaving: what goes out with a context, and what it makes of the cycle."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry import propagate
from opentelemetry.baggage import set_baggage
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.sdk.trace.sampling import ParentBased
from opentelemetry.trace import set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from mapek_runtime.trace.leaving import LeavingPropagator, install_leaving
from tests.unit.trace.sampling.held import Held

PLAIN = TraceContextTextMapPropagator()
LEAVING = LeavingPropagator(PLAIN)


def sent(span: Any, by: Any = LEAVING) -> dict[str, str]:
    carrier: dict[str, str] = {}
    by.inject(carrier, set_span_in_context(span, Context()))
    return carrier


def sampled(carrier: dict[str, str]) -> bool:
    return carrier["traceparent"].endswith(("01", "03"))


@pytest.fixture(autouse=True)
def the_global_propagator_is_put_back() -> Iterator[None]:
    before = propagate.get_global_textmap()
    yield
    propagate.set_global_textmap(before)


def test_a_cycle_that_has_left_unsampled_is_dropped_whatever_is_found_later() -> None:
    held = Held()
    root = held.root()
    held.child(root, "before").end()
    call = held.child(root, "call")

    carrier = sent(call)

    assert not sampled(carrier)
    assert "tracestate" not in carrier
    call.end()
    assert not held.child(root, "after").is_recording()
    root.set_attribute("success", False)
    root.end()
    assert held.names == []
    assert (held.holds.held, held.holds.sampled_out) == (0, 3)


def test_a_cycle_that_has_left_sampled_is_kept_at_the_head_decisions_count() -> None:
    held = Held()
    held.luck.lucky = True
    root = held.root()
    held.child(root, "before").end()
    call = held.child(root, "call")

    carrier = sent(call)

    assert sampled(carrier)
    assert carrier["tracestate"] == "ot=th:fd70a"
    assert held.names == ["before"]
    call.end()
    root.set_attribute("success", False)
    root.end()
    assert held.names == ["before", "call", "mape_k.cycle"]
    # Had luck been against it, it would not be here: it stands for a hundred such.
    assert (held.spans[2].attributes or {})["sampling.adjusted_count"] == 100.0
    assert (held.spans[2].attributes or {})["sampling.reason"] == "left"


@pytest.mark.parametrize("lucky", [True, False], ids=["head yes", "head no"])
def test_a_cycle_with_a_cause_leaves_as_sampled_and_is_kept(lucky: bool) -> None:
    held = Held()
    held.luck.lucky = lucky
    root = held.root()
    call = held.child(root, "opened before the cause was found")
    held.child(root, "mape_k.analyze", anomalies_detected=1).end()

    carrier = sent(call)

    assert sampled(carrier)
    assert carrier["tracestate"] == "ot=th:0"
    call.end()
    root.end()
    assert len(held.spans) == 3
    assert (held.spans[2].attributes or {})["sampling.adjusted_count"] == 1.0
    assert (held.spans[2].attributes or {})["sampling.reason"] == "anomaly"


@pytest.mark.parametrize("cause", [True, False], ids=["cause", "quiet"])
@pytest.mark.parametrize("lucky", [True, False], ids=["head yes", "head no"])
@pytest.mark.parametrize("wrap", [None, ParentBased], ids=["alone", "in ParentBased"])
def test_a_service_that_calls_back_in_is_kept_with_its_cycle_or_not_at_all(
    wrap: Any, lucky: bool, cause: bool
) -> None:
    held = Held(wrap=wrap)
    held.luck.lucky = lucky
    root = held.root()
    if cause:
        held.child(root, "mape_k.analyze", anomalies_detected=1).end()
    call = held.child(root, "call")
    arrived = LEAVING.extract(sent(call), Context())

    server = held.tracer.start_span("server", arrived)
    held.child(server, "below the server").end()
    server.end()
    call.end()
    root.set_attribute("success", False)
    root.end()

    kept = lucky or cause
    assert server.is_recording() is False
    assert ("server" in held.names) is kept
    assert held.names.count("below the server") == int(kept)
    known = {span.get_span_context().span_id for span in held.spans}  # type: ignore[union-attr]
    assert [span.name for span in held.spans if span.parent and span.parent.span_id not in known] == []
    assert held.holds.held == 0


def test_headers_written_past_the_propagator_carry_the_head_decision() -> None:
    held = Held()
    for lucky in (True, False):
        held.luck.lucky = lucky
        root = held.root()

        assert sampled(sent(root, by=PLAIN)) is lucky

        # Nobody has settled the cycle, so a cause still counts; the far half is not there, that is all.
        root.set_attribute("success", False)
        root.end()
        assert held.names[-1:] == ["mape_k.cycle"]


@pytest.mark.parametrize(
    "inner",
    [CompositePropagator([]), W3CBaggagePropagator(), CompositePropagator([W3CBaggagePropagator()])],
    ids=["none", "baggage", "composite of baggage"],
)
def test_what_says_nothing_of_the_span_leaves_the_cycle_open(inner: Any) -> None:
    held = Held()
    root = held.root()

    LeavingPropagator(inner).inject({}, set_span_in_context(root, set_baggage("a", "b", Context())))

    root.set_attribute("success", False)
    root.end()
    assert held.names == ["mape_k.cycle"]


def test_other_spans_leave_as_they_are() -> None:
    held = Held()

    assert sampled(sent(held.root("request")))
    assert sent(set_span_in_context, by=LEAVING) == {}
    assert LEAVING.fields == PLAIN.fields


def test_a_span_that_has_ended_leaves_with_the_verdict_and_is_not_changed() -> None:
    held = Held()
    for lucky in (True, False):
        held.luck.lucky = lucky
        root = held.root()
        root.end()

        assert sampled(sent(root)) is lucky


async def test_the_current_span_leaves_from_the_task_that_it_is_current_in() -> None:
    held = Held()
    held.luck.lucky = True
    take_back = install_leaving()
    carriers: list[dict[str, str]] = [{}, {}]

    async def call(carrier: dict[str, str]) -> None:
        with held.tracer.start_as_current_span("call"):
            await asyncio.sleep(0)
            propagate.inject(carrier)

    with held.tracer.start_as_current_span("mape_k.cycle", Context()):
        async with asyncio.TaskGroup() as group:
            for carrier in carriers:
                group.create_task(call(carrier))

    take_back()
    written = {int(carrier["traceparent"].split("-")[2], 16) for carrier in carriers}
    spans = {span.get_span_context().span_id for span in held.spans if span.name == "call"}  # type: ignore[union-attr]
    assert written == spans
    assert all(map(sampled, carriers))


def test_it_is_put_in_place_once_and_taken_back_by_the_last_one() -> None:
    propagate.set_global_textmap(PLAIN)
    undo: list[Callable[[], None]] = [install_leaving(), install_leaving()]
    installed: Any = propagate.get_global_textmap()

    assert isinstance(installed, LeavingPropagator)
    assert installed.inner is PLAIN
    undo[0]()
    undo[0]()
    assert propagate.get_global_textmap() is installed
    undo[1]()
    assert propagate.get_global_textmap() is PLAIN


def test_a_propagator_that_somebody_else_has_set_meanwhile_stays() -> None:
    propagate.set_global_textmap(PLAIN)
    take_back = install_leaving()
    theirs = CompositePropagator([])
    propagate.set_global_textmap(theirs)

    take_back()

    assert propagate.get_global_textmap() is theirs
