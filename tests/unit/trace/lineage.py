"""Who descends from whom, and what is linked to what, in ended spans."""

from __future__ import annotations

from opentelemetry import trace
from opentelemetry.sdk import trace as sdk

from tests.unit.trace.traced import Traced

__all__ = ["context_of", "is_child_of", "is_root", "linked", "named"]


def named(traced: Traced, name: str) -> sdk.ReadableSpan:
    (span,) = (span for span in traced.spans if span.name == name)
    return span


def context_of(span: sdk.ReadableSpan) -> trace.SpanContext:
    context: trace.SpanContext | None = span.context
    assert context is not None
    return context


def linked(span: sdk.ReadableSpan) -> list[int]:
    return [link.context.span_id for link in span.links]


def is_child_of(span: sdk.ReadableSpan, parent: sdk.ReadableSpan) -> bool:
    same_trace = context_of(span).trace_id == context_of(parent).trace_id
    return same_trace and span.parent is not None and span.parent.span_id == context_of(parent).span_id


def is_root(span: sdk.ReadableSpan) -> bool:
    return span.parent is None
