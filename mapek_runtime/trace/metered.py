"""A tracer that counts: how many spans were started, and how many are open (`otel.sdk.span.*`).

As in the SDK this is off unless `OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED` is true, because to count a
span costs several times what a span costs: every start is decided in `place`, where it is counted. A
tracer that does not count pays nothing for it. The counts are read when somebody collects.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from opentelemetry import trace as trace_api
from opentelemetry.metrics import MeterProvider, Observation
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.sdk.util.instrumentation import InstrumentationInfo, InstrumentationScope

from .identity import SAMPLED
from .meters import PerMeterProvider
from .pipeline import Pipeline
from .ring import Tally
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


class _Counts:
    """The counts of all tracers of one meter provider; raised in any thread without a lock."""

    def __init__(self, meter_provider: MeterProvider) -> None:
        self._started: dict[tuple[str, str], Tally] = {}
        self._open: dict[str, tuple[Tally, Tally]] = {}
        meter = meter_provider.get_meter("opentelemetry-sdk")
        meter.create_observable_counter(
            "otel.sdk.span.started",
            [lambda _options: self._read_started()],
            unit="{span}",
            description="The number of created spans.",
        )
        meter.create_observable_up_down_counter(
            "otel.sdk.span.live",
            [lambda _options: self._read_live()],
            unit="{span}",
            description="The number of created spans with `recording=true` for which the end operation "
            "has not been called yet.",
        )

    def start(self, origin: str, result: str, *, recorded: bool) -> None:
        """A span was started."""
        tally = self._started.get((origin, result))
        if tally is None:
            tally = self._started.setdefault((origin, result), Tally())
        tally.add()
        if recorded:
            self._recorded(result)[0].add()

    def end(self, result: str) -> None:
        """A span that is recorded has ended."""
        self._recorded(result)[1].add()

    def _recorded(self, result: str) -> tuple[Tally, Tally]:
        return self._open.get(result) or self._open.setdefault(result, (Tally(), Tally()))

    def _read_started(self) -> Iterator[Observation]:
        for (origin, result), tally in tuple(self._started.items()):
            yield Observation(tally.read(), {ORIGIN: origin, RESULT: result})

    def _read_live(self) -> Iterator[Observation]:
        for result, (started, ended) in tuple(self._open.items()):
            # In this order: a span that ends between the two looks is still open, and none is twice.
            gone = ended.read()
            yield Observation(started.read() - gone, {RESULT: result})


_counts = PerMeterProvider(_Counts)


class MeteredTracer(Tracer):
    """Makes spans and counts them."""

    def __init__(
        self, provider: TracerProvider, info: InstrumentationInfo, scope: InstrumentationScope
    ) -> None:
        super().__init__(provider, info, scope)
        self._counts = _counts.of(provider._meter_provider)
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
            self._counts.start(_origin_of(given), _result_of(placed), recorded=type(placed) is Span)
        return placed

    def _end(self, span: Span) -> None:
        self._counts.end(_result_of(span))


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
