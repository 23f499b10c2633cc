"""Verdicts: what a sampler answers once it has decided.

A root without anything to hand on, which is nearly every root, gets an answer that was made in
advance. Everything else costs what a changed trace state costs.
"""

from __future__ import annotations

from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import Decision, SamplingResult
from opentelemetry.trace import Span, SpanContext, TraceState, get_current_span
from opentelemetry.util.types import Attributes

from mapek_runtime.trace.context import SPAN_KEY

from .threshold import encode_threshold, read_sub_keys, write_sub_keys

__all__ = ["Kept", "drop", "incoming", "randomness_in"]

_KEY = "ot"
_MOST_ENTRIES = 32
_DROPPED = SamplingResult(Decision.DROP)


def incoming(context: Context | None) -> SpanContext | None:
    """The span context that a decision starts from; None for a root that was told nothing."""
    span = get_current_span() if context is None else context.get(SPAN_KEY)
    if span is None:
        return None
    return span.get_span_context() if isinstance(span, Span) else None


def randomness_in(state: TraceState | None) -> int | None:
    """The explicit randomness (`rv`) of a trace state, if it has one."""
    text = state.get(_KEY) if state else None
    return read_sub_keys(text).randomness if text else None


class Kept:
    """The answer for a trace that is kept at one threshold.

    Without a threshold the probability is unknown, and no `th` is left standing.
    """

    __slots__ = ("_plain", "_state", "_text", "threshold")

    def __init__(self, threshold: int | None) -> None:
        self.threshold = threshold
        self._text = None if threshold is None else encode_threshold(threshold)
        self._state = _marked(TraceState(), self._text)
        self._plain = SamplingResult(Decision.RECORD_AND_SAMPLE, None, self._state)

    def answer(self, attributes: Attributes, state: TraceState | None) -> SamplingResult:
        """The answer for a span with these attributes under this trace state."""
        if state:
            return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes, _marked(state, self._text))
        if attributes:
            return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes, self._state)
        return self._plain


def drop(state: TraceState | None) -> SamplingResult:
    """The answer for a span that is not kept: the trace state goes on without a threshold."""
    return SamplingResult(Decision.DROP, None, _marked(state, None)) if state else _DROPPED


def _marked(state: TraceState, threshold: str | None) -> TraceState:
    """The trace state with that `th`, or with none; everything else in it stays."""
    before = state.get(_KEY)
    text = write_sub_keys(threshold, read_sub_keys(before).others if before else ())
    if text == (before or ""):
        return state
    if not text:
        return state.delete(_KEY)
    if before is None and len(state) >= _MOST_ENTRIES:
        # No entry of somebody else's gives way to ours.
        return state
    return state.update(_KEY, text)
