"""Declared spans where the provider is not ours: the same calls, through the API.

A `SpanGroup` works under the stock SDK's provider, under any other, and under none.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import INVALID_SPAN_CONTEXT, NonRecordingSpan, Span

from .values import clean_attributes

if TYPE_CHECKING:
    from .spec import SpanSpec

__all__ = ["NO_SPAN", "ForeignSpan"]


class _NoSpan(NonRecordingSpan):
    """What a block yields while there is no provider at all."""

    def set(self, **values: Any) -> None:
        """Record nothing."""


NO_SPAN = _NoSpan(INVALID_SPAN_CONTEXT)


class ForeignSpan:
    """A span of another provider with `set`; everything else goes to the span."""

    def __init__(self, span: Span, spec: SpanSpec, attributes: Mapping[str, Any]) -> None:
        self._span = span
        self._spec = spec
        self._given = dict(attributes)
        self._began = time.perf_counter_ns()

    def set(self, **values: Any) -> None:
        """Set declared values by parameter name; TypeError for a name that was not declared."""
        pairs, _ = clean_attributes(self._spec.late(values), None)
        self._given.update(pairs)
        self._span.set_attributes(pairs)

    def finish(self, error: BaseException | None) -> Span:
        """The span, with what the declaration says of its end: the elapsed time, and `success`."""
        if error is not None and not isinstance(error, GeneratorExit) and self._spec.has_success:
            self._span.set_attribute("success", False)
        key = self._spec.elapsed
        if key is not None and not self._given.get(key):
            self._span.set_attribute(key, (time.perf_counter_ns() - self._began) / 1e6)
        return self._span

    def __getattr__(self, name: str) -> Any:
        return getattr(self._span, name)
