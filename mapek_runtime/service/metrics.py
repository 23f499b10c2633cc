"""Metrics of a run: a meter provider, where they go, and what is measured of the run as a whole.

They are read by `/metrics` and sent by OpenTelemetry's own OTLP exporter, which has a thread. That is
why nothing of it exists unless it is asked for.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from opentelemetry import metrics as metrics_api
from opentelemetry.metrics import CallbackOptions, Histogram, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

from mapek_runtime.config import Settings
from mapek_runtime.export.account import Statistics
from mapek_runtime.trace.identity import SAMPLED
from mapek_runtime.trace.meters import is_stand_in
from mapek_runtime.trace.span import Span
from mapek_runtime.trace.watching.histogram import LagHistogram

if TYPE_CHECKING:
    from mapek_runtime.web import PrometheusReader

__all__ = ["METER", "MeteredLag", "Metering", "TraceCounter", "open_metrics"]

logger = logging.getLogger(__name__)

METER = "mapek_runtime"
LAGS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_MOST_MISSED = 100
_LEAST = 0.1
"""Seconds that the last metrics have in any case: spans that could not be sent may have used up the rest."""
_SLACK = 0.05
"""Seconds more for the SDK, which waits as long as it may and then has things to close."""
_TRACES, _METRICS = "/v1/traces", "/v1/metrics"


class TraceCounter(SpanProcessor):
    """Counts the traces whose first span in this process has ended and is sampled; knows our spans only."""

    def __init__(self) -> None:
        self.count = 0
        self._lock = threading.Lock()

    def on_end(self, span: ReadableSpan) -> None:
        """Count it, if it is the first one here."""
        # What a span of ours has at hand: to ask it for its parent makes it build one.
        if type(span) is not Span or (span._parent_id and not span._parent_remote):
            return
        if span._flags & SAMPLED:
            # Spans end in other threads too.
            with self._lock:
                self.count += 1


class MeteredLag(LagHistogram):
    """A histogram of loop lag that also tells OpenTelemetry."""

    __slots__ = ("_told",)

    def __init__(self, told: Histogram) -> None:
        super().__init__()
        self._told = told

    def record(self, seconds: float, *, every: float | None = None) -> None:
        """Count a delay, and those that were not looked for meanwhile."""
        super().record(seconds, every=every)
        self._told.record(max(0.0, seconds))
        if every is not None:
            for missed in range(1, min(_MOST_MISSED, int(seconds / every)) + 1):
                if (left := seconds - missed * every) > 0:
                    self._told.record(left)


@dataclass(frozen=True, slots=True)
class Metering:
    """A run's meter provider, and the reader of `/metrics` where it is served."""

    provider: MeterProvider
    pages: PrometheusReader | None

    def observe_spans(self, statistics: Callable[[], Statistics], traces: TraceCounter) -> None:
        """Report what the processor has got and delivered, in all.

        `otel.traces.received` and `otel.spans.processed` are no convention's: dashboards of the seed
        ask for `otel_traces_received_total` and `otel_spans_processed_total`. What a convention says
        of the same is in `otel.sdk.*`, by component and reason.
        """
        meter = self.provider.get_meter(METER)

        def received(_options: CallbackOptions) -> list[Observation]:
            return [Observation(traces.count)]

        def processed(_options: CallbackOptions) -> list[Observation]:
            return [Observation(statistics().exported)]

        meter.create_observable_counter(
            "otel.traces.received",
            [received],
            unit="{trace}",
            description="Sampled traces whose first span in this process has ended.",
        )
        meter.create_observable_counter(
            "otel.spans.processed",
            [processed],
            unit="{span}",
            description="Spans that at least one exporter has delivered.",
        )

    def lag_histogram(self) -> MeteredLag:
        """The histogram for a `LoopLag`, which shows as `mapek_loop_lag_seconds`."""
        return MeteredLag(
            self.provider.get_meter(METER).create_histogram(
                "mapek.loop.lag",
                unit="s",
                description="How late the event loop was.",
                explicit_bucket_boundaries_advisory=LAGS,
            )
        )


