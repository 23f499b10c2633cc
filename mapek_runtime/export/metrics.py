"""The metrics of processor and exporters, as the semantic conventions name them (`otel.sdk.*`).

Nothing is counted twice: whoever collects metrics has the account read, so that a program that
collects none pays nothing. Only the duration of an export is recorded, once a batch. All of it is on,
unless `OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED` is `false`; the metrics of the tracer, which cost
something for every span, are those of `trace.metered`.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation

from mapek_runtime.trace.meters import PerMeterProvider

from .account import SinkStatistics, Statistics
from .component import describe_component, number_of
from .environment import read_text

__all__ = ["ExporterMeter", "observe"]

SWITCH = "OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED"
METER = "opentelemetry-sdk"
COMPONENT = "batching_span_processor"
NEVER_PASSED_ON = ("queue_full", "already_shutdown", "encode")
"""Reasons for which a span is lost before it is passed on; the first two are the conventions'."""
PUSHED_OUT = "queue_full"
"""The reason for which an exporter's own queue drops a batch that the exporter never saw."""

Attributes = dict[str, str | int]
Values = Iterable[tuple[int, Attributes]]

_GRPC_CODES = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE",
    "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip


class ExporterMeter:
    """What one exporter is called in metrics, and how long its exports took.

    Costs nothing while nobody collects. An exporter of the SDK that meters itself is left alone.
    """

    def __init__(self, exporter: object, meter_provider: MeterProvider | None = None) -> None:
        component = describe_component(exporter)
        self.attributes: Attributes = dict(component.attributes)
        self.counts = _is_on() and not component.meters_itself
        """Whether this exporter's metrics are reported here."""
        self._rpc = component.is_rpc
        self._record = None
        if self.counts:
            self._record = _boards.of(meter_provider).duration.record

    def finished(
        self, seconds: float, *, error_type: str | None = None, status_code: int | None = None
    ) -> None:
        """An export has come to its end after `seconds`, all its attempts and the waits between included.

        `status_code` is the last answer's, of HTTP or gRPC; None when there was none. An export that
        was cancelled has not come to its end and is not told.
        """
        if self._record is None:
            return
        attributes = dict(self.attributes)
        if error_type is not None:
            attributes["error.type"] = error_type
        if self._rpc:
            if status_code is None and error_type in {None, "rejected"}:
                # A call that returned was OK, also where its answer refuses a part.
                status_code = 0
            if status_code is not None:
                known = 0 <= status_code < len(_GRPC_CODES)
                attributes["rpc.response.status_code"] = (
                    _GRPC_CODES[status_code] if known else str(status_code)
                )
        elif status_code is not None:
            attributes["http.response.status_code"] = status_code
        self._record(seconds, attributes)


def _is_on() -> bool:
    """Whether the environment leaves these metrics on."""
    return (read_text(SWITCH) or "").lower() != "false"


def observe(
    statistics: Callable[[], Statistics],
    capacity: int,
    meter_provider: MeterProvider | None,
    exporters: Mapping[str, ExporterMeter] | None = None,
) -> None:
    """Let `meter_provider`, else the global one, observe a processor through its method `statistics`.

    `exporters` gives the meter of each sink by the sink's name.
    """
    if _is_on():
        _boards.of(meter_provider).watch(_Watched(statistics, capacity, exporters or {}))


