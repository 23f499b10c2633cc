"""Switching on the instrumentation of aiohttp and httpx, so that a trace goes on in other services."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor
from opentelemetry.instrumentation.aiohttp_server import AioHttpServerInstrumentor
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.trace import TracerProvider

__all__ = ["instrumented", "without_advice"]

_INSTRUMENTORS: tuple[Any, ...] = (
    AioHttpClientInstrumentor,
    AioHttpServerInstrumentor,
    HTTPXClientInstrumentor,
)


@contextmanager
def instrumented(provider: TracerProvider) -> Iterator[None]:
    """Clients and servers made inside the block open spans of `provider`.

    What another part of the program has instrumented already stays as it is.
    """
    with ExitStack() as stack:
        for make in _INSTRUMENTORS:
            instrumentor = make()
            if not instrumentor.is_instrumented_by_opentelemetry:
                with without_advice():
                    instrumentor.instrument(tracer_provider=provider)
                stack.callback(instrumentor.uninstrument)
        yield


@contextmanager
def without_advice() -> Iterator[None]:
    """No warnings that concern whoever wrote an instrumentation, and not who switches it on."""
    with warnings.catch_warnings():
        # aiohttp advises against subclassing Application, which is how it is instrumented.
        warnings.filterwarnings("ignore", "Inheritance class", DeprecationWarning)
        yield
