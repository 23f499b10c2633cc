"""Spans for the requests of one web application, aiohttp's or FastAPI's.

Neither framework is imported here: an application that exists has brought its own.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable
from typing import Any

from opentelemetry.trace import TracerProvider

from mapek_runtime.errors import ConfigError, EngineUnavailable

__all__ = ["find_instrumentation"]

_FASTAPI = "opentelemetry-instrumentation-fastapi"


def find_instrumentation(app: object) -> Callable[[TracerProvider], None]:
    """What makes each request to `app` open a span of the provider it is given.

    Raises TypeError for something else than an application, `ConfigError` for one that is already
    serving, and `EngineUnavailable` for a FastAPI application without its instrumentation.
    """
    if _is_a(app, "aiohttp.web_app", "Application"):
        return _of_aiohttp(app)
    if _is_a(app, "fastapi", "FastAPI"):
        return _of_fastapi(app)
    raise TypeError(
        f"app is {app!r}; it must be an aiohttp.web.Application or a fastapi.FastAPI. Another framework has "
        "its own package opentelemetry-instrumentation-…, which works with the provider that is set here"
    )


def _is_a(app: object, module: str, name: str) -> bool:
    kind = getattr(sys.modules.get(module), name, None)
    return isinstance(kind, type) and isinstance(app, kind)


def _of_aiohttp(app: Any) -> Callable[[TracerProvider], None]:
    from opentelemetry.instrumentation import aiohttp_server

    if any(getattr(each, "__module__", "") == aiohttp_server.__name__ for each in app.middlewares):
        return _nothing
    if app.frozen:
        raise ConfigError(
            "app is an aiohttp application that is already running; give it to initialize_tracing before it "
            "is started"
        )

    def instrument(provider: TracerProvider) -> None:
        instrumentor = aiohttp_server.AioHttpServerInstrumentor()
        if not instrumentor.is_instrumented_by_opentelemetry:
            # The middleware needs what only this prepares; what it does to the class of all other
            # applications is taken back.
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Inheritance class", DeprecationWarning)
                instrumentor.instrument(tracer_provider=provider)
            instrumentor.uninstrument()
        app.middlewares.insert(0, aiohttp_server.create_aiohttp_middleware(provider))

    return instrument


def _of_fastapi(app: Any) -> Callable[[TracerProvider], None]:
    try:
        # By name: it is no dependency of this package.
        fastapi = importlib.import_module("opentelemetry.instrumentation.fastapi")
    except ImportError as error:
        raise EngineUnavailable(
            f"app is a FastAPI application, and its instrumentation cannot be imported ({error}); "
            f"pip install {_FASTAPI}, or leave out app: everything but the request spans works without it"
        ) from error

    def instrument(provider: TracerProvider) -> None:
        fastapi.FastAPIInstrumentor.instrument_app(app, tracer_provider=provider)

    return instrument


def _nothing(_provider: TracerProvider) -> None:
    """The application opens spans already."""
