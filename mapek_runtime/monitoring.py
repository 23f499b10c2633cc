"""The names of x0tta6bl4's tracing guide: one call sets tracing up, getters give the declared spans.

    from mapek_runtime.monitoring import get_network_spans, initialize_tracing

    initialize_tracing(service_name="x0tta6bl4")
    with get_network_spans().node_discovery("node-1") as span:
        span.set(discovered_nodes=5)

A thin front over the other rooms. The spans of the domains are found by their entry points
`mapek.spans`; no domain is imported by name. New code reads better with the declarations
themselves, whose arguments a type checker knows, and with `mapek_runtime.tracing`.
"""

from __future__ import annotations

import difflib
import functools
import logging
import os
import threading
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, TypeVar, overload

from opentelemetry import trace as trace_api

from mapek_runtime.config import Settings, decode, read_sources
from mapek_runtime.errors import PluginNotFound
from mapek_runtime.export.memory import MemorySpanExporter
from mapek_runtime.loop import spans as mapek_spans
from mapek_runtime.service.application import find_instrumentation
from mapek_runtime.service.catalogue import SPANS
from mapek_runtime.service.discovery import installed, load
from mapek_runtime.service.legacy import environment_with, read_legacy
from mapek_runtime.service.tracing import make_tracing
from mapek_runtime.trace import SpanFactory, SpanGroup, SpanScope, active_provider, traced
from mapek_runtime.trace.active import LateTracer
from mapek_runtime.trace.spec import SpanSpec

__all__ = [
    "DeclaredSpans",
    "TracerManager",
    "get_crdt_spans",
    "get_dao_spans",
    "get_ebpf_spans",
    "get_fl_spans",
    "get_ledger_spans",
    "get_mapek_spans",
    "get_ml_spans",
    "get_network_spans",
    "get_raft_spans",
    "get_spiffe_spans",
    "get_tracer_manager",
    "initialize_tracing",
]

logger = logging.getLogger(__name__)

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_SERVICE = Settings().service_name


def initialize_tracing(service_name: str = DEFAULT_SERVICE, app: object = None) -> TracerManager:
    """Send the spans of this process to a collector, from now until the process ends.

    Everything else comes from `OTEL_*` and `MAPEK_*`; OTEL_ENABLED, OTEL_SAMPLER_ARG and
    JAEGER_AGENT_HOST/PORT are deprecated aliases of the standard variables. The default name gives
    way to OTEL_SERVICE_NAME. `app`, an aiohttp or FastAPI application, opens a span for each request.

    Needs no running loop; what has ended is sent by the loop that runs, or at exit. Where tracing was
    set up before, that stays and a warning says so. Raises `ConfigError` for a wrong setting and what
    `find_instrumentation` raises for an app, before anything is changed.
    """
    global _service  # noqa: PLW0603 - the guide's tracing is the process's
    with _lock:
        if _service is not None:
            logger.warning(
                "initialize_tracing(%r): tracing is initialized already, as service %r; "
                "this call changes nothing",
                service_name,
                _service,
            )
            return _manager
        instrument = None if app is None else find_instrumentation(app)
        provider = active_provider()
        if provider is None:
            provider = _set_up(service_name)
        else:
            logger.warning(
                "initialize_tracing(%r): spans go to the %s that was set up before; only app is instrumented",
                service_name,
                type(provider).__name__,
            )
        if instrument is not None:
            instrument(provider)
        _service = service_name
    return _manager


def get_tracer_manager() -> TracerManager:
    """The manager: opens spans of any name. It works before `initialize_tracing` and without it."""
    return _manager


class TracerManager:
    """Opens spans of any name, on whatever provider is in force when they start."""

    def span(self, name: str, attributes: Mapping[str, Any] | None = None) -> SpanScope:
        """A scope in which a new span is current: `with`, `async with`, or a decorator."""
        return _CUSTOM.scope(dict(attributes or {}), name=name)

    @overload
    def span_decorator(self, span_name: F, /) -> F: ...

    @overload
    def span_decorator(self, span_name: str | None = None, **static_attributes: Any) -> Callable[[F], F]: ...

    def span_decorator(self, span_name: Any = None, **static_attributes: Any) -> Any:
        """Run each call of a function or coroutine function in a span of its own.

        The name is that of the function unless given. The span covers the awaited work.
        """
        if callable(span_name):
            return self.span_decorator()(span_name)

        def decorate(function: F) -> F:
            name = span_name or getattr(function, "__name__", None)
            return traced(name, attributes=static_attributes)(function)

        return decorate


