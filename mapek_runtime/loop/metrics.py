"""The loop's own metrics: how long cycles, phases and repairs take, and what became of ticks and actions.

They are `mapek.*` through OpenTelemetry's metrics API; Prometheus shows them as
`mapek_cycle_duration_seconds`, `mapek_phase_duration_seconds{phase}`, `mapek_repair_seconds`,
`mapek_ticks_total{result="ran|skipped|coalesced"}` and `mapek_actions_total{result}`. In a program
without a meter provider each is a call that does nothing.

Nothing tells nodes apart: a process has one, and where a demonstration has many their sum is wanted.
What is measured carries its span, so that a bucket leads to a cycle that fell into it. That is
decided when the cycle has ended, because until then it may not be known whether its trace is kept.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from opentelemetry.context import Context
from opentelemetry.metrics import MeterProvider, get_meter_provider
from opentelemetry.trace import NonRecordingSpan, SpanContext, set_span_in_context

from mapek_runtime.trace.meters import PerMeterProvider, is_stand_in

from .model import Cycle

__all__ = ["LoopMetrics", "Measuring", "loop_metrics"]

logger = logging.getLogger(__name__)

METER = "mapek_runtime.loop"
DURATIONS = (
    0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip
"""Seconds: from a phase that only looks up to the limit of Execute, for intervals of 0.1 to 5 s."""
REPAIRS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
"""Seconds from the first finding until the metric has recovered."""

Tick = Literal["skipped", "coalesced"]

_ROOT = Context()


class LoopMetrics:
    """The instruments of the loops of one process."""

    def __init__(self, meter_provider: MeterProvider) -> None:
        meter = meter_provider.get_meter(METER)
        self._cycles = meter.create_histogram(
            "mapek.cycle.duration",
            unit="s",
            description="How long cycles took, from Monitor to Knowledge.",
            explicit_bucket_boundaries_advisory=DURATIONS,
        )
        self._phases = meter.create_histogram(
            "mapek.phase.duration",
            unit="s",
            description="How long the phases that ran took.",
            explicit_bucket_boundaries_advisory=DURATIONS,
        )
        self._repairs = meter.create_histogram(
            "mapek.repair",
            unit="s",
            description="From the first finding until the metric had recovered.",
            explicit_bucket_boundaries_advisory=REPAIRS,
        )
        self._ticks = meter.create_counter(
            "mapek.ticks",
            unit="{tick}",
            description="Ticks and triggers that ran a cycle, were skipped, or joined one that waited.",
        )
        self._actions = meter.create_counter(
            "mapek.actions",
            unit="{action}",
            description="Actions that succeeded, failed, or were rejected before they were tried.",
        )

        # Until a program sets a provider the global one stands for it, and nothing is measured.
        self._stand_in = meter_provider if is_stand_in(meter_provider) else None
        if self._stand_in is None:
            self._begin()

    @property
    def idle(self) -> bool:
        """Whether nobody measures."""
        if self._stand_in is None:
            return False
        if get_meter_provider() is self._stand_in:
            return True
        self._stand_in = None
        self._begin()
        return False

    def _begin(self) -> None:
        # A series that begins at its first increment hides that increment from `rate()`.
        for tick in ("ran", "skipped", "coalesced"):
            self._ticks.add(0, {"result": tick}, context=_ROOT)
        for action in ("success", "failed", "rejected"):
            self._actions.add(0, {"result": action}, context=_ROOT)

    def tick(self, result: Tick, count: int = 1) -> None:
        """`count` ticks or triggers were skipped or coalesced; those that ran are counted by cycle."""
        if count and not self.idle:
            with _not_the_loops_fault():
                self._ticks.add(count, {"result": result}, context=_ROOT)

    def repaired(self, seconds: float, span_context: SpanContext | None) -> None:
        """A repair was verified; `span_context` is of the phase that carried the action out."""
        with _not_the_loops_fault():
            self._repairs.record(seconds, context=_beside(span_context))

    def measure(self, cycle: Cycle) -> Measuring:
        """A block around the span of a cycle; what was measured is written when it is left."""
        return Measuring(self, cycle)

    def write(self, cycle: Cycle, span: Any, phases: list[tuple[str, float, Any]]) -> None:
        """The cycle has ended: write its durations and what became of its actions."""
        beside = _beside(span.get_span_context())
        self._ticks.add(1, {"result": "ran"}, context=beside)
        self._cycles.record(cycle.duration, context=beside)
        for phase, seconds, its_span in phases:
            self._phases.record(seconds, {"phase": phase}, context=_beside(its_span.get_span_context()))
        failed = sum(not outcome.success for outcome in cycle.outcomes)
        results = {
            "success": len(cycle.outcomes) - failed,
            "failed": failed,
            "rejected": len(cycle.rejections),
        }
        for result, count in results.items():
            if count:
                self._actions.add(count, {"result": result}, context=beside)


class Measuring:
    """What is measured of one cycle; set `span` to the cycle's own."""

    def __init__(self, metrics: LoopMetrics, cycle: Cycle) -> None:
        self.span: Any = None
        self._metrics = metrics
        self._cycle = cycle
        self._phases: list[tuple[str, float, Any]] = []

    def phase(self, name: str, seconds: float, span: Any) -> None:
        """A phase took so long; `span` is its own."""
        self._phases.append((name, seconds, span))

    def __enter__(self) -> Measuring:
        return self

    def __exit__(self, *_: object) -> None:
        if self.span is not None and not self._metrics.idle:
            with _not_the_loops_fault():
                self._metrics.write(self._cycle, self.span, self._phases)


_made = PerMeterProvider(LoopMetrics)


def loop_metrics(meter_provider: MeterProvider | None = None) -> LoopMetrics:
    """The instruments on a meter provider, the global one unless given; all its loops share them."""
    return _made.of(meter_provider)


@contextmanager
def _not_the_loops_fault() -> Iterator[None]:
    """What a meter provider, its views or its filters raise is logged; no cycle ends of it."""
    try:
        yield
    except Exception:
        logger.exception("the metrics of the loop could not be written")


def _beside(span_context: SpanContext | None) -> Context:
    """A context in which that span is current; only a sampled one is taken as an example."""
    if span_context is None or not span_context.is_valid:
        return _ROOT
    return set_span_in_context(NonRecordingSpan(span_context), _ROOT)
