"""`TracerProvider` and `Tracer`: where spans begin.

`TracerProvider` is the SDK's, with our tracers: it takes what the SDK's takes and is accepted where
the SDK's is. A tracer decides parent, ids and sampling, and fills the span in one place.
"""

from __future__ import annotations

import asyncio
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, cast

from opentelemetry import context as context_api
from opentelemetry import trace as trace_api
from opentelemetry.context.context import Context
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import Decision, Sampler
from opentelemetry.sdk.util.instrumentation import InstrumentationInfo, InstrumentationScope
from opentelemetry.trace import Link, NoOpTracer, SpanContext, SpanKind
from opentelemetry.util.types import Attributes

from .context import SPAN_KEY, install
from .dropped import DroppedSpan
from .ids import LeanIdGenerator, draw_bits
from .limits import is_plain, recorded
from .sampling import shortcut
from .scope import SpanScope
from .span import RANDOM, SAMPLED, Span
from .spec import SpanSpec

__all__ = ["Pipeline", "Tracer", "TracerProvider"]

_new = object.__new__


class Pipeline:
    """The callbacks of a provider's processors, without those that do nothing."""

    __slots__ = ("on_end", "on_ending", "on_start")

    def __init__(self) -> None:
        self.on_start: tuple[Callable[..., None], ...] = ()
        self.on_ending: tuple[Callable[..., None], ...] = ()
        self.on_end: tuple[Callable[..., None], ...] = ()

    def follow(self, processor: sdk.SpanProcessor) -> None:
        """Take the callbacks from the SDK's multi-processor, flattened where it only loops."""
        flat: tuple[sdk.SpanProcessor, ...] = (processor,)
        if type(processor) is sdk.SynchronousMultiSpanProcessor:
            flat = processor._span_processors
        base = sdk.SpanProcessor
        self.on_start = tuple(p.on_start for p in flat if type(p).on_start is not base.on_start)
        self.on_ending = tuple(p._on_ending for p in flat if type(p)._on_ending is not base._on_ending)
        self.on_end = tuple(p.on_end for p in flat if type(p).on_end is not base.on_end)


