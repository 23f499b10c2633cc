"""Exporters at the edge, and a tracer in front of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from opentelemetry import trace as trace_api
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from mapek_runtime.trace import TracerProvider

__all__ = ["RESOURCE", "Stuck", "Wire", "end_spans", "tracer_for", "turns"]

RESOURCE = Resource({"service.name": "test"})


class Wire:
    """A byte exporter at the edge: keeps what it is given, and answers as it is told."""

    def __init__(self, answers: Sequence[Exception | None] = ()) -> None:
        self.requests: list[tuple[bytes, int]] = []
        self.answers = list(answers)
        self.at_once = 0
        self.most_at_once = 0
        self.closed = False

    async def send(self, payload: bytes, count: int) -> None:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await turns(5)
            self.requests.append((payload, count))
            answer = self.answers.pop(0) if self.answers else None
            if answer is not None:
                raise answer
        finally:
            self.at_once -= 1

    async def aclose(self) -> None:
        self.closed = True


class Stuck:
    """A byte exporter whose collector never answers."""

    def __init__(self) -> None:
        self.cancelled = 0

    async def send(self, payload: bytes, count: int) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def aclose(self) -> None:
        """Nothing is open."""


def tracer_for(processor: SpanProcessor, *, stock: bool = False) -> trace_api.Tracer:
    cls = sdk.TracerProvider if stock else TracerProvider
    provider = cls(ALWAYS_ON, RESOURCE, shutdown_on_exit=False)
    provider.add_span_processor(processor)
    return provider.get_tracer("test")


def end_spans(tracer: trace_api.Tracer, count: int) -> list[Any]:
    spans = [tracer.start_span(f"span-{number}") for number in range(count)]
    for span in spans:
        span.end()
    return spans


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)
