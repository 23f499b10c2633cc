"""A tracer that counts: how many spans were started, and how many are open (`otel.sdk.span.*`).

As in the SDK this is off unless `OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED` is true. Then every start
is decided in `place`, where it is counted; a tracer that does not count pays nothing for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from opentelemetry import trace as trace_api
from opentelemetry.metrics import get_meter_provider
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.sdk.util.instrumentation import InstrumentationInfo, InstrumentationScope

from .identity import SAMPLED
from .pipeline import Pipeline
from .span import Span
from .tracer import Tracer

if TYPE_CHECKING:
    from .provider import TracerProvider

__all__ = ["MeteredTracer", "tracer_class"]

SWITCH = "OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED"
ORIGIN = "otel.span.parent.origin"
RESULT = "otel.span.sampling_result"


def tracer_class() -> type[Tracer]:
    """The class of tracer that the environment asks for."""
    return MeteredTracer if os.environ.get(SWITCH, "").strip().lower() == "true" else Tracer


class MeteredTracer(Tracer):
    """Makes spans and counts them."""

    def __init__(
        self, provider: TracerProvider, info: InstrumentationInfo, scope: InstrumentationScope
    ) -> None:
        super().__init__(provider, info, scope)
        meter = (provider._meter_provider or get_meter_provider()).get_meter("opentelemetry-sdk")
        self._started = meter.create_counter(
            "otel.sdk.span.started", unit="{span}", description="Spans started, recorded or not."
        )
        self._live = meter.create_up_down_counter(
            "otel.sdk.span.live", unit="{span}", description="Recorded spans that have not ended."
        )
        self.pipeline: Any = _CountedPipeline(provider._pipeline, self._end)

    def _set_tracer_config(self, tracer_config: sdk._TracerConfig) -> None:
        super()._set_tracer_config(tracer_config)
        # Nothing is decided without `place`.
        self.admits_roots = self.admits_children = False
        self.scope_class = Span

    def place(self, span: Any, current: Any) -> Any:
        """Give the span its identity, and count it."""
        options = span._options
        placed = super().place(span, current)
        if self._tracer_config.is_enabled:
            given = current if options is None or options.context is None else options.context
            result = _result_of(placed)
            self._started.add(1, {ORIGIN: _origin_of(given), RESULT: result})
            if type(placed) is Span:
                self._live.add(1, {RESULT: result})
        return placed

    def _end(self, span: Span) -> None:
        self._live.add(-1, {RESULT: _result_of(span)})


class _CountedPipeline:
    """The provider's pipeline as it is at each moment, with the count of what has ended."""

    def __init__(self, pipeline: Pipeline, end: Callable[..., None]) -> None:
        self._pipeline = pipeline
        self._end = end

    @property
    def on_start(self) -> tuple[Callable[..., None], ...]:
        return self._pipeline.on_start

    @property
    def on_ending(self) -> tuple[Callable[..., None], ...]:
        # Also a span that is held back has ended.
        return (self._end, *self._pipeline.on_ending)

    @property
    def on_end(self) -> tuple[Callable[..., None], ...]:
        return self._pipeline.on_end

    def end(self, span: Span) -> None:
        self._end(span)
        self._pipeline.end(span)


def _result_of(span: Any) -> str:
    if type(span) is not Span:
        return Decision.DROP.name
    return (Decision.RECORD_AND_SAMPLE if span._flags & SAMPLED else Decision.RECORD_ONLY).name


def _origin_of(parent: Any) -> str:
    context: Any = parent if isinstance(parent, dict) else parent.as_context()
    above = trace_api.get_current_span(context).get_span_context()
    if not above.is_valid:
        return "none"
    return "remote" if above.is_remote else "local"
