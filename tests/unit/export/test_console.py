"""The console exporter: one line a span, whatever is in it."""

from __future__ import annotations

import io
import json

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import StatusCode

from mapek_runtime.export.batch import BatchSpanProcessor
from mapek_runtime.export.console import ConsoleSpanExporter
from mapek_runtime.trace import TracerProvider

RESOURCE = Resource({"service.name": "test"})


async def written(name: str, **attributes: object) -> list[str]:
    out = io.StringIO()
    processor = BatchSpanProcessor(ConsoleSpanExporter(out))
    provider = TracerProvider(ALWAYS_ON, RESOURCE, shutdown_on_exit=False)
    provider.add_span_processor(processor)
    with provider.get_tracer("test").start_as_current_span("outer"):
        inner = provider.get_tracer("test").start_span(name, attributes=attributes)  # type: ignore[arg-type]
        inner.set_status(StatusCode.ERROR, "it\nbroke")
        inner.add_event("event")
        inner.end()
    await processor.ashutdown(5)
    return out.getvalue().splitlines()


async def test_a_span_is_one_line() -> None:
    inner, outer = await written("mesh.routing", hops=3, path=("a", "b"), raw=b"x")

    trace_id, span_id, parent_id, duration, name, status, *_ = inner.split(" ")
    assert (len(trace_id), len(span_id), name, status) == (32, 16, "mesh.routing", "ERROR")
    assert duration.endswith("ms")
    assert outer.split(" ")[:3] == [trace_id, parent_id, "-" * 16]
    assert json.loads(inner[inner.index("{") : inner.rindex("}") + 1]) == {
        "hops": 3,
        "path": ["a", "b"],
        "raw": "b'x'",
    }
    assert inner.endswith("events=1")


@pytest.mark.parametrize("name", ["two\nlines", "two words", "\x1b[31mred", ""])
async def test_a_name_cannot_pass_for_something_else(name: str) -> None:
    inner, _ = await written(name)

    assert json.dumps(name) in inner


def test_a_synchronous_call_is_refused_loudly() -> None:
    with pytest.raises(TypeError, match=r"mapek_runtime\.BatchSpanProcessor"):
        ConsoleSpanExporter().export(()).close()


async def test_the_standard_output_of_the_moment_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    processor = BatchSpanProcessor(ConsoleSpanExporter(formatter=lambda span: f"<{span.name}>"))
    provider = TracerProvider(ALWAYS_ON, RESOURCE, shutdown_on_exit=False)
    provider.add_span_processor(processor)
    provider.get_tracer("test").start_span("a").end()
    await processor.ashutdown(5)

    assert capsys.readouterr().out == "<a>\n"