class _Watched:
    """One processor, for as long as it lives."""

    def __init__(
        self, statistics: Callable[[], Statistics], capacity: int, exporters: Mapping[str, ExporterMeter]
    ) -> None:
        # A meter lives as long as the program, and its callbacks with it.
        self.statistics = weakref.WeakMethod(statistics)
        self.capacity = capacity
        self.attributes: Attributes = {
            "otel.component.type": COMPONENT,
            "otel.component.name": f"{COMPONENT}/{number_of(COMPONENT)}",
        }
        self._exporters = exporters
        self._passed_on = 0

    def processed(self, now: Statistics) -> Values:
        """A span counts when it is passed on, whatever the exporter makes of it."""
        passed_on = max((_passed_on(sink) for sink in now.sinks.values()), default=0)
        # A batch that was on its way when the loop ended waits again: the counter stands still meanwhile.
        self._passed_on = max(passed_on, self._passed_on)
        if self._passed_on:
            yield self._passed_on, self.attributes
        for reason in NEVER_PASSED_ON:
            if lost := now.dropped.get(reason):
                yield lost, self.attributes | {"error.type": reason}

    def size(self, now: Statistics) -> Values:
        """Spans that wait for their export."""
        yield now.queued, self.attributes

    def room(self, _now: Statistics) -> Values:
        """Spans that may wait at most."""
        yield self.capacity, self.attributes

    def in_flight(self, now: Statistics) -> Values:
        """Spans that exporters have and have not reported on."""
        for meter, sink in self._sinks(now):
            yield sink.in_flight, meter.attributes

    def exported(self, now: Statistics) -> Values:
        """Spans by what became of them at an exporter."""
        for meter, sink in self._sinks(now):
            if sink.exported:
                yield sink.exported, meter.attributes
            for reason, count in sink.dropped.items():
                if reason != PUSHED_OUT:
                    yield count, meter.attributes | {"error.type": reason}

    def _sinks(self, now: Statistics) -> Iterator[tuple[ExporterMeter, SinkStatistics]]:
        for name, sink in now.sinks.items():
            meter = self._exporters.get(name)
            if meter is not None and meter.counts:
                yield meter, sink


class _Board:
    """The instruments on one meter provider: its processors share them."""

    def __init__(self, meter_provider: MeterProvider) -> None:
        meter = meter_provider.get_meter(METER)
        self._lock = threading.Lock()
        self._watched: list[_Watched] = []
        self.duration = meter.create_histogram(
            "otel.sdk.exporter.operation.duration",
            unit="s",
            description="The duration of exporting a batch of telemetry records.",
        )
        meter.create_observable_counter(
            "otel.sdk.processor.span.processed",
            [self._read(_Watched.processed)],
            unit="{span}",
            description="The number of spans for which the processing has finished, "
            "either successful or failed.",
        )
        meter.create_observable_up_down_counter(
            "otel.sdk.processor.span.queue.size",
            [self._read(_Watched.size)],
            unit="{span}",
            description="The number of spans in the queue of a given instance of an SDK span processor.",
        )
        meter.create_observable_up_down_counter(
            "otel.sdk.processor.span.queue.capacity",
            [self._read(_Watched.room)],
            unit="{span}",
            description="The maximum number of spans the queue of a given instance of an SDK span processor "
            "can hold.",
        )
        meter.create_observable_up_down_counter(
            "otel.sdk.exporter.span.inflight",
            [self._read(_Watched.in_flight)],
            unit="{span}",
            description="The number of spans which were passed to the exporter, but that have not been "
            "exported yet (neither successful, nor failed).",
        )
        meter.create_observable_counter(
            "otel.sdk.exporter.span.exported",
            [self._read(_Watched.exported)],
            unit="{span}",
            description="The number of spans for which the export has finished, either successful or failed.",
        )

    def watch(self, watched: _Watched) -> None:
        """Report a further processor, until it is gone."""
        with self._lock:
            self._watched = [each for each in self._watched if each.statistics() is not None]
            self._watched.append(watched)

    def _read(
        self, values: Callable[[_Watched, Statistics], Values]
    ) -> Callable[[CallbackOptions], list[Observation]]:
        def observed(_options: CallbackOptions) -> list[Observation]:
            found: list[Observation] = []
            for watched in self._watched:
                statistics = watched.statistics()
                if statistics is not None:
                    found += [Observation(value, more) for value, more in values(watched, statistics())]
            return found

        return observed


_boards = PerMeterProvider(_Board)


def _passed_on(sink: SinkStatistics) -> int:
    return sink.accepted - sink.queued - sink.dropped.get(PUSHED_OUT, 0)
