"""A provider of ours with the SDK's own processor and exporter behind it."""

from __future__ import annotations

from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from mapek_runtime import TracerProvider

__all__ = ["Traced"]


class Traced:
    """A provider of ours with the SDK's own processor and exporter behind it."""

    def __init__(self, **options: object) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False, **options)  # type: ignore[arg-type]
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("tests", "1")

    @property
    def spans(self) -> tuple[sdk.ReadableSpan, ...]:
        return self.exporter.get_finished_spans()

    def one(self) -> sdk.ReadableSpan:
        (span,) = self.spans
        return span