class DeclaredSpans:
    """The declared spans of one component, by the name of the declaring function.

        get_network_spans().node_discovery("node-1", discovered_nodes=5)

    Each is the factory itself: it checks its arguments and gives a `SpanScope`.
    """

    def __init__(self, component: str, module: ModuleType) -> None:
        self._component = component
        everything = vars(module).values()
        specs = {
            spec: name
            for group in everything
            if isinstance(group, SpanGroup)
            for name, spec in group.specs.items()
        }
        self._factories: Mapping[str, SpanFactory[...]] = {
            specs[value.spec]: value
            for value in everything
            if isinstance(getattr(value, "spec", None), SpanSpec) and value.spec in specs
        }
        # So that the second use of a name costs no more than any attribute.
        vars(self).update(self._factories)

    def __getattr__(self, name: str) -> SpanFactory[...]:
        if name.startswith("__"):
            raise AttributeError(name)
        near = difflib.get_close_matches(name, self._factories, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise AttributeError(
            f"the spans of {self._component!r} have no {name!r}; {hint}there are "
            f"{', '.join(sorted(self._factories))}"
        )

    def __dir__(self) -> list[str]:
        return sorted(self._factories)

    def __repr__(self) -> str:
        return f"<spans of {self._component!r}: {', '.join(sorted(self._factories))}>"


def get_mapek_spans() -> DeclaredSpans:
    """The cycle and its phases: `mape_k.*`."""
    return _MAPEK


def get_network_spans() -> DeclaredSpans:
    """The mesh: `mesh.*`."""
    return _spans_of("mesh")


def get_spiffe_spans() -> DeclaredSpans:
    """Workload identity: `spiffe.*`."""
    return _spans_of("spiffe")


def get_ml_spans() -> DeclaredSpans:
    """Machine learning: `ml.*`."""
    return _spans_of("ml")


def get_ledger_spans() -> DeclaredSpans:
    """The ledger: `ledger.*`."""
    return _spans_of("ledger")


def get_dao_spans() -> DeclaredSpans:
    """Governance: `dao.*`."""
    return _spans_of("dao")


def get_ebpf_spans() -> DeclaredSpans:
    """Programs in the kernel: `ebpf.*`."""
    return _spans_of("ebpf")


def get_fl_spans() -> DeclaredSpans:
    """Federated learning: `fl.*`."""
    return _spans_of("fl")


def get_raft_spans() -> DeclaredSpans:
    """Consensus: `raft.*`."""
    return _spans_of("raft")


def get_crdt_spans() -> DeclaredSpans:
    """Replicated data: `crdt.*`."""
    return _spans_of("crdt")


_lock = threading.Lock()
_service: str | None = None
_manager = TracerManager()
_CUSTOM = SpanSpec("a custom span", "", LateTracer(__name__), {}, {}, {}, {}, None)
_MAPEK = DeclaredSpans("mape_k", mapek_spans)


@functools.cache
def _spans_of(component: str) -> DeclaredSpans:
    point = installed(SPANS).get(component)
    if point is None:
        raise PluginNotFound(
            f"no installed package declares the spans of {component!r} (entry point {SPANS!r}); "
            "they come with mapek-runtime: install it, if only by `pip install -e .`"
        )
    return DeclaredSpans(component, load(point, "span group"))


def _set_up(service_name: str) -> trace_api.TracerProvider:
    standard, said = read_legacy(os.environ)
    for line in said:
        logger.warning("%s", line)
    with environment_with(standard):
        given = None if service_name == DEFAULT_SERVICE else service_name
        sources = read_sources(environ=os.environ, flags={"service_name": (given, "service_name")})
        # Sections of domains may be set in the environment; they are not read here.
        configuration = decode(sources, strict=False)
        for warning in configuration.warnings:
            logger.warning("%s", warning)
        made = make_tracing(configuration)
    if isinstance(made.exporter, MemorySpanExporter) and configuration.settings.export.exporter == "auto":
        logger.warning(
            "no collector is named, so spans stay in the memory of this process; set "
            "OTEL_EXPORTER_OTLP_ENDPOINT, for a Jaeger on this machine to http://localhost:4318"
        )
    trace_api.set_tracer_provider(made.provider)
    return made.provider
