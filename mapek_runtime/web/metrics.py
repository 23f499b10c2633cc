"""A reader of OpenTelemetry's metrics that writes them as Prometheus and OpenMetrics read them.

The text is written by Prometheus' own client. What stands between the two is here because
`opentelemetry-exporter-prometheus` loses exemplars, and they are what leads from a bucket to a trace.
Names follow OpenTelemetry's compatibility specification: `mapek.cycle.duration` in `s` is
`mapek_cycle_duration_seconds`.
"""

from __future__ import annotations

import json
import logging
import re
import threading
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricReader,
    MetricsData,
    Sum,
)
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client import Metric as Family
from prometheus_client import exposition
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar
from prometheus_client.utils import floatToGoString

from mapek_runtime.export.beside import beside_the_loop

__all__ = ["PrometheusReader"]

logger = logging.getLogger(__name__)

OWN = "mapek_runtime"
"""Meters whose names nobody else uses, so that no label has to tell them apart."""
_UNITS = {
    "d": "days", "h": "hours", "min": "minutes", "s": "seconds", "ms": "milliseconds", "us": "microseconds",
    "ns": "nanoseconds", "By": "bytes", "KiBy": "kibibytes", "MiBy": "mebibytes", "GiBy": "gibibytes",
    "kBy": "kilobytes", "MBy": "megabytes", "GBy": "gigabytes", "Cel": "celsius", "Hz": "hertz",
    "%": "percent",
}  # fmt: skip
_ILLEGAL = re.compile(r"[^a-zA-Z0-9_:]")
_ILLEGAL_IN_LABEL = re.compile(r"[^a-zA-Z0-9]+")
SeriesKey = tuple[str, tuple[tuple[str, str], ...]]
Examples = dict[SeriesKey, dict[int, Exemplar]]
"""The newest example of each bucket of each series."""


