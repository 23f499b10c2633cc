"""The tracers that benchmarks compare: ours and the stock SDK's, recording, unsampled and off.

A variant that records has a processor which does nothing, so that only the making of spans is timed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from unittest import mock

from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.environment_variables import OTEL_SDK_DISABLED
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, TraceIdRatioBased
from opentelemetry.trace import NoOpTracerProvider, Tracer, TracerProvider

from mapek_runtime import TracerProvider as LeanProvider

__all__ = ["PROVIDERS", "Discard", "tracer"]


class Discard(sdk.SpanProcessor):
    """Takes every span and does nothing with it."""

    def __init__(self) -> None:
        self.ended = 0

    def on_end(self, span: sdk.ReadableSpan) -> None:
        """Count it, so that no interpreter can leave the call out."""
        self.ended += 1


def _with_discard(provider: sdk.TracerProvider) -> sdk.TracerProvider:
    provider.add_span_processor(Discard())
    return provider


def _disabled() -> sdk.TracerProvider:
    # Read when the provider is made.
    with mock.patch.dict(os.environ, {OTEL_SDK_DISABLED: "true"}):
        return _with_discard(sdk.TracerProvider(shutdown_on_exit=False))


def _one_in_a_hundred() -> ParentBased:
    return ParentBased(TraceIdRatioBased(0.01))


PROVIDERS: dict[str, Callable[[], TracerProvider]] = {
    "stock SDK": lambda: _with_discard(sdk.TracerProvider(shutdown_on_exit=False)),
    "stock SDK, unsampled": lambda: _with_discard(
        sdk.TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    ),
    "stock SDK, 1 in 100": lambda: _with_discard(
        sdk.TracerProvider(sampler=_one_in_a_hundred(), shutdown_on_exit=False)
    ),
    "stock SDK, disabled": _disabled,
    "recorded": lambda: _with_discard(LeanProvider(shutdown_on_exit=False)),
    "unsampled": lambda: _with_discard(LeanProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)),
    "1 in 100": lambda: _with_discard(LeanProvider(sampler=_one_in_a_hundred(), shutdown_on_exit=False)),
    "off": NoOpTracerProvider,
}


def tracer(name: str) -> Tracer:
    """A tracer of that variant."""
    return PROVIDERS[name]().get_tracer("benchmarks")
