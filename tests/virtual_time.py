"""A loop whose time jumps to the next timer as soon as nothing can run, so that a story takes no time.

Unlike the autojump clock it has no real time at all: work that would be done in a thread is done at once
on the loop, and its answer comes after a while of the loop's time. So what happens depends on nothing but
the seeds, and a story that fails can be told again.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from random import Random
from typing import Any, TypeVar, TypeVarTuple, Unpack
from unittest import mock
from zlib import crc32

from pysyncobj import syncobj
from pysyncobj.node import Node

__all__ = ["VirtualLoop", "in_virtual_time"]

_MOST_TURNS = 20_000
"""Turns of the loop in which no time passes."""
T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class VirtualLoop(asyncio.SelectorEventLoop):
    """`slowest`: seconds that work in a thread takes at most."""

    def __init__(self, rng: Random, *, slowest: float) -> None:
        self.now = 1_000.0
        self.slowest = slowest
        self._rng = rng
        super().__init__(_Jumps(self))

    def time(self) -> float:
        """Its own time."""
        return self.now

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """The work is done after a while, and nothing else happens while it is done."""
        done: asyncio.Future[T] = self.create_future()

        def work() -> None:
            if done.cancelled():
                return
            try:
                done.set_result(func(*args))
            except Exception as error:  # noqa: BLE001 - of whoever waits for it
                done.set_exception(error)

        self.call_later(self._rng.random() * self.slowest, work)
        return done


class _Jumps(selectors.SelectSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._virtual = loop
        self._turns = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Nothing real is waited for."""
        if timeout is None:
            raise RuntimeError("all tasks wait for something that never comes")
        self._turns = 0 if timeout > 0 else self._turns + 1
        if self._turns > _MOST_TURNS:
            self._turns = 0
            raise RuntimeError(f"time stands still at {self._virtual.now:g} s: there is always more to do")
        self._virtual.now += max(0.0, timeout)
        return []


def in_virtual_time(
    story: Callable[[], Coroutine[Any, Any, None]], seed: int, *, slowest: float = 0.004
) -> None:
    """Tell a story on such a loop, on whose time PySyncObj's clock stands as well.

    PySyncObj goes through sets of nodes, whose order is that of their hashes: these are the same each time.
    """
    loop = VirtualLoop(Random(seed), slowest=slowest)
    clock = mock.patch.object(syncobj, "monotonicTime", loop.time)
    order = mock.patch.object(Node, "__hash__", lambda node: crc32(node.id.encode()))
    with clock, order, asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(story())
