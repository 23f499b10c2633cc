"""The memory exporter keeps the newest spans."""

from __future__ import annotations

import asyncio

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan

from mapek_runtime.export.memory import MemorySpanExporter

SPANS = [ReadableSpan(str(number), resource=Resource({})) for number in range(5)]


async def test_it_keeps_the_newest() -> None:
    memory = MemorySpanExporter(capacity=3)

    await memory.export(SPANS[:2])
    await memory.export(SPANS[2:])

    assert [span.name for span in memory.finished_spans] == ["2", "3", "4"]
    memory.clear()
    assert memory.finished_spans == ()


async def test_paused_it_waits_and_then_goes_on() -> None:
    memory = MemorySpanExporter()
    memory.pause()
    export = asyncio.create_task(memory.export(SPANS))
    await asyncio.sleep(0)
    assert memory.finished_spans == ()

    memory.resume()
    await export

    assert len(memory.finished_spans) == 5


def test_it_needs_room_and_a_loop() -> None:
    with pytest.raises(ValueError, match="capacity is 0"):
        MemorySpanExporter(0)
    with pytest.raises(TypeError, match="asyncio exporter"):
        MemorySpanExporter().export(SPANS).close()
