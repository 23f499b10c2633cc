"""What the trace store and its receiver measure of themselves, as OpenTelemetry metrics.

They count for themselves, so that nothing is spent where nobody asks; here their counts are read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from opentelemetry.metrics import CallbackOptions, Meter, Observation

if TYPE_CHECKING:
    from mapek_runtime.store import StoreStatistics
    from mapek_runtime.web.otlp import ReceiverStatistics

__all__ = ["observe_receiver", "observe_store"]

_Measured = tuple[str, str, str, Callable[[], float]]
"""Name, unit, description, value."""


def observe_store(meter: Meter, statistics: Callable[[], StoreStatistics]) -> None:
    """Report what is in the store, and what writing it took."""
    gauges: tuple[_Measured, ...] = (
        ("mapek.store.spans", "{span}", "Spans in the trace store.", lambda: statistics().spans),
        ("mapek.store.size", "By", "Bytes of the trace store.", lambda: statistics().bytes),
    )
    counters: tuple[_Measured, ...] = (
        ("mapek.store.spans.written", "{span}", "Spans written.", lambda: statistics().written),
        ("mapek.store.spans.deleted", "{span}", "Spans let go by age or size.", lambda: statistics().deleted),
        ("mapek.store.transactions", "{transaction}", "Transactions.", lambda: statistics().transactions),
        ("mapek.store.write.time", "s", "Time that writing took.", lambda: statistics().busy),
    )
    for name, unit, description, value in gauges:
        meter.create_observable_gauge(name, [_always(value)], unit=unit, description=description)
    for name, unit, description, value in counters:
        meter.create_observable_counter(name, [_always(value)], unit=unit, description=description)


def observe_receiver(meter: Meter, statistics: ReceiverStatistics) -> None:
    """Report what others sent."""

    def spans(_options: CallbackOptions) -> list[Observation]:
        return [
            Observation(statistics.accepted, {"outcome": "accepted"}),
            *(
                Observation(count, {"outcome": "rejected", "reason": reason})
                for reason, count in statistics.rejected.items()
            ),
        ]

    def requests(_options: CallbackOptions) -> list[Observation]:
        refused = statistics.refused
        return [
            Observation(statistics.requests - sum(refused.values()), {"http.response.status_code": 200}),
            *(Observation(count, {"http.response.status_code": status}) for status, count in refused.items()),
        ]

    meter.create_observable_counter(
        "mapek.receiver.spans", [spans], unit="{span}", description="Spans that others sent."
    )
    meter.create_observable_counter(
        "mapek.receiver.requests", [requests], unit="{request}", description="Requests with spans of others."
    )
    meter.create_observable_counter(
        "mapek.receiver.size",
        [_always(lambda: statistics.bytes)],
        unit="By",
        description="Bytes of such requests, as they came.",
    )


def _always(value: Callable[[], float]) -> Callable[[CallbackOptions], list[Observation]]:
    return lambda _options: [Observation(value())]