class PrometheusReader(MetricReader):
    """Give it to an SDK `MeterProvider`; `render` writes what the provider has at that moment."""

    def __init__(self) -> None:
        super().__init__()
        self._one_at_a_time = threading.Lock()
        self._received: MetricsData | None = None
        self._examples: Examples = {}

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The metrics in the format that the header `accept` asks for, and its content type.

        Takes long where there are many series, so it is called in a thread.
        """
        write, content_type = exposition.choose_encoder(accept)
        with self._one_at_a_time, beside_the_loop():
            self._received = None
            self.collect()
            received, self._received = self._received, None
            return write(_Families(received, self._examples)), content_type

    def _receive_metrics(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **_: Any) -> None:
        self._received = metrics_data

    def shutdown(self, timeout_millis: float = 30_000, **_: Any) -> None:
        """Nothing is open."""


class _Families(Collector):
    """What the client library writes: families of samples, made as they are asked for."""

    def __init__(self, data: MetricsData | None, examples: Examples) -> None:
        self._data = data
        self._examples = examples

    def collect(self) -> Iterator[Family]:
        if self._data is None:
            return
        families: dict[str, Family] = {}
        seen: set[SeriesKey] = set()
        for resource in self._data.resource_metrics:
            target = families.setdefault("target", InfoMetricFamily("target", "Target metadata"))
            if not target.samples:
                target.add_metric((), _labels(resource.resource.attributes))  # type: ignore[attr-defined]
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    self._add(families, seen, metric, _scope_labels(scope.scope))
        yield from families.values()

    def _add(
        self, families: dict[str, Family], seen: set[SeriesKey], metric: Metric, scope: Mapping[str, str]
    ) -> None:
        made = _family(metric)
        if made is None:
            return
        # Several meters may use a name; it is written once, with the help of whoever came first.
        family = families.setdefault(made.name, made)
        if type(family) is not type(made):
            logger.debug("metric %r is both a %s and a %s; only the first is shown", made.name,
                         family.type, made.type)  # fmt: skip
            return
        for point in metric.data.data_points:
            labels = {**scope, **_labels(point.attributes or {})}
            key = made.name, tuple(sorted(labels.items()))
            if key in seen:
                # A scrape with one series twice is refused as a whole.
                continue
            seen.add(key)
            # The SDK gives each example once; it is told until there is a newer one, or whoever asks
            # first (a person, the other one of a pair of servers) would have it alone.
            remember = self._examples.setdefault if point.exemplars else self._examples.get
            _write(family, labels, point, remember(key, {}))


def _family(metric: Metric) -> Family | None:
    data = metric.data
    unit = _unit(metric.unit or "", is_gauge=isinstance(data, Gauge))
    name = _ILLEGAL.sub("_", metric.name)
    if name[:1].isdigit():
        name = f"_{name}"
    help_text = metric.description or ""
    match data:
        case Histogram():
            return HistogramMetricFamily(name, help_text, labels=(), unit=unit)
        case Sum(is_monotonic=True, aggregation_temporality=AggregationTemporality.CUMULATIVE):
            return CounterMetricFamily(name, help_text, labels=(), unit=unit)
        case Sum() | Gauge():
            return GaugeMetricFamily(name, help_text, labels=(), unit=unit)
        case _:
            logger.debug("metric %r is of a kind that the text formats do not have", metric.name)
            return None


def _write(family: Family, labels: Mapping[str, str], point: Any, examples: dict[int, Exemplar]) -> None:
    is_histogram = isinstance(point, HistogramDataPoint)
    for found in sorted(point.exemplars, key=_time):
        if found.trace_id and found.span_id:
            examples[bisect_left(point.explicit_bounds, found.value) if is_histogram else 0] = _exemplar(
                found
            )
    if is_histogram:
        total = 0
        bounds: Sequence[float] = (*point.explicit_bounds, float("inf"))
        for index, (bound, count) in enumerate(zip(bounds, point.bucket_counts, strict=True)):
            total += count
            le = floatToGoString(bound)  # type: ignore[no-untyped-call]
            family.add_sample(
                f"{family.name}_bucket", {**labels, "le": le}, total, exemplar=examples.get(index)
            )
        family.add_sample(f"{family.name}_count", dict(labels), total)
        family.add_sample(f"{family.name}_sum", dict(labels), point.sum)
    elif family.type == "counter":
        family.add_sample(f"{family.name}_total", dict(labels), point.value, exemplar=examples.get(0))
    else:
        family.add_sample(family.name, dict(labels), point.value)


def _time(found: Any) -> int:
    at: int = found.time_unix_nano
    return at


def _exemplar(found: Any) -> Exemplar:
    ids = {"trace_id": f"{found.trace_id:032x}", "span_id": f"{found.span_id:016x}"}
    return Exemplar(ids, found.value, found.time_unix_nano / 1e9)


def _unit(unit: str, *, is_gauge: bool) -> str:
    if unit == "1":
        return "ratio" if is_gauge else ""
    # Braces are a comment: `{span}` has no unit.
    plain = re.sub(r"\{[^}]*\}", "", unit)
    amount, slash, per = plain.partition("/")
    words = _ILLEGAL_IN_LABEL.sub("_", _UNITS.get(amount, amount)).strip("_")
    if slash and per:
        words += f"_per_{_UNITS.get(per, per).removesuffix('s')}"
    return words.strip("_")


def _scope_labels(scope: InstrumentationScope) -> dict[str, str]:
    if scope.name.split(".")[0] == OWN:
        return {}
    labels = {"otel_scope_name": scope.name}
    if scope.version:
        labels["otel_scope_version"] = scope.version
    return labels


def _labels(attributes: Mapping[str, Any]) -> dict[str, str]:
    labels: dict[str, str] = {}
    for key, value in sorted(attributes.items()):
        # Two underscores at the beginning are Prometheus' own, and so is the label of a bucket.
        name = _ILLEGAL_IN_LABEL.sub("_", key)
        if name[:1].isdigit():
            name = f"_{name}"
        if name == "le":
            name = "le_"
        text = value if isinstance(value, str) else json.dumps(value, default=str)
        labels[name] = f"{labels[name]};{text}" if name in labels else text
    return labels
