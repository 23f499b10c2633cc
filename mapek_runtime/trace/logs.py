"""Log lines that say which span they were written in.

    handler.addFilter(TraceIds())
    handler.setFormatter(logging.Formatter("%(message)s trace_id=%(otelTraceID)s span_id=%(otelSpanID)s"))

The names are those of OpenTelemetry's own logging instrumentation, so that its format strings and the
programs that read such lines go on working. The span is whatever is current where the line is logged,
under any provider. Knows the standard library's loggers only.
"""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

from opentelemetry import trace

from .active import active_provider

__all__ = ["CurrentIds", "TraceIds", "current_ids"]

SERVICE_NAME = "service.name"


class CurrentIds(NamedTuple):
    """The identity of the current span as it is written: lower-case hexadecimal digits."""

    trace_id: str
    span_id: str
    sampled: bool


def current_ids() -> CurrentIds | None:
    """The ids of the current span; None outside of any. Never raises."""
    try:
        context = trace.get_current_span().get_span_context()
        if not context.is_valid:
            return None
        return CurrentIds(
            trace.format_trace_id(context.trace_id),
            trace.format_span_id(context.span_id),
            context.trace_flags.sampled,
        )
    except Exception:  # noqa: BLE001 - a line without ids is better than none
        return None


class TraceIds(logging.Filter):
    """Lets every record through, with `otelTraceID`, `otelSpanID`, `otelTraceSampled` and `otelServiceName`.

    Outside a span the ids are "0". Put it on handlers: a logger's filters do not see what its children
    log. On a `QueueHandler` it runs where the line is logged; behind the queue there is no span any
    more, so what a record has already is left as it is.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the names to `record`."""
        known = record.__dict__
        if "otelTraceID" not in known:
            ids = current_ids()
            known["otelTraceID"] = "0" if ids is None else ids.trace_id
            known["otelSpanID"] = "0" if ids is None else ids.span_id
            known["otelTraceSampled"] = ids is not None and ids.sampled
        known.setdefault("otelServiceName", _service_name())
        return True


def _service_name() -> str:
    try:
        provider: Any = active_provider()
        resource = getattr(provider, "resource", None)
        return "" if resource is None else str(resource.attributes.get(SERVICE_NAME, ""))
    except Exception:  # noqa: BLE001 - as above
        return ""