@asynccontextmanager
async def open_metrics(
    settings: Settings, time_left: Callable[[], float] | None = None, *, pages: bool = False
) -> AsyncIterator[Metering | None]:
    """The meters of a run, None where metrics go nowhere; what was counted last is sent on exit.

    `pages` says that `/metrics` is served. `time_left` is asked at the end how many seconds it may take;
    unset: those of `export.shutdown`.
    It becomes OpenTelemetry's global meter provider where there is none yet, so that what plugins and
    instrumentations measure is shown too.
    """
    readers: list[MetricReader] = []
    shown: PrometheusReader | None = None
    if pages:
        # In a thread: it is the first of what serves that is imported.
        shown = await asyncio.to_thread(_prometheus_reader)
        readers.append(shown)
    if "otlp" in settings.metrics.exporters:
        # In a thread: it imports much, and reads certificates.
        readers.append(await asyncio.to_thread(_otlp_reader, settings))
    if not readers:
        yield None
        return
    # In a thread: the SDK asks its resource detectors in threads and waits for them.
    resource = await asyncio.to_thread(Resource.create, {SERVICE_NAME: settings.service_name})
    provider = MeterProvider(readers, resource, shutdown_on_exit=False)
    if is_stand_in(metrics_api.get_meter_provider()):
        metrics_api.set_meter_provider(provider)
    try:
        yield Metering(provider, shown)
    finally:
        await _close(provider, max(_LEAST, time_left() if time_left else settings.export.shutdown))


def _prometheus_reader() -> PrometheusReader:
    from mapek_runtime.web import PrometheusReader

    return PrometheusReader()


def _otlp_reader(settings: Settings) -> MetricReader:
    """The SDK's reader and exporter; what is not set here they read from `OTEL_*` themselves."""
    metrics = settings.metrics
    names = ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    protocol = next((os.environ[name].strip().lower() for name in names if os.environ.get(name)), "")
    exporter: Any
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as Grpc

        exporter = Grpc(endpoint=metrics.endpoint or None, timeout=metrics.timeout)
    else:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as Http

        exporter = Http(endpoint=metrics.endpoint or _beside_traces(settings), timeout=metrics.timeout)
    return PeriodicExportingMetricReader(
        exporter,
        export_interval_millis=None if metrics.interval is None else metrics.interval * 1000,
        export_timeout_millis=None if metrics.timeout is None else metrics.timeout * 1000,
    )


def _beside_traces(settings: Settings) -> str | None:
    """The collector that gets the spans, unless the environment names one for metrics."""
    names = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    spans = settings.export.endpoint
    if any(os.environ.get(name) for name in names) or not spans.endswith(_TRACES):
        return None
    return spans.removesuffix(_TRACES) + _METRICS


async def _close(provider: MeterProvider, limit: float) -> None:
    # A thread of its own and not one of the loop's, which asyncio waits for at the end without a limit.
    loop = asyncio.get_running_loop()
    closed: asyncio.Future[bool] = loop.create_future()

    def tell(in_time: bool) -> None:
        if not closed.done():
            closed.set_result(in_time)

    def close() -> None:
        started = time.monotonic()
        try:
            provider.shutdown(timeout_millis=limit * 1000)
        except Exception as error:  # noqa: BLE001 - the run has ended; what remains is to say so
            logger.warning("the last metrics may not have been sent: %s", type(error).__name__)
        try:
            # The SDK says nothing when the time is over; it leaves its own thread behind.
            loop.call_soon_threadsafe(tell, time.monotonic() - started < limit)
        except RuntimeError:
            logger.debug("the loop was closed before the metrics were")

    threading.Thread(target=close, name="mapek-metrics-close", daemon=True).start()
    done, _ = await asyncio.wait((closed,), timeout=limit + _SLACK)
    if not (done and closed.result()):
        logger.warning("the last metrics were not sent within the %.3g s that were left for them", limit)
