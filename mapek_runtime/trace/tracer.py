"""`Tracer`: gives scopes and spans, and decides what is not usual about them.

What is usual (a root or a child under a sampler that need not be asked, plain attributes) is decided
where the span starts; a parent that is remote, foreign or held, a sampler that must be asked, and
values that must be cleaned are decided here.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from opentelemetry import trace as trace_api
from opentelemetry.context.context import Context
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.trace.sampling import Decision, Sampler, TraceIdRatioBased
from opentelemetry.sdk.util.instrumentation import InstrumentationInfo, InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind
from opentelemetry.util.types import Attributes

from .context import SPAN_KEY, reach, without_span
from .dropped import DroppedSpan
from .identity import RANDOM, SAMPLED
from .ids import LeanIdGenerator, draw_bits
from .limits import recorded
from .sampling import shortcut
from .scope import STARTED, Options, SpanScope, new_options
from .span import Span
from .unlikely import UnlikelySpan

if TYPE_CHECKING:
    from .provider import TracerProvider

__all__ = ["Tracer"]

_new = object.__new__
_TRACE_ID_BITS = 128
_HALF = TraceIdRatioBased.TRACE_ID_LIMIT // 2


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
        self.cancelled_status = provider.cancelled_status
        self.variable: ContextVar[Any] | None = provider._variable
        # Bound once: they are called for every span.
        self.get, self.set, self.reset = reach(self.variable)
        self._instrumentation_scope = scope
        self._span_limits = provider._span_limits
        self._root, self._child, self._follow = shortcut(provider.sampler)
        self.random = RANDOM if provider.id_generator.is_trace_id_random() else 0
        # Under a sampler that follows the parent only roots get so far as to ask.
        self._decider: Sampler = provider.sampler._root if self._follow else provider.sampler  # type: ignore[attr-defined]
        self._ask = self._decider.should_sample
        self.root_flags = self.random | SAMPLED
        self.own_ids = type(provider.id_generator) is LeanIdGenerator
        self.draw = draw_bits if self.own_ids else self._generate
        limits = provider._span_limits
        self._bounds = (limits.max_span_attributes, limits.max_span_attribute_length)
        # Up to so many plain attributes need no look at the limits.
        self.maximum = sys.maxsize if limits.max_span_attributes is None else limits.max_span_attributes
        if limits.max_span_attribute_length is not None:
            self.maximum = -1
        self._set_tracer_config(sdk._TracerConfig(is_enabled=True))

    def _set_tracer_config(self, tracer_config: sdk._TracerConfig) -> None:
        super()._set_tracer_config(tracer_config)
        enabled = tracer_config.is_enabled
        self.admits_roots = enabled and self._root is True
        self.admits_children = enabled and (self._follow or self._child is True)
        """Whether a root, and a child of a sampled parent, is sampled without asking."""
        ratio = self._decider if type(self._decider) is TraceIdRatioBased else None
        self.bound = ratio.bound if enabled and ratio is not None else None
        """A root is sampled when the low half of its trace id is below it; None where that is not all."""
        self._follows = enabled and self._follow
        self._refuses_roots = enabled and self._root is False
        never = enabled and self._root is False and self._child is False and self.own_ids
        self.scope_class: type[SpanScope] | None = DroppedSpan if never else Span
        """What a block is made of; None where `likely_class` has to guess."""
        if self.bound is not None and self._follow and self.own_ids and self.bound < _HALF:
            self.scope_class = None

    def likely_class(self) -> type[SpanScope]:
        """What a block most likely needs where it is made, under a sampler that says no to most traces."""
        get = self.get
        current = get()
        kind = type(current)
        if kind is UnlikelySpan or kind is DroppedSpan or (kind is Context and not current):
            return UnlikelySpan
        return Span

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
        # Filled here, not by a constructor: that call is a tenth of what a span costs.
        scope: Any = _new(self.scope_class or self.likely_class())
        scope._tracer = self
        scope._name = name
        scope._kind = kind
        scope._attributes = attributes
        scope._spec = None
        scope._token = None
        scope._plain = True
        if (
            context is not None
            or links
            or start_time is not None
            or not (record_exception and set_status_on_exception and end_on_exit)
        ):
            scope._options = new_options(
                context, links, start_time, record_exception, set_status_on_exception, end_on_exit
            )
            scope._plain = False
        return scope  # type: ignore[no-any-return]

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
        span: Any = _new(Span)
        span._tracer = self
        span._name = name
        span._kind = kind
        span._attributes = attributes
        span._spec = None
        span._token = STARTED
        span._plain = True
        if (
            context is not None
            or links
            or start_time is not None
            or not (record_exception and set_status_on_exception)
        ):
            span._options = new_options(context, links, start_time, record_exception, set_status_on_exception)
            span._plain = False
        started: trace_api.Span = span.__enter__()
        return started

    def place(self, span: Any, current: Any) -> Any:
        """Find the parent of `span`, ask the sampler, give the span its identity.

        `current` is what is current: a span of ours or a `Context`. Gives the span back, or a
        `DroppedSpan` in its place when it is not to be recorded.
        """
        options = span._options
        if type(current) is Context:
            # Without a span that is current there: this one would keep it alive, and it the one before it.
            span._base = without_span(current) if current else current
        else:
            span._base = current._base if not isinstance(current, dict) else without_span(Context(current))
        placed = self._short_way(span, current, options)
        if placed is not None:
            return placed
        origin = current if options is None or options.context is None else options.context
        parent = _parent_in(origin)
        if not self._tracer_config.is_enabled:
            return _pass_on(parent, span._base)
        hold = None
        if parent is None:
            trace_id, parent_id, flags, state = self.draw(128), 0, self.random, None
            decision = self._root
        else:
            if isinstance(parent, SpanContext):
                trace_id, parent_id = parent.trace_id, parent.span_id
                flags, state = int(parent.trace_flags), parent.trace_state or None
            else:
                trace_id, parent_id = parent._trace_id, parent._span_id
                flags, state = parent._flags, parent._trace_state
                hold = parent._hold
            decision = (flags & SAMPLED) != 0 if self._follow else self._child
        above = flags, state
        if hold is not None and self._root is not False:
            # The trace is recorded and held back here; what is sampled downstream is the hold's to say.
            decision, sampled = hold.recording, hold.sampled
        elif decision is None:
            context: Any = origin if isinstance(origin, dict) else origin.as_context()
            links = () if options is None else options.links
            result = self._ask(context, trace_id, span._name, span._kind, span._attributes, links)
            state = result.trace_state or None
            # What the SDK's samplers give back is read-only; a declared span keeps its dictionary.
            span._attributes = result.attributes if span._spec is None else dict(result.attributes or ())
            decision = result.decision is not Decision.DROP
            sampled = SAMPLED if result.decision is Decision.RECORD_AND_SAMPLE else 0
            hold = getattr(result, "hold", None)
        else:
            sampled = SAMPLED if decision else 0
        flags = (flags & RANDOM) | sampled
        if not decision:
            dropped = DroppedSpan(trace_id, self.draw(64), flags, state)
            dropped._base = span._base
            return dropped
        span._trace_id = trace_id
        span._parent_id = parent_id
        span._flags = flags
        if isinstance(parent, SpanContext):
            span._parent_context = parent
            span._parent_remote = parent.is_remote
        elif parent is not None and (isinstance(origin, dict) or above != (flags, state)):
            span._parent_context = parent.get_span_context()
        if state is not None:
            span._trace_state = state
            span._plain = False
        if hold is not None:
            span._hold = hold
            span._plain = False
        return span

    def _short_way(self, span: Any, current: Any, options: Options | None) -> Any:
        """The answers that come often and are known at once; None where there is none."""
        if options is not None:
            # A root on purpose, as every cycle is.
            return None if options.context is None or options.context else self._root_at_once(span)
        kind = type(current)
        if kind is Context:
            return None if current else self._root_at_once(span)
        if kind is DroppedSpan or kind is UnlikelySpan:
            if current._plain and self._follows:
                return self._drop(span, current._trace_id, current._flags & RANDOM)
        elif kind is Span and current._hold is not None:
            return self._join(span, current, current._hold)
        return None

    def _root_at_once(self, span: Any) -> Any:
        if self.admits_roots:
            trace_id = self.draw(128)
        elif self.bound is None:
            return self._drop(span, self.draw(128), self.random) if self._refuses_roots else None
        else:
            trace_id = span._drawn_id or self.draw(128)
            if trace_id & TraceIdRatioBased.TRACE_ID_LIMIT >= self.bound:
                return self._drop(span, trace_id, self.random)
        if span._drawn_id:
            # It was decided before, and is as any other.
            span._drawn_id = 0
            span._plain = span._options is None and (span._spec is None or span._spec.elapsed is None)
        span._trace_id = trace_id
        span._parent_id = 0
        span._flags = self.root_flags
        return span

    def _join(self, span: Any, parent: Span, hold: Any) -> Any:
        """A child of a span that is held back, where nothing has changed since its parent began."""
        flags = parent._flags
        changed = not hold.recording or hold.sampled != flags & SAMPLED or parent._outer is not None
        if changed or self._root is False or not self._tracer_config.is_enabled:
            return None
        span._trace_id = parent._trace_id
        span._parent_id = parent._span_id
        span._flags = flags
        if parent._trace_state is not None:
            span._trace_state = parent._trace_state
        span._hold = hold
        span._plain = False
        return span

    def _drop(self, span: Any, trace_id: int, flags: int) -> Any:
        # Filled here: its constructor would cost as much again.
        dropped: Any = _new(DroppedSpan)
        dropped._base = span._base
        dropped._trace_id = trace_id
        dropped._flags = flags
        if not self.own_ids:
            dropped._own_id = self.draw(64)
        dropped._token = STARTED
        dropped._spec = None
        dropped._plain = True
        return dropped

    def tell_start(self, span: Any, parent: Any) -> None:
        """Tell the processors that want to know."""
        options = span._options
        if options is not None and options.context is not None:
            parent = options.context
        context = parent if isinstance(parent, dict) else parent.as_context()
        for on_start in self.pipeline.on_start:
            on_start(span, parent_context=context)

    def clean(self, span: Any, attributes: Mapping[str, Any]) -> None:
        """Give the span attributes that are not plain, or more than it may have."""
        span._attributes, dropped = recorded(attributes, *self._bounds)
        if dropped:
            span._dropped = (dropped, 0, 0)

    def _generate(self, bits: int) -> int:
        generator = self.id_generator
        drawn = generator.generate_trace_id() if bits == _TRACE_ID_BITS else generator.generate_span_id()
        # Zero is no id: a child would be taken for a root of the same trace.
        return drawn or draw_bits(bits)


def _parent_in(origin: Any) -> Any:
    """The parent: a span of ours, the context of another's, or None; `origin` is as in `place`."""
    value = origin
    while True:
        found = value.get(SPAN_KEY) if isinstance(value, dict) else value
        if type(found) is trace_api.NonRecordingSpan:
            # What came from elsewhere; to look whether it is one of ours takes longer than all the rest.
            break
        if not isinstance(found, Span | DroppedSpan) or not hasattr(found, "_trace_id"):
            # Another's span; or a scope that was not entered, which has no identity.
            break
        if found._outer is None:
            if found._passed_on is None:
                return found
            found = trace_api.NonRecordingSpan(found._passed_on)
            break
        value = found._outer
    context = found.get_span_context() if isinstance(found, trace_api.Span) else None
    return context if context is not None and context.is_valid else None


def _pass_on(parent: Any, base: Context | None) -> DroppedSpan:
    """What a tracer that is switched off makes current: its parent's identity."""
    if parent is not None and not isinstance(parent, SpanContext):
        parent = parent.get_span_context()
    known = parent or trace_api.INVALID_SPAN_CONTEXT
    dropped = DroppedSpan(known.trace_id, known.span_id, int(known.trace_flags), known.trace_state or None)
    dropped._built_context = dropped._passed_on = known
    dropped._plain = False
    dropped._base = base
    return dropped
