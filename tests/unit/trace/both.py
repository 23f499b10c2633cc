"""What holds for our provider and for the stock SDK's alike: one exporter behind the two."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import context as context_api
from opentelemetry import trace
from opentelemetry.context.contextvars_context import ContextVarsRuntimeContext
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from mapek_runtime import TracerProvider
from mapek_runtime.trace import use_provider

__all__ = ["counted", "one", "ours", "parents", "traced_by"]

exporter = InMemorySpanExporter()
ours = TracerProvider(shutdown_on_exit=False)
stock = sdk.TracerProvider(shutdown_on_exit=False)
for each in (ours, stock):
    each.add_span_processor(SimpleSpanProcessor(exporter))


@contextmanager
def traced_by(name: str) -> Iterator[trace.Tracer]:
    """A tracer of "ours", or of "stock": the SDK's provider over the API's own storage."""
    provider = ours if name == "ours" else stock
    exporter.clear()
    before = context_api._RUNTIME_CONTEXT
    if name == "stock":
        context_api._RUNTIME_CONTEXT = ContextVarsRuntimeContext()
    try:
        with use_provider(provider):
            yield provider.get_tracer("tests")
    finally:
        context_api._RUNTIME_CONTEXT = before


def counted() -> Counter[str]:
    """How many spans of each name have ended."""
    return Counter(span.name for span in exporter.get_finished_spans())


def one(name: str) -> sdk.ReadableSpan:
    """The only span called `name`."""
    (span,) = (span for span in exporter.get_finished_spans() if span.name == name)
    return span


def parents(name: str) -> set[str | None]:
    """The names of the parents of all spans called `name`."""
    spans = exporter.get_finished_spans()
    names = {span.context.span_id: span.name for span in spans if span.context}
    return {names[span.parent.span_id] if span.parent else None for span in spans if span.name == name}
