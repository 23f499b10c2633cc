"""A provider of ours in which cycles decide, with trace ids that the test chooses the luck of."""

from __future__ import annotations

from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import DEFAULT_ON, Sampler
from opentelemetry.trace import set_span_in_context

from mapek_runtime import TracerProvider
from mapek_runtime.trace.sampling import CycleSampler

__all__ = ["Held", "Luck"]


class Luck(RandomIdGenerator):
    """Random ids; while `lucky` is set, traces begin with a randomness that any ratio keeps, or none does."""

    lucky: bool | None = None

    def generate_trace_id(self) -> int:
        drawn = super().generate_trace_id()
        if self.lucky is None:
            return drawn
        return drawn | (1 << 56) - 1 if self.lucky else drawn >> 56 << 56 | 1 << 100


class Held:
    """Spans of cycles, held by the sampler under test, in front of the SDK's own processor and exporter."""

    def __init__(self, head: Sampler = DEFAULT_ON, *, wrap: Any = None, **options: Any) -> None:
        self.luck = Luck()
        self.luck.lucky = False
        self.now = 1_000
        self.sampler = CycleSampler(head, **options)
        self.holds = self.sampler.holds
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(
            wrap(self.sampler) if wrap else self.sampler,
            Resource({"service.name": "test"}),
            shutdown_on_exit=False,
            id_generator=self.luck,
            clock=lambda: self.now,
        )
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("tests")

    def root(self, name: str = "mape_k.cycle", **attributes: Any) -> Any:
        return self.tracer.start_span(name, Context(), attributes=attributes)

    def child(self, parent: Any, name: str = "work", **attributes: Any) -> Any:
        return self.tracer.start_span(name, set_span_in_context(parent, Context()), attributes=attributes)

    def cycle(self, *, lasting: int = 100, **found: Any) -> Any:
        """A cycle with one child, whose root says in its attributes what was found."""
        root = self.root(**found)
        self.child(root).end()
        self.now += lasting
        root.end()
        return root

    @property
    def spans(self) -> tuple[sdk.ReadableSpan, ...]:
        return self.exporter.get_finished_spans()

    @property
    def names(self) -> list[str]:
        return [span.name for span in self.spans]
