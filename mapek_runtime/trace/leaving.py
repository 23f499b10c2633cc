"""Leaving: whoever writes a span's context into a message decides the cycle that the span belongs to.

A cycle that is held can wait for a cause only while nobody else has been told of it. `LeavingPropagator`
stands in front of the propagator that writes the headers and settles the cycle first: found a cause
already, the context leaves as sampled; else the head decision becomes the verdict, and what is found
later does not change it. So the receiver's half of the trace and ours are kept or dropped together.

What writes headers past OpenTelemetry's global propagator is not seen. It writes the head decision all
the same, so nobody is ever kept without a parent; only, a cycle that then finds a cause is kept without
its far half.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from opentelemetry import propagate
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import (
    CarrierT,
    Getter,
    Setter,
    TextMapPropagator,
    default_getter,
    default_setter,
)
from opentelemetry.trace import get_current_span

__all__ = ["LeavingPropagator", "install_leaving"]

_HARMLESS = frozenset(("baggage",))
"""Header fields that say nothing of the current span."""


class LeavingPropagator(TextMapPropagator):
    """`inner`, after the cycle of the current span was settled."""

    def __init__(self, inner: TextMapPropagator) -> None:
        self.inner = inner
        self.uses = 0
        """How often it was put in force and not taken back."""
        self._tells = bool(inner.fields - _HARMLESS)

    def extract(
        self,
        carrier: CarrierT,
        context: Context | None = None,
        getter: Getter[CarrierT] = default_getter,
    ) -> Context:
        """What `inner` reads."""
        return self.inner.extract(carrier, context, getter)

    def inject(
        self,
        carrier: CarrierT,
        context: Context | None = None,
        setter: Setter[CarrierT] = default_setter,
    ) -> None:
        """Settle the cycle of the current span, then write what `inner` writes."""
        if self._tells:
            span = get_current_span(context)
            hold = getattr(span, "_hold", None)
            if hold is not None:
                hold.leave(span)
        self.inner.inject(carrier, context, setter)

    @property
    def fields(self) -> set[str]:
        """The fields of `inner`."""
        return self.inner.fields


_changing = threading.Lock()


def install_leaving() -> Callable[[], None]:
    """Put a `LeavingPropagator` around OpenTelemetry's global propagator; the result takes it back.

    There is never more than one, however often this is called, and the last one to take it back does.
    A global propagator that somebody else has set meanwhile is left alone.
    """
    with _changing:
        present = propagate.get_global_textmap()
        leaving = present if isinstance(present, LeavingPropagator) else LeavingPropagator(present)
        if leaving is not present:
            propagate.set_global_textmap(leaving)
        leaving.uses += 1
    taken_back = False

    def take_back() -> None:
        nonlocal taken_back
        with _changing:
            if taken_back:
                return
            taken_back = True
            leaving.uses -= 1
            if not leaving.uses and propagate.get_global_textmap() is leaving:
                propagate.set_global_textmap(leaving.inner)

    return take_back
