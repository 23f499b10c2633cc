"""Programs that set their meter provider early, late, or hand it over: each processor is observed once."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
from opentelemetry.metrics import get_meter_provider, set_meter_provider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from mapek_runtime import BatchSpanProcessor, TracerProvider

reader = InMemoryMetricReader()
meters = MeterProvider([reader])
processors = []

def use(count, **options):
    processor = BatchSpanProcessor(InMemorySpanExporter(), **options)
    processors.append(processor)
    provider = TracerProvider()
    provider.add_span_processor(processor)
    for _ in range(count):
        provider.get_tracer("t").start_span("work").end()
    processor.force_flush()

for step in "{order}":
    if step == "b":
        use(1)  # before a provider is set, or after
    elif step == "g":
        set_meter_provider(meters)
    else:
        use(1, meter_provider=meters)

found = {{}}
for scope in reader.get_metrics_data().resource_metrics[0].scope_metrics:
    for metric in scope.metrics:
        if metric.name == "otel.sdk.processor.span.processed":
            for point in metric.data.data_points:
                found[point.attributes["otel.component.name"]] = point.value
print(sorted(found.values()))
"""


@pytest.mark.parametrize("order", ["bg", "gb", "bgb", "egb", "bge"])
def test_a_program_is_observed_whenever_it_sets_its_provider(order: str) -> None:
    # In a process of its own: a global provider is set once.
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(order=order)], capture_output=True, text=True, check=False
    )

    assert done.stdout.strip() == str([1] * (order.count("b") + order.count("e"))), done.stderr
