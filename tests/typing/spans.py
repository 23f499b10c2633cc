"""Checked by mypy, never run: the signature of a declared span is its schema.

Each `type: ignore` names the error that misuse must be; mypy fails when one of them is not needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, assert_type

from opentelemetry.context import Context
from opentelemetry.trace import SpanContext

from mapek_runtime import Key, NodeId, SpanGroup, traced
from mapek_runtime.trace import SpanScope

__all__ = ["correct_use", "late_values", "misuse"]

Hops = Annotated[int, Key("hops")]

mesh = SpanGroup("mesh")


@mesh.span
def ping(node_id: NodeId) -> None:
    """A declaration without arguments."""


@mesh.span("routing", constants={"layer": "ip"}, elapsed="duration_ms")
def route_calculation(source: str, destination: str, hops: Hops = 0) -> None:
    """A declaration with a name of its own."""


@mesh.span("wrong")  # type: ignore[arg-type]
def not_a_declaration(node_id: NodeId) -> int:
    """A declaration returns nothing."""
    return 1


@route_calculation("a", "b")
async def decorated(seconds: float) -> str:
    """A decorated function keeps its type."""
    return str(seconds)


@traced
def plain(number: int) -> str:
    """The same for `traced`."""
    return str(number)


@traced("a name", attributes={"key": "value"})
async def named(number: int) -> str:
    """The same with a name."""
    return str(number)


async def correct_use(parent: Context, link: SpanContext | None) -> None:
    """Everything that is allowed."""
    assert_type(ping("node-1"), SpanScope)
    with route_calculation("a", "b"):
        pass
    async with route_calculation("a", destination="b", hops=3) as span:
        span.set(hops=4)
    with ping(node_id="node-1").under(parent).linked(link):
        pass
    assert_type(await decorated(1.0), str)
    assert_type(plain(1), str)
    assert_type(await named(1), str)


def misuse() -> Iterator[object]:
    """Everything that is not."""
    yield ping()  # type: ignore[call-arg]
    yield ping(1)  # type: ignore[arg-type]
    yield ping("a", "b")  # type: ignore[call-arg]
    yield ping(node="a")  # type: ignore[call-arg]
    yield route_calculation("a")  # type: ignore[call-arg]
    yield route_calculation("a", "b", "three")  # type: ignore[arg-type]
    yield route_calculation("a", "b", hop=3)  # type: ignore[call-arg]
    yield ping("a").under("b")  # type: ignore[arg-type]
    yield ping("a").linked("b")  # type: ignore[arg-type]
    yield SpanGroup(1)  # type: ignore[arg-type]
    yield plain("one")  # type: ignore[arg-type]
    yield decorated("one")  # type: ignore[arg-type]
    yield traced(kind="internal")  # type: ignore[call-overload]


async def late_values() -> None:
    """The decorator does not hide that a coroutine must be awaited."""
    decorated(1.0)  # type: ignore[unused-coroutine]
