"""The trace context that a message carries: two short texts, written and read as the process is set up to.

With OpenTelemetry's own propagators, W3C Trace Context and baggage (which no message carries), the texts are
written and read here: what a message costs by the general way is more than the span that it is for. Any
other propagator is asked, and so it is about every text that is not quite usual; the result is the same.
"""

from __future__ import annotations

import re

from opentelemetry import propagate, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context.context import Context
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

__all__ = ["read", "write"]

_USUAL = re.compile("00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})").fullmatch
"""A `traceparent` of the version that there is (W3C Trace Context, 3.2.2)."""
_EMPTY = Context()
_NO_STATE = TraceState.get_default()
_FLAGS = tuple(map(TraceFlags, range(256)))
(_SPAN,) = trace.set_span_in_context(trace.INVALID_SPAN, _EMPTY)
"""Under which name a context has its span."""


def write(span: trace.Span) -> tuple[str, str]:
    """The `traceparent` and the `tracestate` for a span, which is the current one; empty where it is none."""
    sender = span.get_span_context()
    state = sender.trace_state
    if (state is _NO_STATE or not state) and sender.is_valid and _is_default(propagate.get_global_textmap()):
        return f"00-{sender.trace_id:032x}-{sender.span_id:016x}-{sender.trace_flags:02x}", ""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier.get("traceparent", ""), carrier.get("tracestate", "")


def read(traceparent: str, tracestate: str) -> Context:
    """The context that these texts stand for, with nothing else in it; an empty one where they are wrong."""
    usual = None if tracestate else _USUAL(traceparent)
    if usual is not None and _is_default(propagate.get_global_textmap()):
        trace_id, span_id, flags = usual.groups()
        sender = SpanContext(int(trace_id, 16), int(span_id, 16), True, _FLAGS[int(flags, 16)], _NO_STATE)
        return Context({_SPAN: NonRecordingSpan(sender)}) if sender.is_valid else _EMPTY
    return propagate.extract({"traceparent": traceparent, "tracestate": tracestate}, _EMPTY)


_asked: TextMapPropagator | None = None
_answer = False


def _is_default(propagator: TextMapPropagator) -> bool:
    """Whether these are the propagators that OpenTelemetry has by default; the last answer is remembered."""
    global _asked, _answer
    if propagator is not _asked:
        _asked, _answer = propagator, _looks_default(propagator)
    return _answer


def _looks_default(propagator: TextMapPropagator) -> bool:
    # Exactly these: an heir may do more.
    parts = list(propagator._propagators) if type(propagator) is CompositePropagator else [propagator]
    kinds = [type(part) for part in parts]
    return kinds in ([TraceContextTextMapPropagator, W3CBaggagePropagator], [TraceContextTextMapPropagator])
