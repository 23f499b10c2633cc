"""`traced` takes every kind of function, keeps its face, and refuses what is none."""

from __future__ import annotations

import asyncio
import functools
import inspect
import types
from collections.abc import AsyncIterator, Generator, Iterator
from typing import Any

import pytest
from opentelemetry import trace

from mapek_runtime import traced
from tests.unit.trace.both import counted, ours, parents

pytestmark = [pytest.mark.usefixtures("tracer"), pytest.mark.every_loop]


def test_a_decorated_generator_keeps_its_face() -> None:
    def plain(a: int, *, b: str = "x") -> Iterator[int]:
        "Counts."
        yield a

    async def async_plain(a: int) -> AsyncIterator[int]:
        yield a

    wrapped, async_wrapped = traced(plain), traced(async_plain)

    assert inspect.isgeneratorfunction(wrapped)
    assert inspect.isasyncgenfunction(async_wrapped)
    assert inspect.signature(wrapped) == inspect.signature(plain)
    assert wrapped.__wrapped__ is plain  # type: ignore[attr-defined]
    assert (wrapped.__name__, wrapped.__doc__) == ("plain", "Counts.")


async def test_a_generator_based_coroutine_stays_one(tracer: trace.Tracer) -> None:
    @traced("old")
    @types.coroutine
    def old() -> Generator[Any, Any, int]:
        yield from asyncio.sleep(0).__await__()
        with tracer.start_as_current_span("inside"):
            return 1

    assert await old() == 1
    assert parents("inside") == {"old"}


class Methods:
    @traced
    def plain(self) -> str:
        return type(self).__name__

    @traced
    async def coroutine(self) -> str:
        return type(self).__name__

    @traced
    async def agenerator(self) -> AsyncIterator[str]:
        yield type(self).__name__

    @traced
    @staticmethod
    def static_below() -> str:
        return "static"

    @staticmethod
    @traced
    async def static_above() -> str:
        return "static"

    @traced
    @classmethod
    def class_below(cls) -> Iterator[str]:
        yield cls.__name__

    @classmethod
    @traced
    def class_above(cls) -> str:
        return cls.__name__


async def test_methods_of_every_kind_are_traced_under_their_own_name() -> None:
    methods = Methods()

    assert methods.plain() == "Methods"
    assert await methods.coroutine() == "Methods"
    assert [name async for name in methods.agenerator()] == ["Methods"]
    assert methods.static_below() == Methods.static_below() == "static"
    assert await Methods.static_above() == "static"
    assert list(Methods.class_below()) == ["Methods"]
    assert methods.class_above() == "Methods"

    assert counted() == {
        "Methods.plain": 1,
        "Methods.coroutine": 1,
        "Methods.agenerator": 1,
        "Methods.static_below": 2,
        "Methods.static_above": 1,
        "Methods.class_below": 1,
        "Methods.class_above": 1,
    }


async def add(a: int, b: int) -> int:
    await asyncio.sleep(0)
    return a + b


def count(first: int, last: int) -> Iterator[int]:
    yield from range(first, last)


class Adder:
    """Adds."""

    async def __call__(self, a: int, b: int) -> int:
        await asyncio.sleep(0)
        return a + b


class Doubler:
    def __call__(self, a: int) -> int:
        return 2 * a


async def test_partials_and_callable_objects_are_traced_as_what_they_are() -> None:
    partial, counter = traced(functools.partial(add, 1)), traced(functools.partial(count, 1))
    adder, doubler = traced(Adder()), traced(Doubler())

    assert inspect.iscoroutinefunction(partial)
    assert inspect.iscoroutinefunction(adder)
    assert inspect.isgeneratorfunction(counter)
    assert list(inspect.signature(partial).parameters) == ["b"]
    assert await partial(2) == 3
    assert list(counter(3)) == [1, 2]
    assert await adder(1, 2) == 3
    assert doubler(2) == 4
    assert counted() == {"add": 1, "count": 1, "Adder.__call__": 1, "Doubler.__call__": 1}


def test_a_partial_method_is_traced() -> None:
    class Counter:
        def add(self, a: int, b: int) -> int:
            return a + b

        add_one: Any = traced("add_one")(functools.partialmethod(add, 1))  # type: ignore[type-var]

    assert Counter().add_one(2) == 3
    assert counted() == {"add_one": 1}


def test_what_is_no_function_is_refused_with_the_reason() -> None:
    refuse: Any = traced
    coroutine = add(1, 2)

    with pytest.raises(TypeError, match="'Doubler' is a class: decorate its methods"):
        refuse(Doubler)
    with pytest.raises(TypeError, match="'add' was called already"):
        refuse(coroutine)
    with pytest.raises(TypeError, match="'count' was called already"):
        refuse("name")(count(1, 2))
    with pytest.raises(TypeError, match="decorate the function under it"):
        refuse(property(lambda self: self))
    with pytest.raises(TypeError, match="3 is no function"):
        refuse(3)
    with pytest.raises(TypeError, match="'Doubler' is a class"):
        ours.get_tracer("tests").start_as_current_span("x")(Doubler)
    coroutine.close()
