"""Which kind of sink an exporter needs, and what it is called.

Exporters are told apart by what they can do, not by a base class; whoever brings one imports nothing
of ours.
"""

from __future__ import annotations

import inspect
from typing import Any

from .notice import Notices
from .sink import Exporter, Sink, SpanSink
from .worker import WorkerSink

__all__ = ["name_sinks"]


def name_sinks(exporters: tuple[Exporter, ...], timeout: float, notices: Notices) -> tuple[Sink, ...]:
    """A sink for each exporter; those of one class are numbered.

    Raises TypeError for what is no exporter.
    """
    sinks: list[Sink] = []
    for exporter in exporters:
        name = type(exporter).__name__
        taken = sum(sink.name.split("/")[0] == name for sink in sinks)
        kind = _kind_of(exporter)
        sinks.append(kind(f"{name}/{taken + 1}" if taken else name, exporter, timeout, notices))
    return tuple(sinks)


def _kind_of(exporter: Any) -> type[Sink]:
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
