"""The provider: sampler, resource, limits, ids and processors that its tracers share.

It takes what the SDK's takes and is accepted where the SDK's is.
"""

from __future__ import annotations

import asyncio
import logging
import time
import warnings
from collections.abc import Callable
from typing import Any

from opentelemetry import trace as trace_api
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import Sampler
from opentelemetry.sdk.util.instrumentation import InstrumentationInfo, InstrumentationScope
from opentelemetry.trace import NoOpTracer
from opentelemetry.util.types import Attributes

from .context import install
from .failure import CancelledStatus
from .ids import LeanIdGenerator
from .metered import tracer_class
from .pipeline import Pipeline
from .sampling.environment import sampler_from_environment

__all__ = ["TracerProvider"]

logger = logging.getLogger(__name__)


class TracerProvider(sdk.TracerProvider):
    """The SDK's provider with lean spans; takes the same arguments.

    `clock` gives the time of spans and events: Unix time in nanoseconds.
    """

    def __init__(
        self,
        sampler: Sampler | None = None,
        resource: Resource | None = None,
        shutdown_on_exit: bool = True,
        active_span_processor: sdk.SynchronousMultiSpanProcessor
        | sdk.ConcurrentMultiSpanProcessor
        | None = None,
        id_generator: IdGenerator | None = None,
        span_limits: sdk.SpanLimits | None = None,
        *,
        clock: Callable[[], int] = time.time_ns,
        cancelled_status: CancelledStatus = "unset",
        **options: Any,
    ) -> None:
        self._variable = install()
        self._pipeline = Pipeline()
        self.clock = clock
        self.cancelled_status = cancelled_status
        super().__init__(
            sampler if sampler is not None else sampler_from_environment(resource),
            resource,
            shutdown_on_exit,
            active_span_processor,
            id_generator or LeanIdGenerator(),
            span_limits,
            **options,
        )
        self._pipeline.follow(self._active_span_processor)

    def get_tracer(
        self,
        instrumenting_module_name: str,
        instrumenting_library_version: str | None = None,
        schema_url: str | None = None,
        attributes: Attributes = None,
    ) -> trace_api.Tracer:
        """The tracer of one instrumentation; the same object for the same arguments."""
        if self._disabled:
            return NoOpTracer()
        if not instrumenting_module_name:
            sdk.logger.error("get_tracer called with missing module name.")
        name, version = instrumenting_module_name or "", instrumenting_library_version or ""
        scope = InstrumentationScope(name, version, schema_url, attributes)
        with self._tracers_lock:
            tracer = self._tracers.get(scope)
            if tracer is None:
                tracer = tracer_class()(self, _information(name, version, schema_url), scope)
                tracer._set_tracer_config(self._apply_tracer_configurator(scope))
                self._tracers[scope] = tracer
        return tracer

    def add_span_processor(self, span_processor: sdk.SpanProcessor) -> None:
        """Register a processor, ours or the SDK's."""
        super().add_span_processor(span_processor)
        self._pipeline.follow(self._active_span_processor)

    async def aforce_flush(self, timeout: float = 30.0) -> bool:
        """Export what has ended, within `timeout` seconds; False when it did not suffice.

        The loop keeps running. Processors of the SDK are flushed in a thread.
        """
        return await self._each("force_flush", timeout)

    async def ashutdown(self, timeout: float = 30.0) -> bool:
        """Flush and close every processor within `timeout` seconds; False when it did not suffice."""
        done = await self._each("shutdown", timeout)
        closed = self._active_span_processor
        # Nothing is left for the exit handler to do.
        self._active_span_processor = sdk.SynchronousMultiSpanProcessor()  # type: ignore[no-untyped-call]
        self.shutdown()
        # Spans that were open still end: whoever counts spans counts these, as too late.
        self._active_span_processor = closed
        return done

    async def _each(self, what: str, timeout: float) -> bool:
        multi = self._active_span_processor
        processors = getattr(multi, "_span_processors", (multi,))
        # Together, so that one whose collector is gone takes no time from the others.
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_do(what, processor, timeout)) for processor in processors]
        return all(task.result() for task in tasks)


async def _do(what: str, processor: Any, timeout: float) -> bool:
    method = getattr(processor, f"a{what}", None)
    try:
        if method is not None:
            done = await method(timeout)
        else:
            # The SDK's take the time as an argument for a flush only, and not all of them keep to it.
            arguments = (int(timeout * 1000),) if what == "force_flush" else ()
            call = asyncio.to_thread(getattr(processor, what), *arguments)
            done = await asyncio.wait_for(call, timeout)
    except TimeoutError:
        return False
    except Exception:
        # The others are to be flushed and closed all the same.
        logger.exception("%s failed in span processor %r", what, processor)
        return False
    return done is not False


def _information(name: str, version: str, schema_url: str | None) -> InstrumentationInfo:
    # Deprecated upstream since 1.11.1, yet still read by span processors in the field.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return InstrumentationInfo(name, version, schema_url)
