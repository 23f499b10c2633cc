"""A span: recorded in one slotted object, read through the SDK's interface.

What every span has lies in slots; what few have (events, links, a status) lies in the instance
dictionary and is read through a class default, so that it costs nothing while it is absent. The
`SpanContext` and the `Context` are built when somebody asks.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, cast

from opentelemetry.context.context import Context
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    Link,
    SpanContext,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
)
from opentelemetry.util.types import Attributes, AttributeValue

from .context import SPAN_KEY
from .limits import PLAIN_TYPES, CutEvent, bounded, recorded

if TYPE_CHECKING:
    from .spec import SpanSpec
    from .tracer import Tracer

__all__ = ["RANDOM", "SAMPLED", "UNSET", "Span"]

logger = logging.getLogger(__name__)

UNSET = Status(StatusCode.UNSET)
SAMPLED = 0x01
RANDOM = 0x02
"""The flags of W3C Trace Context: the trace is sampled; its id is random."""


class Span(sdk.Span):
    """A recording span, made by `Tracer`; see `opentelemetry.trace.Span`.

    Ended, it is its own readable form: the processors get the span itself, not a copy, and nothing
    can be changed on it any more.
    """

    __slots__ = (
        "_attributes",
        "_base",
        "_end_time",
        "_flags",
        "_kind",
        "_name",
        "_parent_id",
        "_span_id",
        "_spec",
        "_start_time",
        "_trace_id",
        "_tracer",
    )

    _tracer: Tracer
    _trace_id: int
    _span_id: int
    _parent_id: int
    _flags: int
    _base: Context | None
    _spec: SpanSpec | None
    _attributes: dict[str, Any]

    # What is absent on most spans: set on the instance only when it differs.
    _events: list[sdk.Event] = cast("list[sdk.Event]", ())
    _links: list[Link] = cast("list[Link]", ())
    _status: Status = UNSET
    _trace_state: TraceState | None = None
    _parent_remote: bool = False
    _parent_context: SpanContext | None = None
    _built_context: SpanContext | None = None
    _outer: Any = None
    """What was current before this span, when its scope was left in another context."""
    _dropped: tuple[int, int, int] | None = None
    """Dropped attributes, events and links."""
    _record_exception: bool = True
    _set_status_on_exception: bool = True

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Span:
        raise TypeError("a Span is started by a Tracer: tracer.start_span(name)")

    # Identity

    @property
    def _context(self) -> SpanContext:  # type: ignore[override]
        built = self._built_context
        if built is None:
            built = self._built_context = SpanContext(
                self._trace_id, self._span_id, False, TraceFlags(self._flags), self._trace_state
            )
        return built

    def get_span_context(self) -> SpanContext:
        """Ids, flags and trace state."""
        return self._context

    @property
    def context(self) -> SpanContext:
        """The same as `get_span_context()`."""
        return self._context

    @property
    def _parent(self) -> SpanContext | None:  # type: ignore[override]
        if not self._parent_id:
            return None
        parent = self._parent_context
        if parent is None:
            parent = self._parent_context = SpanContext(
                self._trace_id,
                self._parent_id,
                self._parent_remote,
                TraceFlags(self._flags),
                self._trace_state,
            )
        return parent

    @property
    def parent(self) -> SpanContext | None:
        """The parent's context; None for a root."""
        return self._parent

    @property
    def resource(self) -> Resource:
        """Who made the span."""
        return self._tracer.resource

    @property
    def _resource(self) -> Resource:  # type: ignore[override]
        return self._tracer.resource

    @property
    def instrumentation_scope(self) -> InstrumentationScope:
        """Which instrumentation made the span."""
        return self._tracer.scope

    @property
    def _instrumentation_scope(self) -> InstrumentationScope:  # type: ignore[override]
        return self._tracer.scope

    @property
    def _instrumentation_info(self) -> Any:  # type: ignore[override]
        return self._tracer.instrumentation_info

    @property
    def _limits(self) -> sdk.SpanLimits:
        return self._tracer.limits

    def as_context(self) -> Context:
        """The context in which this span is current."""
        context = dict(self._base or ())
        context[SPAN_KEY] = self
        return Context(context)

    # Recording

    @property
    def attributes(self) -> Attributes:
        """What was recorded, read-only."""
        attributes = self._attributes
        if "" in attributes or not all(type(key) is str for key in attributes):
            attributes, dropped = recorded(attributes, None, None)
            self._attributes = attributes
            self._count_dropped(attributes=dropped)
        return MappingProxyType(attributes)

    @property
    def dropped_attributes(self) -> int:
        """Attributes lost to the limits."""
        return self._dropped[0] if self._dropped else 0

    @property
    def dropped_events(self) -> int:
        """Events lost to the limits."""
        return self._dropped[1] if self._dropped else 0

    @property
    def dropped_links(self) -> int:
        """Links lost to the limits."""
        return self._dropped[2] if self._dropped else 0

    def is_recording(self) -> bool:
        """Whether the span is still open."""
        return self._end_time is None

    def set(self, **values: Any) -> None:
        """Set values that were declared with the span, by parameter name; None is not recorded.

        Raises TypeError for a name that the declaration does not have.
        """
        if self._spec is None:
            raise TypeError(f"span {self._name!r} has no declaration; use set_attribute()")
        pairs = self._spec.late(values)
        if self._end_time is not None:
            logger.warning("span %r has ended; %s not set", self._name, ", ".join(values))
            return
        self._attributes.update(pairs)

    def set_attribute(self, key: str, value: AttributeValue) -> None:
        """Set one attribute; see `opentelemetry.trace.Span.set_attribute`."""
        if self._end_time is not None:
            logger.warning("Setting attribute on ended span.")
            return
        limits = self._tracer.limits
        if (
            type(value) in PLAIN_TYPES
            and type(key) is str
            and key
            and limits.max_span_attribute_length is None
            and (limits.max_span_attributes is None or len(self._attributes) < limits.max_span_attributes)
        ):
            self._attributes[key] = value
        else:
            self._setbounded({key: value})

    def set_attributes(self, attributes: Mapping[str, AttributeValue]) -> None:
        """Set several attributes."""
        if self._end_time is not None:
            logger.warning("Setting attribute on ended span.")
            return
        self._setbounded(attributes)

    def _setbounded(self, attributes: Mapping[str, Any]) -> None:
        limits = self._tracer.limits
        cleaned, dropped = recorded(attributes, limits.max_span_attributes, limits.max_span_attribute_length)
        mine = self._attributes
        for key, value in cleaned.items():
            if (
                limits.max_span_attributes is not None
                and key not in mine
                and len(mine) >= limits.max_span_attributes
            ):
                # The SDK lets the oldest go, so that what was learned last is kept.
                del mine[next(iter(mine))]
                dropped += 1
            mine[key] = value
        if dropped:
            self._count_dropped(attributes=dropped)

    def _count_dropped(self, *, attributes: int = 0, events: int = 0, links: int = 0) -> None:
        a, e, lost = self._dropped or (0, 0, 0)
        self._dropped = (a + attributes, e + events, lost + links)

    def add_event(self, name: str, attributes: Attributes = None, timestamp: int | None = None) -> None:
        """Record that something happened, now or at `timestamp` (Unix time in nanoseconds)."""
        limits = self._tracer.limits
        cleaned, dropped = recorded(attributes, limits.max_event_attributes, limits.max_attribute_length)
        moment = timestamp if timestamp is not None else self._tracer.now()
        event = sdk.Event(name, cleaned, moment) if not dropped else CutEvent(name, cleaned, moment, dropped)
        self._add_event(event)

    def _add_event(self, event: Any) -> None:
        if self._end_time is not None:
            logger.warning("Tried calling _add_event on an ended span.")
            return
        maximum = self._tracer.limits.max_events
        if maximum == 0:
            self._count_dropped(events=1)
            return
        if not self._events:
            self._events = [event]
            return
        if maximum is not None and len(self._events) >= maximum:
            del self._events[0]
            self._count_dropped(events=1)
        self._events.append(event)

    def add_link(self, context: SpanContext, attributes: Attributes = None) -> None:
        """Link to another span, in this trace or another."""
        if not (context.is_valid or attributes or context.trace_state):
            return
        limits = self._tracer.limits
        self._add_link(Link(context, bounded(attributes, limits.max_link_attributes, limits)))

    def _add_link(self, link: Link) -> None:
        if self._end_time is not None:
            logger.warning("Tried calling _add_link on an ended span.")
            return
        self._keep_links((link,))

    def _keep_links(self, links: Sequence[Link]) -> None:
        limits = self._tracer.limits
        kept = [*self._links]
        for link in links:
            if link.context.is_valid or link.attributes or link.context.trace_state:
                link._attributes = bounded(link.attributes, limits.max_link_attributes, limits)
                kept.append(link)
        if limits.max_links is not None and len(kept) > limits.max_links:
            self._count_dropped(links=len(kept) - limits.max_links)
            kept = kept[len(kept) - limits.max_links :]
        if kept:
            self._links = kept

    def update_name(self, name: str) -> None:
        """Give the span another name."""
        if self._end_time is not None:
            logger.warning("Tried calling update_name on an ended span.")
            return
        self._name = name

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        """Set the status; OK is final and UNSET is ignored (specification: trace/api.md#set-status)."""
        if self._end_time is not None:
            logger.warning("Tried calling set_status on an ended span.")
            return
        if isinstance(status, Status):
            code = status.status_code
            if description is not None:
                logger.warning(
                    "Description %s ignored. Use either `Status` or `(StatusCode, Description)`", description
                )
        else:
            code = status
            status = Status(status, description)
        if self._status.status_code is StatusCode.OK or code is StatusCode.UNSET:
            return
        self._status = status

    # The end

    def end(self, end_time: int | None = None) -> None:
        """End the span, now or at `end_time` (Unix time in nanoseconds), and hand it on."""
        if self._end_time is not None:
            logger.warning("Calling end() on an ended span.")
            return
        tracer = self._tracer
        self._end_time = tracer.now() if end_time is None else end_time
        pipeline = tracer.pipeline
        if pipeline.on_ending:
            for on_ending in pipeline.on_ending:
                on_ending(self)
        for on_end in pipeline.on_end:
            on_end(self)

    def start(self, start_time: int | None = None, parent_context: Context | None = None) -> None:
        """Only the tracer starts a span; this one has started."""
        logger.warning("Calling start() on a started span.")

    def _readable_span(self) -> sdk.ReadableSpan:
        return self

    def failed(self, error: BaseException, *, record: bool = True, status: bool = True) -> None:
        """Record that `error` left the block of this span.

        Cancellation is not an error: it is marked with `asyncio.cancelled`, and the status stays as
        it is. Other exceptions that are no `Exception` (GeneratorExit, KeyboardInterrupt) end the
        span without a mark.
        """
        if self._end_time is not None:
            return
        if isinstance(error, asyncio.CancelledError):
            self.set_attribute("asyncio.cancelled", True)
            if error.args and isinstance(error.args[0], str):
                self.set_attribute("asyncio.cancelled.message", error.args[0])
            return
        if not isinstance(error, Exception):
            return
        if record:
            self.record_exception(error, escaped=True)
        if status:
            self.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {error}"))
        if self._spec is not None and self._spec.has_success:
            self._attributes["success"] = False

    def __enter__(self) -> Span:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        if exc_val is not None:
            self.failed(exc_val, record=self._record_exception, status=self._set_status_on_exception)
        self.end()