class Tracer(sdk.Tracer):
    """Makes spans; see `opentelemetry.trace.Tracer`. Ask `TracerProvider.get_tracer` for one."""

    def __init__(
        self,
        provider: TracerProvider,
        info: InstrumentationInfo,
        scope: InstrumentationScope,
    ) -> None:
        self.sampler = provider.sampler
        self.resource = provider.resource
        self.span_processor = provider._active_span_processor
        self.id_generator = provider.id_generator
        self.instrumentation_info = info
        self.scope = scope
        self.limits = provider._span_limits
        self.pipeline = provider._pipeline
        self.now = provider.clock
        self.variable: ContextVar[Any] | None = provider._variable
        self._instrumentation_scope = scope
        self._span_limits = provider._span_limits
        self._tracer_config = sdk._TracerConfig(is_enabled=True)
        self._shortcut = shortcut(provider.sampler)
        self._root, self._child, self._follow = self._shortcut
        self._random = RANDOM if provider.id_generator.is_trace_id_random() else 0
        self._lean_ids = isinstance(provider.id_generator, LeanIdGenerator)
        limits = provider._span_limits
        self._length = limits.max_span_attribute_length
        self._maximum = sys.maxsize if limits.max_span_attributes is None else limits.max_span_attributes
        self._bounds = (limits.max_span_attributes, limits.max_span_attribute_length)

    def start_as_current_span(  # type: ignore[override]
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes = None,
        links: Sequence[Link] | None = (),
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
        end_on_exit: bool = True,
    ) -> SpanScope:
        """A scope in which a new span is current: `with`, `async with`, or a decorator."""
        # Filled here, not by its constructor: that call is a tenth of what a span costs.
        scope: SpanScope = _new(SpanScope)
        scope._tracer = self
        scope._spec = None
        scope._name = name
        scope._attributes = attributes
        scope._context = context
        scope._kind = kind
        scope._links = links
        scope._start_time = start_time
        scope._record_exception = record_exception
        scope._set_status = set_status_on_exception
        scope._end_on_exit = end_on_exit
        scope._span = scope._token = None
        return scope

    def start_span(
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes = None,
        links: Sequence[Link] | None = (),
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
    ) -> trace_api.Span:
        """A new span that is not current; whoever holds it ends it."""
        span = self.begin(name, self.current(context), kind, attributes, links, start_time, None)
        if not (record_exception and set_status_on_exception) and type(span) is Span:
            span._record_exception = record_exception
            span._set_status_on_exception = set_status_on_exception
        return span

    def current(self, context: Context | None) -> Any:
        """What a new span's parent is sought in: `context`, or whatever is current."""
        if context is not None:
            return context
        if self.variable is not None:
            return self.variable.get()
        return context_api.get_current()

    def begin(  # noqa: C901, PLR0912 - the hot path: one call, no helper calls on the common way
        self,
        name: str,
        parent: Any,
        kind: SpanKind,
        attributes: Mapping[str, Any] | None,
        links: Sequence[Link] | None,
        start_time: int | None,
        spec: SpanSpec | None,
    ) -> Span | DroppedSpan:
        """Start a span under `parent`, which is a span of ours or a `Context`."""
        origin = parent
        remote = None
        if isinstance(parent, dict):
            parent = parent.get(SPAN_KEY)
        while (cls := type(parent)) is Span or cls is DroppedSpan:
            if parent._outer is None:
                trace_id = parent._trace_id
                parent_id = parent._span_id
                flags = parent._flags
                state = parent._trace_state
                decision = self._child if not self._follow else (flags & SAMPLED) != 0
                break
            parent = parent._outer
            if isinstance(parent, dict):
                parent = parent.get(SPAN_KEY)
        else:
            known = None if parent is None else _span_context(parent)
            if known is not None and known.is_valid:
                remote = known
                trace_id, parent_id, flags, state = (
                    known.trace_id, known.span_id, int(known.trace_flags), known.trace_state or None,
                )  # fmt: skip
                decision = self._child if not self._follow else (flags & SAMPLED) != 0
            else:
                trace_id = draw_bits(128) if self._lean_ids else self.id_generator.generate_trace_id()
                parent_id, flags, state = 0, self._random, None
                decision = self._root
        if not self._tracer_config.is_enabled:
            return self._drop(trace_id, parent_id, flags, state) if parent_id else DroppedSpan(0, 0, 0, None)
        span_id = draw_bits(64) if self._lean_ids else self.id_generator.generate_span_id()
        if decision is None:
            context: Any = origin if isinstance(origin, dict) else origin.as_context()
            result = self.sampler.should_sample(context, trace_id, name, kind, attributes, links)
            attributes, state = result.attributes, result.trace_state or None
            decision = result.decision is not Decision.DROP
            sampled = SAMPLED if result.decision is Decision.RECORD_AND_SAMPLE else 0
        else:
            sampled = SAMPLED if decision else 0
        flags = (flags & RANDOM) | sampled
        if not decision:
            return DroppedSpan(trace_id, span_id, flags, state)

        kept: dict[str, Any]
        dropped = 0
        if not attributes:
            kept = {}
        elif self._length is None and len(attributes) <= self._maximum and is_plain(attributes):
            # A declaration made this dictionary for this span alone. Keys are looked at when they are
            # read or encoded: both must look each key up anyway.
            kept = dict(attributes) if spec is None else cast("dict[str, Any]", attributes)
        else:
            kept, dropped = recorded(_without_none(attributes) if spec else attributes, *self._bounds)
        span: Span = _new(Span)
        span._tracer = self
        span._name = name
        span._kind = kind
        span._attributes = kept
        span._trace_id = trace_id
        span._span_id = span_id
        span._parent_id = parent_id
        span._flags = flags
        span._spec = spec
        span._end_time = None
        if state is not None:
            span._trace_state = state
        if remote is not None:
            span._parent_context = remote
            span._parent_remote = remote.is_remote
        if dropped:
            span._dropped = (dropped, 0, 0)
        if links:
            span._keep_links(links)
        span._start_time = self.now() if start_time is None else start_time
        if self.pipeline.on_start:
            context = origin if isinstance(origin, dict) else origin.as_context()
            for on_start in self.pipeline.on_start:
                on_start(span, parent_context=context)
        return span

    def _drop(self, trace_id: int, span_id: int, flags: int, state: Any) -> DroppedSpan:
        return DroppedSpan(trace_id, span_id, flags, state)


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
        **options: Any,
    ) -> None:
        self._variable = install()
        self._pipeline = Pipeline()
        self.clock = clock
        super().__init__(
            sampler,
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
                tracer = Tracer(self, _information(name, version, schema_url), scope)
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
        # Nothing is left for the exit handler to do.
        self._active_span_processor = sdk.SynchronousMultiSpanProcessor()  # type: ignore[no-untyped-call]
        self._pipeline.follow(self._active_span_processor)
        self.shutdown()
        return done

    async def _each(self, what: str, timeout: float) -> bool:
        multi = self._active_span_processor
        processors = getattr(multi, "_span_processors", (multi,))
        deadline = asyncio.get_running_loop().time() + timeout
        done = True
        for processor in processors:
            left = max(0.0, deadline - asyncio.get_running_loop().time())
            method = getattr(processor, f"a{what}", None)
            try:
                if method is not None:
                    done = (await method(left)) is not False and done
                elif what == "shutdown":
                    await asyncio.wait_for(asyncio.to_thread(processor.shutdown), left)
                else:
                    flushed = await asyncio.to_thread(processor.force_flush, int(left * 1000))
                    done = flushed is not False and done
            except TimeoutError:
                done = False
        return done


def _span_context(parent: object) -> SpanContext | None:
    return parent.get_span_context() if isinstance(parent, trace_api.Span) else None


def _without_none(attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    return {key: value for key, value in (attributes or {}).items() if value is not None}


def _information(name: str, version: str, schema_url: str | None) -> InstrumentationInfo:
    # Deprecated upstream since 1.11.1, yet still read by span processors in the field.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return InstrumentationInfo(name, version, schema_url)
