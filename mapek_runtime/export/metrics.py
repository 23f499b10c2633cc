"""The processor's own metrics, as the semantic conventions name them (`otel.sdk.processor.span.*`).

Nothing is counted twice: whoever collects metrics has the account read. As in the SDK they are off
unless `OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED` is true.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterable

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation, get_meter_provider

from .account import Statistics
from .environment import read_text

__all__ = ["observe"]

SWITCH = "OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED"
COMPONENT = "batching_span_processor"
NEVER_PASSED_ON = ("queue_full", "already_shutdown")
"""Reasons for which a span is lost before an exporter has seen it, as the conventions name them."""

_numbers = itertools.count()


def observe(
    statistics: Callable[[], Statistics], capacity: int, meter_provider: MeterProvider | None
) -> None:
    """Let `meter_provider`, else the global one, observe a processor through its method `statistics`."""
    if (read_text(SWITCH) or "").lower() != "true":
        return
    meter = (meter_provider or get_meter_provider()).get_meter("opentelemetry-sdk")
    # Never the process id or a UUID: the number keeps the series of a restarted program together.
    component = {"otel.component.type": COMPONENT, "otel.component.name": f"{COMPONENT}/{next(_numbers)}"}
    # A meter lives as long as the program, and its callbacks with it.
    found = weakref.WeakMethod(statistics)

    def read(
        values: Callable[[Statistics], Iterable[tuple[int, dict[str, str]]]],
    ) -> Callable[[CallbackOptions], list[Observation]]:
        def observed(_options: CallbackOptions) -> list[Observation]:
            look = found()
            if look is None:
                return []
            return [Observation(value, component | more) for value, more in values(look())]

        return observed

    meter.create_observable_counter(
        "otel.sdk.processor.span.processed",
        [read(_processed)],
        unit="{span}",
        description="Spans handed to the exporters, or lost before.",
    )
    meter.create_observable_up_down_counter(
        "otel.sdk.processor.span.queue.size",
        [read(lambda now: [(now.queued, {})])],
        unit="{span}",
        description="Spans that wait for their export.",
    )
    meter.create_observable_up_down_counter(
        "otel.sdk.processor.span.queue.capacity",
        [read(lambda _now: [(capacity, {})])],
        unit="{span}",
        description="Spans that may wait at most.",
    )


def _processed(statistics: Statistics) -> Iterable[tuple[int, dict[str, str]]]:
    # A span counts when it is passed on, whatever the exporter makes of it.
    passed_on = max(sink.accepted for sink in statistics.sinks.values())
    if passed_on:
        yield passed_on, {}
    for reason in NEVER_PASSED_ON:
        if lost := statistics.dropped.get(reason):
            yield lost, {"error.type": reason}
