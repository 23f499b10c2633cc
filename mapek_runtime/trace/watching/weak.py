"""Watching a span without holding it: what it is while it is open, and the moment it is lost."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mapek_runtime.trace.span import Span

from .birth import NOWHERE, Birth

__all__ = ["OpenSpan", "Watch", "forgetting", "is_older", "look", "watches"]

ATTEMPTS = 3
"""How often attributes are read that another thread changes meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSpan:
    """What an open span was when somebody looked; the span itself is not held."""

    name: str
    trace_id: int
    span_id: int
    parent_id: int | None
    age: float
    """Seconds since its start."""
    attributes: Mapping[str, Any]
    born: str | None
    """`file:line function` where it was started; None where that is not known."""


class Watch(weakref.ref[Any]):
    """A reference that does not hold its span, with what is needed once the span is gone."""

    __slots__ = ("birth", "key")

    key: tuple[int, int]
    """Trace id and span id."""
    birth: Birth


def forgetting(watched: dict[tuple[int, int], Watch]) -> Callable[[weakref.ref[Any]], None]:
    """What is to happen when a watched span is collected: forget it, and count it as lost.

    That may be in any thread and between any two instructions, so it takes no lock, logs nothing, and
    looks up nothing that is gone when the interpreter ends.
    """
    pop = watched.pop

    def gone(watch: Any) -> None:
        # A span that has ended is not there any more, though somebody may still look at its watch.
        if pop(watch.key, None) is not None:
            watch.birth.lose()

    return gone


def watches(watched: dict[tuple[int, int], Watch]) -> list[Watch]:
    """Those of now; other threads and the garbage collector go on changing the dictionary."""
    return list(watched.copy().values())


def is_older(watch: Watch, age: float) -> bool:
    """Whether the span is open, and has been for `age` seconds."""
    span = watch()
    return span is not None and span.end_time is None and _age(span) >= age


def look(watch: Watch, age: float) -> OpenSpan | None:
    """The span as it is now; None unless it is open, and has been for `age` seconds."""
    span = watch()
    if span is None or span.end_time is not None or (now := _age(span)) < age:
        return None
    parent = span.parent
    born = watch.birth.place
    return OpenSpan(
        name=span.name,
        trace_id=watch.key[0],
        span_id=watch.key[1],
        parent_id=None if parent is None else parent.span_id,
        age=now,
        attributes=_attributes(span),
        born=None if born is NOWHERE else born,
    )


def _age(span: Any) -> float:
    # By the clock that the span was started with.
    now: int = span._tracer.now() if type(span) is Span else time.time_ns()
    return (now - (span.start_time or now)) / 1e9


def _attributes(span: Any) -> dict[str, Any]:
    for _ in range(ATTEMPTS):
        try:
            if type(span) is Span:
                # Past the property, which tidies up: the span is its owner's, who may be at it now.
                return {key: value for key, value in span._attributes.copy().items() if type(key) is str}
            return dict(span.attributes or {})
        except (RuntimeError, KeyError):
            # Its owner, in another thread, has set one while they were read.
            continue
    return {}
