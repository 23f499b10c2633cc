"""How a block ended, written on its span: failed, cancelled, closed or left by an exit.

Works through OpenTelemetry's interface, so that a span of any provider is marked alike.

* An `Exception` is an error: status and an event as the SDK writes them, and `error.type` on the spans
  that were declared or decorated. Spans by hand have what the SDK gives them and nothing else:
  instrumentations set the type themselves, by their own conventions.
* Cancellation is not an error: `asyncio.cancelled` is true, with the message if there is one. A
  tracer whose `cancelled_status` is "error" has the status and `error.type` say it too.
* GeneratorExit is a normal end: a generator or coroutine was closed early, `generator.closed` is true.
* SystemExit, KeyboardInterrupt and their like are no errors of the work: `exit.type` names them, and
  `process.exit.code` is what a SystemExit asks for.
* A group is what is in it. Its errors get an event each, with their path in the group
  (`exception.group.path` "0.2.1"), after one for the group. There are as many as the span has room for,
  and only those that no span of the trace has recorded before; the rest are counted as dropped.

Nothing here raises, and an exception is never kept alive, changed or replaced.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Literal

from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.semconv.attributes.exception_attributes import (
    EXCEPTION_ESCAPED,
    EXCEPTION_MESSAGE,
    EXCEPTION_STACKTRACE,
    EXCEPTION_TYPE,
)
from opentelemetry.trace import Span, Status, StatusCode

from .active import active_provider
from .told import told_of
from .values import kind_of, text_of

__all__ = ["CancelledStatus", "record_error", "record_failure", "stacktrace_of"]

logger = logging.getLogger(__name__)

CancelledStatus = Literal["unset", "error"]
"""What the status of a cancelled span says: nothing, or that it is an error."""

GROUP_PATH = "exception.group.path"
"""Where in its group an error was: the indices from the outermost group inwards."""
GROUP_LEAVES = "exception.group.leaves"
"""How many errors a group holds, however deep, each counted once."""

MOST_LEAVES = 128
"""Errors of a group that are recorded where the span has no limit for its events."""
MOST_IN_CHAIN = 64
"""Exceptions whose tracebacks one event shows: those that caused one another, groups with their errors."""
DEEPEST = 64
"""Groups inside one another; what lies deeper is taken as one error."""


def record_failure(span: Span, error: BaseException, *, record: bool = True, status: bool = True) -> bool:
    """Write on `span` that `error` left its block; whether the work failed to come to its end.

    `record` allows events, `status` the status.
    """
    failed = not isinstance(error, GeneratorExit)
    try:
        if span.is_recording():
            _mark(span, error, record=record, status=status)
    except Exception:
        # A fault of tracing must not take the place of the error. Deep in a recursion even logging may fail.
        with suppress(Exception):
            logger.warning("span %r: its end could not be recorded", span, exc_info=True)
    return failed


def record_error(
    span: Span,
    error: BaseException,
    attributes: Mapping[str, Any] | None = None,
    timestamp: int | None = None,
    *,
    escaped: bool = False,
) -> None:
    """Record `error` as an event; a group as one for itself and one for each error in it."""
    room = _room(span)
    trace_id = span.get_span_context().trace_id
    if not isinstance(error, BaseExceptionGroup):
        if room != 0:
            told_of.add(error, trace_id)
            span.add_event("exception", _describe(error, escaped, attributes), timestamp)
        else:
            _count_dropped(span, 1)
        return
    leaves = [(path, leaf) for path, leaf in _leaves(error) if isinstance(leaf, Exception)]
    if room != 0:
        own = _describe(error, escaped, {GROUP_LEAVES: len(leaves), **(attributes or {})})
        span.add_event("exception", own, timestamp)
    else:
        _count_dropped(span, 1)
    dropped = 0
    for path, leaf in leaves:
        if told_of.knows(leaf, trace_id):
            continue
        if room <= 1:
            dropped += 1
            continue
        room -= 1
        told_of.add(leaf, trace_id)
        described = _describe(leaf, escaped, {GROUP_PATH: path, **(attributes or {})})
        span.add_event("exception", described, timestamp)
    if dropped:
        _count_dropped(span, dropped)


def stacktrace_of(error: BaseException) -> str:
    """The traceback as Python prints it, with what caused it; that of a group without its errors."""
    small = _is_small(error)
    shown, kind = error, type(error)
    if isinstance(error, BaseExceptionGroup) or not small:
        # The standard library looks at every error of a group before it shows the first fifteen.
        shown = Exception(text_of(error))
        shown.__notes__ = getattr(error, "__notes__", [])
        if small:
            shown.__cause__ = error.__cause__
            shown.__context__ = error.__context__
            shown.__suppress_context__ = error.__suppress_context__
        if isinstance(error, SyntaxError):
            # Asked for its line, which the one shown does not have.
            kind = Exception
    try:
        lines = traceback.TracebackException(kind, shown, error.__traceback__, compact=True).format()
        return text_of("".join(lines))
    except Exception:  # noqa: BLE001 - attributes of any object are read
        return f"{kind_of(error)}: {text_of(error)}\n"


def _mark(span: Span, error: BaseException, *, record: bool, status: bool) -> None:
    if isinstance(error, Exception):
        _fail(span, error, record=record, status=status)
    elif isinstance(error, BaseExceptionGroup):
        kinds: dict[type, BaseException] = {}
        failed = False
        for _path, leaf in _leaves(error):
            failed = failed or isinstance(leaf, Exception)
            if not isinstance(leaf, Exception):
                kinds.setdefault(type(leaf), leaf)
        for leaf in kinds.values():
            _left(span, leaf, status=status)
        if failed:
            _fail(span, error, record=record, status=status)
    else:
        _left(span, error, status=status)


def _fail(span: Span, error: BaseException, *, record: bool, status: bool) -> None:
    if status:
        said = f"{type(error).__name__}: {text_of(error)}"
        # A span of another provider that comes here is a declared one.
        _set_error(span, type(error), said, typed=getattr(span, "_spec", True) is not None)
    if record:
        record_error(span, error, escaped=True)


def _left(span: Span, error: BaseException, *, status: bool) -> None:
    """Mark an end that is no error."""
    if isinstance(error, asyncio.CancelledError):
        span.set_attribute("asyncio.cancelled", True)
        message = text_of(error.args[0]) if error.args and error.args[0] is not None else ""
        if message:
            span.set_attribute("asyncio.cancelled.message", message)
        if status and _cancelled_status(span) == "error":
            said = f"CancelledError: {message}" if message else "CancelledError"
            _set_error(span, asyncio.CancelledError, said, typed=True)
    elif isinstance(error, GeneratorExit):
        span.set_attribute("generator.closed", True)
    else:
        span.set_attribute("exit.type", kind_of(error))
        if isinstance(error, SystemExit):
            code = error.code
            # What is no number is printed, and the code is 1.
            span.set_attribute("process.exit.code", code if isinstance(code, int) else int(code is not None))


def _set_error(span: Span, kind: type, description: str, *, typed: bool) -> None:
    span.set_status(Status(StatusCode.ERROR, description))
    # OK is final: the program has said that this is no error.
    now: Any = getattr(span, "status", None)
    if now is not None and now.status_code is not StatusCode.ERROR:
        return
    # Whoever knows better (an HTTP status) has said so already.
    if typed and ERROR_TYPE not in (getattr(span, "attributes", None) or ()):
        span.set_attribute(ERROR_TYPE, kind.__qualname__)


def _cancelled_status(span: Span) -> CancelledStatus:
    for source in (getattr(span, "_tracer", None), active_provider()):
        status: CancelledStatus | None = getattr(source, "cancelled_status", None)
        if status is not None:
            return status
    return "unset"


def _describe(error: BaseException, escaped: bool, more: Mapping[str, Any] | None) -> dict[str, Any]:
    described = {
        EXCEPTION_TYPE: kind_of(error),
        EXCEPTION_MESSAGE: text_of(error),
        EXCEPTION_STACKTRACE: stacktrace_of(error),
        EXCEPTION_ESCAPED: str(escaped),
    }
    return {**described, **more} if more else described


def _room(span: Any) -> int:
    """How many events an error may add: what is free, or the older half of what the span holds."""
    limits = getattr(span, "_limits", None)
    most: int | None = getattr(limits, "max_events", None)
    if most is None:
        return MOST_LEAVES
    held = len(getattr(span, "_events", ()))
    return max(most - held, (most + 1) // 2)


def _count_dropped(span: Any, events: int) -> None:
    if hasattr(span, "_count_dropped"):
        span._count_dropped(events=events)
    elif hasattr(getattr(span, "_events", None), "dropped"):
        # The stock SDK's list counts what it drops itself, and has no other way to be told.
        span._events.dropped += events


def _errors_in(group: BaseExceptionGroup[BaseException]) -> tuple[BaseException, ...]:
    # The base class's own, whatever a subclass makes of the attribute.
    errors: tuple[BaseException, ...] = BaseExceptionGroup.exceptions.__get__(group)
    return errors


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[tuple[str, BaseException]]:
    """The errors in a group with their paths, each object once."""
    seen = {id(group)}
    open_groups = [("", iter(enumerate(_errors_in(group))))]
    while open_groups:
        prefix, errors = open_groups[-1]
        for index, error in errors:
            if id(error) in seen:
                continue
            seen.add(id(error))
            path = f"{prefix}{index}"
            if isinstance(error, BaseExceptionGroup) and len(open_groups) < DEEPEST:
                open_groups.append((f"{path}.", iter(enumerate(_errors_in(error)))))
                break
            yield path, error
        else:
            open_groups.pop()


def _is_small(error: BaseException) -> bool:
    """Whether what a traceback of `error` shows is little: its causes, and the groups among them whole."""
    seen: set[int] = set()
    count = 0
    # The errors of a group itself are left to events of their own.
    waiting = [error.__cause__, error.__context__]
    while waiting:
        one = waiting.pop()
        if one is None:
            continue
        # In a group an error is looked at as often as it stands there.
        count += 1
        if count > MOST_IN_CHAIN:
            return False
        if id(one) not in seen:
            seen.add(id(one))
            waiting += (one.__cause__, one.__context__)
            if isinstance(one, BaseExceptionGroup):
                waiting += _errors_in(one)[: MOST_IN_CHAIN + 1]
    return True
