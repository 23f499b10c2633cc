"""The drop-in: our provider and exporter under a program that was not changed.

    OTEL_PYTHON_DISTRO=mapek OTEL_PYTHON_CONFIGURATOR=mapek opentelemetry-instrument python app.py

`opentelemetry-instrument` finds both classes by their entry points. Traces are set up here, from the
same `OTEL_*` variables that the SDK's configurator reads; metrics and logs are left to the SDK.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry import _logs as logs_api
from opentelemetry import metrics as metrics_api
from opentelemetry import trace as trace_api
from opentelemetry.environment_variables import OTEL_PYTHON_ID_GENERATOR, OTEL_TRACES_EXPORTER
from opentelemetry.instrumentation.distro import BaseDistro  # type: ignore[attr-defined]
from opentelemetry.sdk import _configuration as stock
from opentelemetry.sdk.environment_variables import (
    _OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED,
    OTEL_CONFIG_FILE,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import Sampler
from opentelemetry.semconv.resource import ResourceAttributes

from mapek_runtime.export import BatchSpanProcessor
from mapek_runtime.export.console import ConsoleSpanExporter
from mapek_runtime.export.environment import read_text
from mapek_runtime.export.memory import MemorySpanExporter
from mapek_runtime.trace import TracerProvider
from mapek_runtime.trace.sampling import sampler_from_environment

from .exporters import exporter_from_environment
from .instrument import without_advice
from .signals import stand_in

__all__ = ["MapekConfigurator", "MapekDistro"]

logger = logging.getLogger(__name__)

FAREWELL = 5.0
"""Seconds for sending what has ended after a SIGTERM, as many as the exit itself has."""


class MapekDistro(BaseDistro):  # type: ignore[misc] # its module is without types
    """The distribution `mapek`: instruments what is installed; `MapekConfigurator` does the rest."""

    def _configure(self, **_options: Any) -> None:
        # Defaults are not written into the environment: child processes would inherit them.
        pass

    def load_instrumentor(self, entry_point: Any, **options: Any) -> None:
        """Switch on one instrumentation."""
        with without_advice():
            super().load_instrumentor(entry_point, **options)


class MapekConfigurator(stock._OTelSDKConfigurator):
    """The configurator `mapek`: takes what the SDK's takes, and puts our provider under traces."""

    def _configure(self, **options: Any) -> None:
        if os.environ.get(OTEL_CONFIG_FILE):
            logger.warning(
                "%s is set: the SDK configures everything from that file, and the provider is the SDK's",
                OTEL_CONFIG_FILE,
            )
            super()._configure(**options)  # type: ignore[no-untyped-call]
            return
        attributes = dict(options.pop("resource_attributes", None) or {})
        version = options.pop("auto_instrumentation_version", None)
        if version:
            attributes[ResourceAttributes.TELEMETRY_AUTO_VERSION] = version
        resource = Resource.create(attributes)
        _call_opamp("pre_sdk_init_function", resource)
        _set_up_traces(resource, **options)
        _set_up_metrics(resource, **options)
        _set_up_logs(resource, **options)
        _call_opamp("post_sdk_init_function", resource)
        _wait_on_sigterm()


def _set_up_traces(
    resource: Resource,
    *,
    sampler: Sampler | None = None,
    id_generator: IdGenerator | None = None,
    tracer_configurator: Any = None,
    span_processors: Sequence[SpanProcessor] | None = None,
    trace_exporter_names: Sequence[str] | None = None,
    exporter_args_map: Mapping[type, Mapping[str, Any]] | None = None,
    export_span_processor: Any = None,
    **_others: Any,
) -> None:
    provider = TracerProvider(
        sampler or sampler_from_environment(resource),
        resource,
        id_generator=id_generator or _chosen_id_generator(),
        _tracer_configurator=tracer_configurator
        or stock._import_tracer_configurator(stock._get_tracer_configurator()),
    )
    trace_api.set_tracer_provider(provider)
    if provider._disabled:
        return
    for processor in span_processors or ():
        provider.add_span_processor(processor)
    exporters = _make_exporters(
        [*(trace_exporter_names or ()), *_chosen_exporters()], exporter_args_map or {}
    )
    if export_span_processor is not None:
        for exporter in exporters:
            provider.add_span_processor(export_span_processor(exporter))
    elif exporters:
        provider.add_span_processor(BatchSpanProcessor(*exporters))


