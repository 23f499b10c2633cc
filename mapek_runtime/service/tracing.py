"""`tracing`: a provider with its exporter, from environment and configuration, closed on exit.

Limits, resource attributes and `OTEL_SDK_DISABLED` are read by the SDK's own readers.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import anyio
from opentelemetry import trace as trace_api
from opentelemetry.metrics import MeterProvider
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace.sampling import Sampler

from mapek_runtime.config import (
    Configuration,
    CycleSamplingSettings,
    ExportSettings,
    WatchSettings,
    decode,
    read_sources,
)
from mapek_runtime.export import BatchSpanProcessor
from mapek_runtime.export.account import Statistics
from mapek_runtime.export.loop_end import when_loop_ends
from mapek_runtime.export.sink import ByteExporter
from mapek_runtime.trace import LiveSpans, TracerProvider, use_provider
from mapek_runtime.trace.leaving import install_leaving
from mapek_runtime.trace.sampling import CycleSampler
from mapek_runtime.trace.sampling.hold import Holds

from .exporters import make_exporters, make_processor
from .polling import polling
from .sampling import make_sampler
from .signals import Ending
from .spooling import with_spools
from .storing import open_store

__all__ = ["NOTHING", "Tracing", "make_tracing", "open_tracing", "tracing"]

logger = logging.getLogger(__name__)

HEARTBEAT = 30.0
"""Seconds between two reports of spans that were never ended, where no other time is set."""

NOTHING = Statistics(0, 0, 0, {}, 0, 0, 0, 0, {})
"""The account of a processor that is not there."""


@dataclass(frozen=True, slots=True)
class Tracing:
    """A provider, and the processor that says what became of its spans."""

    provider: TracerProvider
    processor: BatchSpanProcessor | None
    exporters: tuple[object, ...]

    @property
    def exporter(self) -> object | None:
        """The first of the exporters; None where nothing is exported."""
        return self.exporters[0] if self.exporters else None

    def statistics(self) -> Statistics:
        """Every term of the law; all zero where nothing is exported."""
        return self.processor.statistics() if self.processor is not None else NOTHING


@asynccontextmanager
async def tracing(
    service_name: str | None = None,
    *,
    config: Path | str | None = None,
    instrument: bool = False,
    attributes: Mapping[str, str] | None = None,
    handle_signals: bool = True,
) -> AsyncIterator[TracerProvider]:
    """A provider set up from `OTEL_*`, `MAPEK_*` and, if given, a configuration file.

        async with mapek_runtime.tracing(service_name="shop") as provider:
            ...

    Declared spans go to it inside the block, and it becomes OpenTelemetry's global provider where
    there is none yet. On exit what has ended is sent and everything closed, within
    `export.shutdown` seconds. `instrument` switches on the instrumentation of aiohttp and httpx,
    `attributes` are added to the resource. Raises `ConfigError`.

    SIGTERM cancels the task that entered the block, unless the program has a handler of its own or
    says `handle_signals=False`: what has ended is sent, and then the process ends by the signal. After
    SIGTERM or SIGINT the spans of tasks that `asyncio.run` cancels at its end are sent too.
    """
    sources = await asyncio.to_thread(
        read_sources,
        file=Path(config) if config is not None else None,
        environ=os.environ,
        flags={"service_name": (service_name, "service_name")},
    )
    # A file that also configures the loop's domains is welcome here; their sections are not read.
    configuration = decode(sources, strict=False)
    for warning in configuration.warnings:
        logger.warning("%s", warning)
    async with (
        open_store(configuration, os.environ, by_default=False) as store,
        open_tracing(
            configuration,
            instrument=instrument,
            attributes=attributes,
            handle_signals=handle_signals,
            store=store,
        ) as opened,
    ):
        yield opened.provider


@asynccontextmanager
async def open_tracing(
    configuration: Configuration,
    *,
    instrument: bool,
    attributes: Mapping[str, str] | None = None,
    console: TextIO | None = None,
    handle_signals: bool = True,
    meter_provider: MeterProvider | None = None,
    spool: bool = False,
    store: ByteExporter | None = None,
) -> AsyncIterator[Tracing]:
    """The same from a configuration that was read already; the console exporter writes to `console`.

    `spool` says whether there is one where `spool.enabled` is unset; `store` gets every span too, and is
    closed with the rest.
    What provider and processor measure of themselves goes to `meter_provider`, else to the global one.
    """
    settings = configuration.settings
    # In a thread: the SDK asks its resource detectors in threads and waits for them.
    resource = await asyncio.to_thread(
        Resource.create, {SERVICE_NAME: settings.service_name, **(attributes or {})}
    )
    # In a thread: it may have to look through what is installed.
    head = await asyncio.to_thread(make_sampler, settings.sampler, resource)
    sampler, holds = _deciding(settings.cycles, head)
    # Closed below, on the loop; the exit handler would come too late for it.
    provider = TracerProvider(sampler, resource, shutdown_on_exit=False, meter_provider=meter_provider)
    exporters: tuple[Any, ...] = ()
    if not provider._disabled:
        # In a thread, because an exporter reads certificates and the version of this package.
        exporters = await asyncio.to_thread(_exporters, configuration, console, spool=spool, store=store)
    opened = _joined(provider, exporters, settings.export, holds, meter_provider)
    with ExitStack() as stack:
        if holds is not None:
            stack.callback(install_leaving())
        stack.enter_context(use_provider(provider))
        if isinstance(trace_api.get_tracer_provider(), trace_api.ProxyTracerProvider):
            trace_api.set_tracer_provider(provider)
        if instrument:
            # Heavy, and a program that does not ask for it need not have the libraries.
            from .instrument import instrumented

            stack.enter_context(instrumented(provider))
        ending = stack.enter_context(Ending(handle=handle_signals))
        try:
            async with polling(head), _watching(settings.watch, provider):
                yield opened
        finally:
            ending.hold()
            # A scope of anyio that is cancelled would interrupt this again and again.
            with anyio.CancelScope(shield=True):
                await _close(provider, settings.export.shutdown, with_loop=ending.told)


async def _close(provider: TracerProvider, limit: float, *, with_loop: bool) -> None:
    """Send what has ended and close; with the loop where other tasks are still to be cancelled."""
    if not with_loop:
        await provider.ashutdown(limit)
        return
    start = time.monotonic()
    await provider.aforce_flush(limit)
    left = max(0.0, limit - (time.monotonic() - start))
    await when_loop_ends(lambda: provider.ashutdown(left))


def make_tracing(configuration: Configuration, *, console: TextIO | None = None) -> Tracing:
    """The same without a block and without a loop: it is closed when the process ends.

    Nothing is put in force; the caller does that. Reads files and may start threads, so it is called
    while a program starts.
    """
    settings = configuration.settings
    resource = Resource.create({SERVICE_NAME: settings.service_name})
    sampler, holds = _deciding(settings.cycles, make_sampler(settings.sampler, resource))
    provider = TracerProvider(sampler, resource)
    if settings.store.enabled:
        logger.warning("store.enabled counts for `mapek run` and for tracing() only; no spans are kept")
    exporters = () if provider._disabled else _exporters(configuration, console, spool=False)
    made = _joined(provider, exporters, settings.export, holds)
    if holds is not None:
        install_leaving()
    if made.processor is not None:
        # Before the provider's own exit handler, which does not know the limit.
        atexit.register(made.processor.shutdown, int(settings.export.shutdown * 1000))
    return made


def _deciding(settings: CycleSamplingSettings, head: Sampler) -> tuple[Sampler, Holds | None]:
    """The sampler; where cycles decide for themselves they stand in front of it."""
    if not settings.decide:
        return head, None
    return CycleSampler.over(
        head,
        quiet_ratio=settings.quiet_ratio,
        slow=settings.slow,
        most_spans_per_cycle=settings.most_spans_per_cycle,
        most_held_spans=settings.most_held_spans,
    )


@asynccontextmanager
async def _watching(settings: WatchSettings, provider: TracerProvider) -> AsyncIterator[None]:
    """Look at open spans where that is asked for."""
    if not (settings.heartbeat or settings.leaks):
        yield
        return
    older_than = settings.heartbeat or HEARTBEAT
    async with LiveSpans(older_than=older_than, leaks=settings.leaks) as live:
        provider.add_span_processor(live)
        yield


def _exporters(
    configuration: Configuration,
    console: TextIO | None,
    *,
    spool: bool,
    store: ByteExporter | None = None,
) -> tuple[Any, ...]:
    exporters = make_exporters(configuration.settings.export, console or sys.stdout, stored=store is not None)
    spooled = with_spools(exporters, configuration, os.environ, by_default=spool)
    # Its file is as good as a spool's, so it has none.
    return spooled if store is None else (*spooled, store)


def _joined(
    provider: TracerProvider,
    exporters: tuple[Any, ...],
    settings: ExportSettings,
    holds: Holds | None,
    meter_provider: MeterProvider | None = None,
) -> Tracing:
    processor = None
    if exporters:
        processor = make_processor(exporters, settings, holds, meter_provider)
        provider.add_span_processor(processor)
    return Tracing(provider, processor, exporters)
