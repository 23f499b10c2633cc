"""The sampler: which cycles are kept, and what stands on them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from opentelemetry.context import Context
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    DEFAULT_OFF,
    DEFAULT_ON,
    Decision,
    ParentBased,
)
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from mapek_runtime import Cycle, Finding, Observation, Runtime
from mapek_runtime.trace import use_provider
from mapek_runtime.trace.sampling import CycleSampler, ProbabilitySampler
from tests.unit.trace.sampling.held import Held


def said(span: sdk.ReadableSpan) -> tuple[Any, Any]:
    attributes = span.attributes or {}
    return attributes.get("sampling.adjusted_count"), attributes.get("sampling.reason")


def ot(span: Any) -> str | None:
    state: TraceState = span.get_span_context().trace_state
    return state.get("ot")


def remote(sampled: bool) -> Context:
    context = SpanContext(0xABC, 0xDEF, is_remote=True, trace_flags=TraceFlags(int(sampled)))
    return set_span_in_context(NonRecordingSpan(context), Context())


@pytest.mark.parametrize("wrap", [None, ParentBased], ids=["alone", "in ParentBased"])
def test_a_quiet_cycle_is_dropped_whole(wrap: Any) -> None:
    held = Held(wrap=wrap)

    held.cycle(anomalies_detected=0, actions_planned=0, actions_executed=0, success=True)

    assert held.names == []
    assert (held.holds.held, held.holds.sampled_out) == (0, 2)


@pytest.mark.parametrize("wrap", [None, ParentBased], ids=["alone", "in ParentBased"])
def test_a_quiet_cycle_that_the_head_decision_keeps_stands_for_the_others(wrap: Any) -> None:
    held = Held(wrap=wrap)
    held.luck.lucky = True

    held.cycle()

    assert held.names == ["work", "mape_k.cycle"]
    assert said(held.spans[1]) == (100.0, "quiet")
    assert [ot(span) for span in held.spans] == ["th:fd70a", "th:fd70a"]


@pytest.mark.parametrize("lucky", [True, False], ids=["head yes", "head no"])
@pytest.mark.parametrize(
    ("found", "reason"),
    [
        ({"anomalies_detected": 1}, "anomaly"),
        ({"actions_planned": 2}, "action"),
        ({"actions_executed": 2}, "action"),
        ({"success": False}, "error"),
    ],
    ids=["anomaly", "planned", "executed", "failed"],
)
def test_a_cycle_with_a_cause_is_kept_and_stands_for_itself(
    found: dict[str, Any], reason: str, lucky: bool
) -> None:
    held = Held()
    held.luck.lucky = lucky

    held.cycle(**found)

    assert held.names == ["work", "mape_k.cycle"]
    assert said(held.spans[1]) == (1.0, reason)
    for span in held.spans:
        context = span.get_span_context()
        assert context is not None
        assert context.trace_flags.sampled
        assert ot(span) == "th:0"


def test_an_error_on_any_span_keeps_its_cycle() -> None:
    held = Held()
    root = held.root()
    child = held.child(root)
    grandchild = held.child(child)
    grandchild.set_status(StatusCode.ERROR)

    for span in (grandchild, child, root):
        span.end()

    assert held.names == ["work", "work", "mape_k.cycle"]
    assert said(held.spans[2]) == (1.0, "error")


@pytest.mark.parametrize(
    ("phase", "found"),
    [
        ("mape_k.analyze", {"anomalies_detected": 1}),
        ("mape_k.plan", {"actions_planned": 1}),
        ("mape_k.execute", {"actions_executed": 1}),
        ("mape_k.execute", {"success": False}),
    ],
)
def test_what_a_phase_found_counts_before_the_cycle_ends(phase: str, found: dict[str, Any]) -> None:
    held = Held()
    root = held.root()
    held.child(root, "mape_k.monitor").end()
    assert held.names == []

    held.child(root, phase, **found).end()
    later = held.child(root, "later")

    assert held.names == ["mape_k.monitor", phase]
    assert later.get_span_context().trace_flags.sampled


def test_the_same_attributes_elsewhere_are_no_cause() -> None:
    held = Held()
    root = held.root()
    held.child(root, "my.report", anomalies_detected=3, success=False).end()

    root.end()

    assert held.names == []


def test_a_cycle_that_takes_much_longer_than_usual_is_kept() -> None:
    held = Held(slow=2.0)
    for _ in range(150):
        held.cycle(lasting=1_000)

    held.cycle(lasting=1_999)
    assert held.names == []
    held.cycle(lasting=2_001)

    assert held.names == ["work", "mape_k.cycle"]
    assert said(held.spans[1]) == (1.0, "duration")


def test_the_quiet_ones_kept_are_those_that_the_probability_sampler_keeps() -> None:
    held = Held(quiet_ratio=0.2)
    held.luck.lucky = None
    twin = ProbabilitySampler(0.2)
    expected = []

    for _ in range(500):
        root = held.cycle()
        result = twin.should_sample(Context(), root._trace_id, "mape_k.cycle")
        if result.decision is Decision.RECORD_AND_SAMPLE:
            expected.append((root._trace_id, result.trace_state and result.trace_state.get("ot")))

    kept = [span for span in held.spans if span.parent is None]
    assert [(span._trace_id, ot(span)) for span in kept] == expected  # type: ignore[attr-defined]
    assert 0 < len(expected) < 500


@pytest.mark.parametrize(("ratio", "kept"), [(0.0, 0), (1.0, 2)])
def test_no_quiet_cycle_or_every_one_may_be_kept(ratio: float, kept: int) -> None:
    held = Held(quiet_ratio=ratio)
    held.luck.lucky = ratio == 0

    held.cycle()

    assert len(held.names) == kept


def test_spans_outside_cycles_are_decided_by_the_head_sampler() -> None:
    for head, expected in ((DEFAULT_ON, ["work", "request"]), (DEFAULT_OFF, [])):
        held = Held(head)
        root = held.root("request")
        held.child(root).end()
        root.end()

        assert held.names == expected
        assert held.holds.sampled_out == 0


def test_a_cycle_with_a_remote_parent_follows_its_flags_and_is_not_held() -> None:
    held = Held(wrap=ParentBased)

    for sampled in (True, False):
        span = held.tracer.start_span("mape_k.cycle", remote(sampled))
        held.child(span).end()
        span.end()

    assert held.names == ["work", "mape_k.cycle"]
    assert held.spans[1].parent is not None
    assert said(held.spans[1]) == (None, None)


def test_nothing_below_a_dropped_cycle_is_kept_by_a_head_sampler_that_keeps_everything() -> None:
    held = Held(ALWAYS_ON)
    root = held.root()
    root.end()

    child = held.child(root)
    held.child(child).end()
    child.end()

    assert held.names == []


def test_what_is_a_cycle_may_be_said_by_a_function() -> None:
    held = Held(ALWAYS_ON, cycle=lambda name: name.endswith(".turn"))

    for name in ("night.turn", "request"):
        held.root(name).end()

    assert held.names == ["request"]


def test_a_tracer_of_the_stock_sdk_follows_the_head_decision() -> None:
    held = Held()
    provider = sdk.TracerProvider(held.sampler, shutdown_on_exit=False, id_generator=held.luck)
    tracer = provider.get_tracer("stock")

    for lucky in (False, True):
        held.luck.lucky = lucky
        span = tracer.start_span("mape_k.cycle", Context())
        assert span.get_span_context().trace_flags.sampled is lucky
        span.end()


class Loop:
    """Plugins that find what the test puts in `found`."""

    def __init__(self) -> None:
        self.found: list[Finding] = []

    async def monitor(self, _cycle: Cycle) -> list[Observation]:
        return [Observation(name="load", value=0.5)]

    async def analyze(self, _cycle: Cycle) -> list[Finding]:
        return self.found


async def test_a_cycle_of_the_runtime_is_kept_with_all_its_phases_or_dropped() -> None:
    held = Held(wrap=ParentBased)
    loop = Loop()

    with use_provider(held.provider):
        async with Runtime(loop, interval=3600) as runtime:
            await runtime.wait()
            assert held.names == []
            loop.found = [Finding(target="a", problem="busy")]
            runtime.trigger("again")
            await runtime.wait()

    phases = ["monitor", "analyze", "plan", "execute", "knowledge", "cycle"]
    assert held.names == [f"mape_k.{phase}" for phase in phases]
    assert said(held.spans[5]) == (1.0, "anomaly")
    # Its link leads to the cycle before, which nobody kept.
    assert len(held.spans[5].links) == 1
    assert held.holds.sampled_out == 6


async def test_a_cancelled_cycle_of_the_runtime_is_an_error_and_is_kept() -> None:
    held = Held()
    entered = asyncio.Event()

    class Stuck:
        async def monitor(self, _cycle: Cycle) -> list[Observation]:
            entered.set()
            await asyncio.Event().wait()
            return []

    with use_provider(held.provider):
        async with Runtime(Stuck(), interval=3600) as runtime:
            await entered.wait()
            await runtime.cancel()

    assert sorted(held.names) == sorted(
        f"mape_k.{phase}" for phase in ("monitor", "analyze", "plan", "execute", "knowledge", "cycle")
    )
    assert said(held.spans[-1]) == (1.0, "error")


def test_over_lets_children_follow_where_they_would_anyway() -> None:
    wrapped, holds = CycleSampler.over(DEFAULT_ON, quiet_ratio=0.5)
    plain, _ = CycleSampler.over(ALWAYS_OFF)

    assert isinstance(wrapped, ParentBased)
    assert isinstance(wrapped._root, CycleSampler)
    assert wrapped._root.holds is holds
    assert isinstance(plain, CycleSampler)
    assert wrapped._root.get_description().startswith("CycleSampler{0.5,ParentBased{")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quiet_ratio": 1.5}, "quiet_ratio is 1.5; it must be from 0 to 1"),
        ({"quiet_ratio": float("nan")}, "quiet_ratio is nan"),
        ({"slow": 0.5}, "slow is 0.5; it must be at least 1"),
        ({"most_spans_per_cycle": 0}, "most_spans_per_cycle is 0; it must be at least 1"),
        ({"most_held_spans": 0}, "most_held_spans is 0; it must be at least 1"),
    ],
)
def test_a_number_out_of_range_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CycleSampler(**options)