def _set_up_metrics(
    resource: Resource,
    *,
    metric_exporter_names: Sequence[str] | None = None,
    exporter_args_map: Any = None,
    meter_configurator: Any = None,
    **_others: Any,
) -> None:
    names = [*(metric_exporter_names or ()), *stock._get_exporter_names("metrics")]
    if not names:
        # A meter provider can be given its readers only when it is made: one without any would have
        # every instrumented request measured for nobody.
        return
    stock._init_metrics(
        stock._import_exporters([], names, [])[1],
        resource,
        exporter_args_map,
        meter_configurator or stock._import_meter_configurator(stock._get_meter_configurator()),
    )


def _set_up_logs(
    resource: Resource,
    *,
    log_exporter_names: Sequence[str] | None = None,
    setup_logging_handler: bool | None = None,
    exporter_args_map: Any = None,
    log_record_processors: Any = None,
    export_log_record_processor: Any = None,
    logger_configurator: Any = None,
    **_others: Any,
) -> None:
    names = [*(log_exporter_names or ()), *stock._get_exporter_names("logs")]
    if setup_logging_handler is None:
        wanted = read_text(_OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED) or ""
        setup_logging_handler = wanted.lower() == "true"
    stock._init_logging(
        stock._import_exporters([], [], names)[2],
        resource,
        setup_logging_handler,
        exporter_args_map,
        log_record_processors,
        export_log_record_processor,
        logger_configurator or stock._import_logger_configurator(stock._get_logger_configurator()),
    )


def _chosen_exporters() -> list[str]:
    text = read_text(OTEL_TRACES_EXPORTER) or "otlp"
    names = [name.strip() for name in text.split(",")]
    # Named twice, it would export everything twice.
    return [name for name in dict.fromkeys(names) if name and name.lower() != "none"]


def _make_exporters(names: Sequence[str], arguments: Mapping[type, Mapping[str, Any]]) -> list[Any]:
    made: list[Any] = []
    for name in names:
        match name.lower():
            case "otlp" | "otlp-sdk" as known:
                made.append(exporter_from_environment(known, os.environ))
            case "console":
                made.append(ConsoleSpanExporter())
            case "memory":
                made.append(MemorySpanExporter())
            case _:
                # Any other is a synchronous one: the batch task gives it a thread.
                kind = _load("opentelemetry_traces_exporter", name)
                if kind is not None:
                    made.append(kind(**arguments.get(kind, {})))
    return made


def _chosen_id_generator() -> IdGenerator | None:
    name = read_text(OTEL_PYTHON_ID_GENERATOR, "OTEL_ID_GENERATOR")
    if name is None:
        return None
    kind = _load("opentelemetry_id_generator", name)
    return kind() if kind is not None else None


def _load(group: str, name: str) -> Any:
    """What is installed as `name` in `group`; None, with a warning, where that cannot be had."""
    try:
        return stock._import_config_components([name], group)[0][1]
    except Exception as error:  # noqa: BLE001 - a wrong value of a variable must not stop the program
        logger.warning("%r cannot be loaded (%s); the configuration goes on without it", name, error)
        return None


def _call_opamp(name: Any, resource: Resource) -> None:
    start = stock._import_opamp(name)
    if start is not None:
        start(resource)


def _wait_on_sigterm() -> None:
    """Send what has ended before a SIGTERM that nobody handles takes effect.

    By default the signal ends the process without any exit handler. A program that installs a
    handler of its own replaces this one, and so does a `tracing()` block while it is open.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _on_sigterm)


@stand_in
def _on_sigterm(number: int, _frame: object) -> None:
    # A second one takes effect at once.
    signal.signal(number, signal.SIG_DFL)
    try:
        # In a thread: the code that was interrupted may hold a lock that sending needs, and may be a
        # running loop, whose batch task has to go on.
        threading.Thread(target=_send_and_leave, args=(number,), daemon=True).start()
    except RuntimeError:  # no thread can be started any more
        os.kill(os.getpid(), number)


def _send_and_leave(number: int) -> None:
    deadline = time.monotonic() + FAREWELL
    try:
        for provider in (
            trace_api.get_tracer_provider(),
            logs_api.get_logger_provider(),
            metrics_api.get_meter_provider(),
        ):
            flush = getattr(provider, "force_flush", None)
            left = deadline - time.monotonic()
            if flush is not None and left > 0:
                flush(int(left * 1000))
    finally:
        os.kill(os.getpid(), number)
