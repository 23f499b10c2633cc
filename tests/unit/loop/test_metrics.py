"""The loop's own metrics: what is measured, under which name, and which trace it leads to."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Sequence
from typing import Any

import pytest
from opentelemetry.metrics import MeterProvider as AnyMeterProvider
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    HistogramDataPoint,
    InMemoryMetricReader,
    Metric,
    NumberDataPoint,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from mapek_runtime import Action, Cycle, Finding, Observation, Outcome, Runtime, TracerProvider
from mapek_runtime.loop.metrics import LoopMetrics, loop_metrics
from mapek_runtime.testing import AutojumpClock, Recorder
from mapek_runtime.trace import use_provider
from mapek_runtime.trace.sampling import CycleSampler


class Fever:
    """Sees a fever until it has been cooled `works_after` times; may refuse one target, or fail."""

    def __init__(self, works_after: int = 1, seconds: float = 0.0) -> None:
        self.left = works_after
        self.seconds = seconds

    async def monitor(self, cycle: Cycle) -> Sequence[Observation]:
        await asyncio.sleep(self.seconds)
        return [Observation(name="degrees", value=40.0 if self.left else 37.0)]

    async def analyze(self, cycle: Cycle) -> Sequence[Finding]:
        return [Finding(problem="fever", target="patient", anomaly=True)] if self.left else []

    async def plan(self, cycle: Cycle) -> Sequence[Action]:
        return [Action(name="cool", target="patient", finding=cycle.findings[0])]

    async def execute(self, cycle: Cycle, action: Action) -> Outcome:
        self.left -= 1
        if self.left:
            raise OSError("no ice")
        return Outcome(action=action, success=True)


@pytest.fixture
def reader() -> InMemoryMetricReader:
    return InMemoryMetricReader()


@functools.lru_cache(maxsize=1)
def metrics(reader: InMemoryMetricReader) -> dict[str, Metric]:
    """Every metric by its name; read once, because reading takes the examples away."""
    data = reader.get_metrics_data()
    return {
        metric.name: metric
        for resource in (data.resource_metrics if data is not None else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


def values(reader: InMemoryMetricReader, name: str) -> dict[Any, float]:
    """The values of one metric by its only attribute; of a histogram the counts."""
    found: dict[Any, float] = {}
    for point in metrics(reader)[name].data.data_points:
        assert isinstance(point, NumberDataPoint | HistogramDataPoint)
        key = next(iter((point.attributes or {}).values()), None)
        found[key] = point.value if isinstance(point, NumberDataPoint) else point.count
    return found


def examples(reader: InMemoryMetricReader, name: str) -> set[tuple[Any, Any]]:
    """The trace and span ids that the buckets of a metric lead to."""
    return {
        (exemplar.trace_id, exemplar.span_id)
        for point in metrics(reader)[name].data.data_points
        for exemplar in getattr(point, "exemplars", ())
    }


def ids(spans: Sequence[Any], *names: str) -> set[tuple[Any, Any]]:
    return {(span.context.trace_id, span.context.span_id) for span in spans if span.name in names}


async def run(plugin: object, meters: AnyMeterProvider, cycles: int, **settings: Any) -> Runtime:
    settings.setdefault("interval", 1.0)
    async with Runtime(plugin, meter_provider=meters, **settings) as runtime:
        await runtime.wait(cycles=cycles)
    return runtime


async def test_every_cycle_and_every_phase_that_ran_is_measured(
    reader: InMemoryMetricReader, recorder: Recorder, autojump: AutojumpClock
) -> None:
    runtime = await run(Fever(works_after=0, seconds=0.2), MeterProvider([reader]), 3)

    cycles = runtime.statistics().cycles
    (point,) = metrics(reader)["mapek.cycle.duration"].data.data_points
    assert isinstance(point, HistogramDataPoint)
    assert point.count == cycles
    assert point.sum == pytest.approx(0.2 * cycles, rel=0.01)
    assert values(reader, "mapek.phase.duration") == {
        "monitor": cycles, "analyze": cycles, "knowledge": cycles
    }  # fmt: skip


async def test_ticks_are_counted_as_the_statistics_count_them(
    reader: InMemoryMetricReader, recorder: Recorder, autojump: AutojumpClock
) -> None:
    async with Runtime(
        Fever(works_after=0, seconds=2.5), interval=1.0, meter_provider=MeterProvider([reader])
    ) as runtime:
        await runtime.wait(cycles=1)
        await asyncio.sleep(0.1)
        runtime.trigger("operator")
        runtime.trigger("alarm")
        await runtime.wait(cycles=2)

    counts = runtime.statistics()
    assert counts.ticks_skipped
    assert counts.coalesced
    assert values(reader, "mapek.ticks") == {
        "ran": counts.cycles, "skipped": counts.ticks_skipped, "coalesced": counts.coalesced
    }  # fmt: skip


async def test_actions_and_repairs_are_counted_by_what_became_of_them(
    reader: InMemoryMetricReader, recorder: Recorder, autojump: AutojumpClock
) -> None:
    guard = {"cooldown": 1.5}
    runtime = await run(Fever(works_after=2), MeterProvider([reader]), 5, guard=guard)

    counts = runtime.statistics()
    assert counts.rejected
    assert values(reader, "mapek.actions") == {
        "success": 1, "failed": counts.actions_failed, "rejected": counts.rejected
    }  # fmt: skip
    (repair,) = metrics(reader)["mapek.repair"].data.data_points
    assert isinstance(repair, HistogramDataPoint)
    (incident,) = [each for each in runtime.knowledge.incidents() if each.success]
    assert repair.count == 1
    assert repair.sum == pytest.approx(incident.repair_seconds)


async def test_what_never_happened_is_a_series_of_zero(reader: InMemoryMetricReader) -> None:
    LoopMetrics(MeterProvider([reader]))

    assert values(reader, "mapek.ticks") == {"ran": 0, "skipped": 0, "coalesced": 0}
    assert values(reader, "mapek.actions") == {"success": 0, "failed": 0, "rejected": 0}


async def test_examples_lead_to_the_cycle_the_phase_and_the_repair(
    reader: InMemoryMetricReader, recorder: Recorder, autojump: AutojumpClock
) -> None:
    await run(Fever(), MeterProvider([reader]), 3)

    cycles = ids(recorder.spans, "mape_k.cycle")
    phases = ids(recorder.spans, *(f"mape_k.{name}" for name in (
        "monitor", "analyze", "plan", "execute", "knowledge")))  # fmt: skip
    assert examples(reader, "mapek.cycle.duration") <= cycles
    assert examples(reader, "mapek.cycle.duration")
    assert examples(reader, "mapek.phase.duration") <= phases
    assert len(examples(reader, "mapek.phase.duration")) >= 5


async def test_the_example_of_a_repair_is_the_phase_that_carried_it_out(
    reader: InMemoryMetricReader, recorder: Recorder, autojump: AutojumpClock
) -> None:
    await run(Fever(), MeterProvider([reader]), 3)

    (span,) = [
        span for span in recorder.named("mape_k.execute") if not (span.attributes or {}).get("skipped")
    ]
    assert examples(reader, "mapek.repair") == ids([span], "mape_k.execute")


async def test_an_example_is_never_a_trace_that_was_dropped_when_its_cycle_ended(
    reader: InMemoryMetricReader, autojump: AutojumpClock
) -> None:
    kept = InMemorySpanExporter()
    sampler, _ = CycleSampler.over(ALWAYS_ON, quiet_ratio=0.0)
    provider = TracerProvider(sampler, Resource.get_empty(), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    with use_provider(provider):
        await run(Fever(), MeterProvider([reader]), 6)

    spans = kept.get_finished_spans()
    assert values(reader, "mapek.cycle.duration")[None] >= 6
    assert 0 < len(ids(spans, "mape_k.cycle")) < 6
    assert examples(reader, "mapek.cycle.duration") == ids(spans, "mape_k.cycle")


async def test_a_cycle_that_is_cancelled_is_measured_too(
    reader: InMemoryMetricReader, recorder: Recorder, autojump: AutojumpClock
) -> None:
    async with Runtime(
        Fever(works_after=0, seconds=60.0), interval=100.0, meter_provider=MeterProvider([reader])
    ) as runtime:
        await asyncio.sleep(3.0)
        await runtime.cancel()

    assert runtime.statistics().cancelled == 1
    (point,) = metrics(reader)["mapek.cycle.duration"].data.data_points
    assert isinstance(point, HistogramDataPoint)
    assert point.count == 1
    assert point.sum == pytest.approx(3.0)


class Refuses(NoOpMeterProvider):
    """A provider whose instruments raise, as one with a broken view does."""

    def get_meter(self, *_: Any, **__: Any) -> Any:
        class Raises:
            def __getattr__(self, _name: str) -> Any:
                return lambda *_a, **_k: Broken()

        class Broken:
            def record(self, *_: Any, **__: Any) -> None:
                raise LookupError("a broken view")

            def add(self, amount: float, *_: Any, **__: Any) -> None:
                if amount:
                    raise LookupError("a broken view")

        return Raises()


async def test_a_broken_meter_provider_ends_no_cycle(
    recorder: Recorder, autojump: AutojumpClock, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        runtime = await run(Fever(), Refuses(), 3)

    assert runtime.statistics().cycles >= 3
    assert runtime.statistics().failed == 0
    assert "could not be written" in caplog.text


@pytest.mark.parametrize(
    ("name", "unit", "is_counter"),
    [
        ("mapek.cycle.duration", "s", False),
        ("mapek.phase.duration", "s", False),
        ("mapek.repair", "s", False),
        ("mapek.ticks", "{tick}", True),
        ("mapek.actions", "{action}", True),
    ],
)
async def test_names_and_units_are_as_documented(
    name: str, unit: str, is_counter: bool, reader: InMemoryMetricReader, recorder: Recorder,
    autojump: AutojumpClock,
) -> None:  # fmt: skip
    await run(Fever(), MeterProvider([reader]), 3)

    metric = metrics(reader)[name]

    assert metric.unit == unit
    assert isinstance(metric.data, Sum) is is_counter


def test_loops_of_one_provider_share_their_instruments() -> None:
    meters = MeterProvider()

    assert loop_metrics(meters) is loop_metrics(meters)
    assert loop_metrics(meters) is not loop_metrics(MeterProvider())
