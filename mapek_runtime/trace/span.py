"""A span: recorded in one slotted object, read through the SDK's interface.

What every span has lies in slots; what few have (events, links, a status) lies in the instance
dictionary and is read through a class default, so that it costs nothing while it is absent. The
`SpanContext` and the `Context` are built when somebody asks.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, cast

from opentelemetry.context.context import Context
from opentelemetry.sdk import trace as sdk
from opentelemetry.trace import Link, SpanContext, Status, StatusCode
from opentelemetry.util.types import Attributes, AttributeValue

from .context import TOKENS
from .failure import record_error, record_failure
from .identity import SAMPLED, Identity
from .limits import PLAIN_TYPES, RecordedEvent, bounded, has_odd_keys, is_plain, kept_links, push, recorded
from .scope import ENDED, LEFT, STARTED, Options, SpanScope

if TYPE_CHECKING:
    from .spec import SpanSpec

__all__ = ["UNSET", "Span"]

logger = logging.getLogger(__name__)

UNSET = Status(StatusCode.UNSET)


class Span(SpanScope, Identity):
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
        "_plain",
        "_span_id",
        "_spec",
        "_start_time",
        "_token",
        "_trace_id",
        "_tracer",
    )

    _spec: SpanSpec | None
    _attributes: dict[str, Any]

    # What is absent on most spans: set on the instance only when it differs.
    _events: list[sdk.Event] = cast("list[sdk.Event]", ())
    _links: list[Link] = cast("list[Link]", ())
    _status: Status = UNSET
    _hold: Any = None
    """Who holds the span back after its end, until its trace is decided (`sampling.cycles`)."""
    _passed_on: SpanContext | None = None
    _drawn_id: int = 0
    """The trace id, where it was drawn before the span came to be."""
    _dropped: tuple[int, int, int] | None = None
    """Dropped attributes, events and links."""

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Span:
        raise TypeError("a Span is started by a Tracer: tracer.start_span(name)")

    # The beginning

    def __enter__(self) -> Any:  # noqa: PLR0912 - in one piece, because calls cost
        """Start the span and make it current; what is current then: another, if this is not recorded.

        `Tracer.start_span` comes here too, with a mark in `_token` that asks for no attaching. This is
        the hot path: what is usual is done in place, all else by `Tracer.place`.
        """
        token = self._token
        if token is not None and token is not STARTED:
            return self._enter_again()
        tracer = self._tracer
        # Taken to a name before they are called: `tracer.get()` looks for a method first, which is slow.
        get, draw, now = tracer.get, tracer.draw, tracer.now
        parent = get()
        span: Any = self
        if type(parent) is Context:
            if not parent and self._plain and tracer.admits_roots:
                self._base = parent
                self._trace_id = draw(128)
                self._parent_id = 0
                self._flags = tracer.root_flags
            else:
                span = tracer.place(self, parent)
        elif self._plain and parent._plain and parent._flags & SAMPLED and tracer.admits_children:
            self._base = parent._base
            self._trace_id = parent._trace_id
            self._parent_id = parent._span_id
            self._flags = parent._flags
        else:
            span = tracer.place(self, parent)
        if span is self:
            attributes = self._attributes
            if not attributes:
                self._attributes = {}
            elif len(attributes) > tracer.maximum:
                tracer.clean(self, attributes)
            else:
                for value in attributes.values():
                    if type(value) not in PLAIN_TYPES:
                        tracer.clean(self, attributes)
                        break
                else:
                    # A declaration made this dictionary for this span alone. Keys are looked at when
                    # they are read or encoded: both must look each key up anyway.
                    if self._spec is None:
                        self._attributes = {**attributes}
            self._span_id = draw(64)
            self._end_time = None
            self._start_time = now()
            if not self._plain and self._options is not None:
                self._take(self._options, parent)
            elif tracer.pipeline.on_start:
                tracer.tell_start(self, parent)
        else:
            self._stand_in = span
            self._plain = False
        if token is None:
            attach = tracer.set
            self._token = attach(span)
        else:
            self._token = parent
        return span

    def _take(self, options: Options, parent: Any) -> None:
        if options.links:
            self._append_links(kept_links(options.links, self._tracer.limits))
        if options.start_time is not None:
            self._start_time = options.start_time
        if self._tracer.pipeline.on_start:
            self._tracer.tell_start(self, parent)
        if options.are_for_the_start:
            # From here on the span and those below it are plain, if nothing else is to be minded.
            self._options = None
            minded = self._hold is not None or self._trace_state is not None
            self._plain = not (minded or (self._spec is not None and self._spec.elapsed is not None))

    # Recording

    @property
    def attributes(self) -> Attributes:
        """What was recorded, read-only."""
        attributes = self._attributes
        if has_odd_keys(attributes):
            attributes, dropped = recorded(attributes, None, None)
            self._attributes = attributes
            self._count_dropped(attributes=dropped)
        return MappingProxyType(attributes if self._end_time is None else attributes.copy())

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
        try:
            return self._end_time is None
        except AttributeError:
            # A scope that was not entered.
            return False

    def set(self, **values: Any) -> None:
        """Set values that were declared with the span, by parameter name; None is not recorded.

        Raises TypeError for a name that the declaration does not have.
        """
        if self._spec is None:
            raise TypeError(f"span {self._name!r} has no declaration; use set_attribute()")
        pairs = self._spec.late(values)
        if len(self._attributes) + len(pairs) <= self._tracer.maximum and is_plain(pairs):
            if self._end_time is None:
                self._attributes.update(pairs)
                return
        elif self._end_time is None:
            self._record(pairs)
            return
        logger.warning("span %r has ended; %s not set", self._name, ", ".join(values))

    def set_attribute(self, key: str, value: AttributeValue) -> None:
        """Set one attribute; see `opentelemetry.trace.Span.set_attribute`."""
        attributes = self._attributes
        if type(value) in PLAIN_TYPES and type(key) is str and key and len(attributes) < self._tracer.maximum:
            # As in `end`: nothing is called in between, so that an ended span stays as it is.
            if self._end_time is None:
                if key in attributes:
                    # As with the SDK's it then is the youngest, and at the limit the last to go.
                    del attributes[key]
                attributes[key] = value
                return
        elif self._end_time is None:
            self._record({key: value})
            return
        logger.warning("Setting attribute on ended span.")

    def set_attributes(self, attributes: Mapping[str, AttributeValue]) -> None:
        """Set several attributes."""
        if self._end_time is not None:
            logger.warning("Setting attribute on ended span.")
            return
        self._record(attributes)

    def _record(self, attributes: Mapping[str, Any], *, late: bool = False) -> None:
        """Set what may have to be cleaned and cut; `late` also on a span that has ended."""
        limits = self._tracer.limits
        most = limits.max_span_attributes
        cleaned, dropped = recorded(attributes, None, limits.max_span_attribute_length)
        mine = self._attributes
        if most is not None and len(mine) + len(cleaned) > most:
            mine, pushed_out = push(mine, cleaned, most)
            dropped += pushed_out
            if late or self._end_time is None:
                self._attributes = mine
        else:
            for key, value in cleaned.items():
                if late or self._end_time is None:
                    if key in mine:
                        del mine[key]
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
        self._add_event(RecordedEvent(name, cleaned, moment, dropped))

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

    def add_link(self, context: SpanContext | None, attributes: Attributes = None) -> None:
        """Link to another span, in this trace or another."""
        if context is None or not (context.is_valid or attributes or context.trace_state):
            return
        limits = self._tracer.limits
        self._add_link(Link(context, bounded(attributes, limits.max_link_attributes, limits)))

    def _add_link(self, link: Link) -> None:
        if self._end_time is not None:
            logger.warning("Tried calling _add_link on an ended span.")
            return
        self._append_links([link])

    def _append_links(self, links: list[Link]) -> None:
        limits = self._tracer.limits
        kept = [*self._links, *links]
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
        if not isinstance(status, Status):
            status = Status(status, description)
        elif description is not None:
            logger.warning(
                "Description %s ignored. Use either `Status` or `(StatusCode, Description)`", description
            )
        if self._status.status_code is not StatusCode.OK and status.status_code is not StatusCode.UNSET:
            self._status = status

    # The end

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        token = self._token
        self._token = LEFT
        tracer = self._tracer
        reset = tracer.reset
        try:
            reset(token)
        except (ValueError, TypeError):
            self._left_elsewhere(token)
        # The same as `end()`: a call would be a fortieth of what a span costs.
        if exc is None and self._plain:
            now = tracer.now
            moment = now()
            if self._end_time is None:
                self._end_time = moment
                end = tracer.pipeline.end
                end(self)
                return
        self._finish_with_care(exc)

    def end(self, end_time: int | None = None) -> None:
        """End the span, now or at `end_time` (Unix time in nanoseconds), and hand it on."""
        tracer = self._tracer
        now, end = tracer.now, tracer.pipeline.end
        moment = now() if end_time is None else end_time
        # Between these two nothing is called, so that no other thread comes in between: of those that
        # end a span at once only one does.
        if self._end_time is not None:
            logger.warning("Calling end() on an ended span.")
            return
        self._end_time = moment
        token = self._token
        if token is not LEFT and type(token) not in TOKENS:
            # A span of `start_span`: these may hold its parent.
            self._token = ENDED
            if not self._plain:
                self._options = None
        if self._plain or self._hold is None:
            end(self)
            return
        for on_ending in tracer.pipeline.on_ending:
            on_ending(self)
        if not self._hold.take(self):
            self.hand_on()

    def hand_on(self) -> None:
        """Give an ended span that was held back to the processors."""
        for on_end in self._tracer.pipeline.on_end:
            on_end(self)

    def start(self, start_time: int | None = None, parent_context: Context | None = None) -> None:
        """Only the tracer starts a span; this one has started."""
        logger.warning("Calling start() on a started span.")

    def _readable_span(self) -> sdk.ReadableSpan:
        return self

    def failed(self, error: BaseException, *, record: bool = True, status: bool = True) -> None:
        """Record that `error` left the block of this span; see `failure`."""
        if self._end_time is not None:
            return
        failed = record_failure(self, error, record=record, status=status)
        if failed and self._spec is not None and self._spec.has_success:
            self._attributes["success"] = False

    def record_exception(
        self,
        exception: BaseException,
        attributes: Attributes = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        """Record an exception as an event, and each error of a group as one more."""
        record_error(self, exception, attributes, timestamp, escaped=escaped)
