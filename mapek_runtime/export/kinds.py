"""Which kind of sink an exporter needs, and what it is called.

Exporters are told apart by what they can do, not by a base class; whoever brings one imports nothing
of ours.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable
from typing import Any

from opentelemetry.metrics import MeterProvider
from opentelemetry.sdk.trace.export import SpanExporter

from .metrics import ExporterMeter
from .notice import Notices
from .sink import AsyncSpanExporter, ByteExporter, Sink, SpanSink
from .spool.exporter import SpooledExporter
from .spool.sink import SpoolSink
from .worker import WorkerSink

__all__ = ["Exporter", "name_sinks"]

Exporter = ByteExporter | SpooledExporter | AsyncSpanExporter | SpanExporter


def name_sinks(
    exporters: tuple[Exporter, ...],
    timeout: float,
    notices: Notices,
    meter_provider: MeterProvider | None,
) -> tuple[Sink, ...]:
    """A sink for each exporter, with its meter.

    Named by class; several of one class by their address too, or by number. Raises TypeError for what
    is no exporter.
    """
    inner = [each.exporter if isinstance(each, SpooledExporter) else each for each in exporters]
    classes = [type(each).__name__ for each in inner]
    sinks: dict[str, Sink] = {}
    for exporter, called, name in zip(exporters, inner, classes, strict=True):
        where = getattr(called, "endpoint", None)
        full = f"{name} {where}" if classes.count(name) > 1 and isinstance(where, str) else name
        numbered = (f"{full}/{number}" if number > 1 else full for number in itertools.count(1))
        unique = next(each for each in numbered if each not in sinks)
        sink = sinks[unique] = _kind_of(exporter)(unique, exporter, timeout, notices)
        sink.meter = ExporterMeter(sink.exporter, meter_provider)
    return tuple(sinks.values())


def _kind_of(exporter: Any) -> Callable[[str, Any, float, Notices], Sink]:
    if isinstance(exporter, SpooledExporter):
        return SpoolSink
    if inspect.iscoroutinefunction(getattr(exporter, "send", None)):
        return Sink
    export = getattr(exporter, "export", None)
    if callable(export):
        if inspect.iscoroutinefunction(export) or inspect.iscoroutinefunction(
            getattr(exporter, "aclose", None)
        ):
            return SpanSink
        if callable(getattr(exporter, "shutdown", None)):
            return WorkerSink
    raise TypeError(
        f"{exporter!r} is no exporter; it needs async send(payload, count) or async export(spans), "
        "with async aclose(), or to be a SpanExporter of the SDK"
    )
