"""Tracing: context → span → ring.

OpenTelemetry's API outside, a lean recorder inside. This layer knows no exporter and no loop: it
makes spans right and cheap, and hands ended ones to the processors of its provider.
"""

from __future__ import annotations

from .active import active_provider, use_provider
from .decorator import traced
from .dropped import DroppedSpan
from .handover import TracedQueue, run_in_executor, spawn, thread
from .logs import TraceIds
from .provider import TracerProvider
from .scope import SpanScope
from .span import Span
from .spec import Key, NodeId, SpanFactory, SpanGroup
from .tracer import Tracer
from .watching import LiveSpans, LoopLag, OpenSpan

__all__ = [
    "DroppedSpan",
    "Key",
    "LiveSpans",
    "LoopLag",
    "NodeId",
    "OpenSpan",
    "Span",
    "SpanFactory",
    "SpanGroup",
    "SpanScope",
    "TraceIds",
    "TracedQueue",
    "Tracer",
    "TracerProvider",
    "active_provider",
    "run_in_executor",
    "spawn",
    "thread",
    "traced",
    "use_provider",
]
