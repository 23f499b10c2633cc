"""The ways to make a span: a block, a block in a coroutine, start and end, decorators.

Four attributes (str, int, float, bool) a span, nested two deep, the dictionary made in the loop. Each
way gives a function that makes `SPANS` spans and returns nanoseconds of CPU time a span. Knows the
OpenTelemetry API and no tracer, so that a process without ours can use it too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from opentelemetry.trace import Tracer

from .measure import clock

__all__ = ["ATTRIBUTES", "SPANS", "Run", "async_block", "block", "calls", "decorated", "start_and_end"]

SPANS = 4000
ATTRIBUTES: dict[str, Any] = {"name": "x", "number": 1, "share": 0.5, "good": True}

Run = Callable[[], float]


def block(tracer: Tracer) -> Run:
    """`with tracer.start_as_current_span(...)`."""

    def run() -> float:
        began = clock()
        for number in range(SPANS // 2):
            attributes: dict[str, Any] = {"name": "x", "number": number, "share": 0.5, "good": True}
            with (
                tracer.start_as_current_span("outer", attributes=attributes),
                tracer.start_as_current_span("inner", attributes=attributes),
            ):
                pass
        return (clock() - began) / SPANS

    return run


def async_block(tracer: Tracer, *, plain_with: bool) -> Run:
    """The same in a coroutine: `async with`, or `plain_with` because the stock SDK has no other."""

    async def with_blocks() -> float:
        began = clock()
        for number in range(SPANS // 2):
            attributes: dict[str, Any] = {"name": "x", "number": number, "share": 0.5, "good": True}
            with (
                tracer.start_as_current_span("outer", attributes=attributes),
                tracer.start_as_current_span("inner", attributes=attributes),
            ):
                pass
        return (clock() - began) / SPANS

    async def async_with_blocks() -> float:
        start: Any = tracer.start_as_current_span
        began = clock()
        for number in range(SPANS // 2):
            attributes: dict[str, Any] = {"name": "x", "number": number, "share": 0.5, "good": True}
            async with start("outer", attributes=attributes), start("inner", attributes=attributes):
                pass
        return (clock() - began) / SPANS

    return lambda: asyncio.run(with_blocks() if plain_with else async_with_blocks())


def start_and_end(tracer: Tracer) -> Run:
    """`tracer.start_span(...)` and `end()`, not nested: such a span is never current."""

    def run() -> float:
        began = clock()
        for number in range(SPANS):
            attributes: dict[str, Any] = {"name": "x", "number": number, "share": 0.5, "good": True}
            tracer.start_span("span", attributes=attributes).end()
        return (clock() - began) / SPANS

    return run


def decorated(decorate: Callable[[str], Callable[[Any], Any]]) -> Run:
    """A decorated function that calls another; `decorate` takes a name and gives the decorator."""

    @decorate("outer")
    def outer() -> None:
        inner()

    @decorate("inner")
    def inner() -> None:
        pass

    return calls(outer)


def calls(outer: Callable[[], object]) -> Run:
    """Calls of a function that makes two spans."""

    def run() -> float:
        began = clock()
        for _ in range(SPANS // 2):
            outer()
        return (clock() - began) / SPANS

    return run
