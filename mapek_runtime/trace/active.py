"""Which provider declared spans go to.

A `SpanGroup` is declared at import, long before a provider exists, so its tracer is looked up when a
span starts: the provider given to `use_provider`, else OpenTelemetry's global one, else none.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import trace as trace_api

__all__ = ["LateTracer", "active_provider", "use_provider"]

_active: trace_api.TracerProvider | None = None


def active_provider() -> trace_api.TracerProvider | None:
    """The provider in force; None while there is none."""
    if _active is not None:
        return _active
    provider = trace_api.get_tracer_provider()
    return None if isinstance(provider, trace_api.ProxyTracerProvider) else provider


@contextmanager
def use_provider(provider: trace_api.TracerProvider) -> Iterator[None]:
    """Send declared spans to `provider` inside the block; the global provider stays as it is.

    In force for the whole process, not for one task: a ContextVar would cost every span.
    """
    global _active  # noqa: PLW0603 - see above
    before, _active = _active, provider
    try:
        yield
    finally:
        _active = before


class LateTracer:
    """A tracer that is looked up when it is needed, and again when the provider changes."""

    __slots__ = ("_name", "_provider", "_tracer")

    def __init__(self, name: str) -> None:
        self._name = name
        self._provider: trace_api.TracerProvider | None = None
        self._tracer: trace_api.Tracer | None = None

    def get(self) -> trace_api.Tracer | None:
        """The tracer of the provider in force; None while there is none."""
        provider = _active
        if provider is None:
            provider = active_provider()
        if provider is not self._provider:
            self._provider = provider
            tracer = None if provider is None else provider.get_tracer(self._name)
            # A tracer that does nothing is no tracer: the block then costs next to nothing.
            self._tracer = None if type(tracer) is trace_api.NoOpTracer else tracer
        return self._tracer
