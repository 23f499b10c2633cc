"""Is there one order of all operations that explains every answer, and keeps to real time?

The search of Wing and Gong (1993) with the memory of Lowe (2017), as in Porcupine: operations that might
be next are tried in turn, and a set of operations that once led to a state is not tried again from there.
A history of several objects is linearizable exactly when that of each object is (Herlihy and Wing 1990,
theorem 1), so it is cut by object beforehand. An operation without an answer may have happened at any
time since it was asked for, or never.

What ends by itself after some time, as a claim does, is known to the model: each step has a time before
which it cannot have happened, and the search keeps the earliest time at which an order can have come so
far. Pure: knows no engine and no clock.
"""

from __future__ import annotations

import textwrap
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import Generic, Protocol, TypeVar

from tests.raft_history import Operation

__all__ = ["Model", "Order", "Undecided", "linearize", "told"]

S = TypeVar("S", bound=Hashable)

_MOST = 400_000


class Undecided(AssertionError):
    """The search was given up: the history may be right or wrong. Let it be shorter."""


class Model(Protocol[S]):
    """What one object may do."""

    @property
    def initial(self) -> S:
        """Its state before the first operation."""

    def step(self, state: S, operation: Operation) -> Iterator[tuple[S, float]]:
        """Each state that the operation may lead to with the answer it got, and the time before which it
        cannot; nothing where that answer is impossible in this state. Of an operation without an answer
        only what changes the state: the rest is as if it had never happened."""

    def may_need(self, state: S, operation: Operation, unanswered: Operation) -> bool:
        """Whether in this state the answer of an operation may rest on one without an answer, which then
        can as well have happened immediately before it: it is tried nowhere else."""

    def place(self, operation: Operation) -> int | None:
        """What its answer says of its place: those of a lower one come before it. None where it says
        nothing."""

    def show(self, state: S) -> str:
        """The state in a few words."""

    def answer(self, operation: Operation) -> str:
        """The answer in a few words."""


@dataclass(frozen=True, slots=True)
class Order(Generic[S]):
    """The order that explains the most answers, and the state that it leads to.

    `stuck` are those of which one had to be next there, and none can be; empty where all is explained.
    """

    operations: tuple[Operation, ...]
    state: S
    stuck: tuple[Operation, ...]


@dataclass(slots=True)
class _Step(Generic[S]):
    """A place of the search. What is done stands in it as bits: with an answer, and without."""

    done: int
    opened: int
    state: S
    time: float
    by: Operation | None = None
    """What led here."""
    towards: tuple[int, Operation] | None = None
    """What has to be next: `by` was of use for it alone."""

    @property
    def place(self) -> Hashable:
        return self.done, self.opened, self.state, 0 if self.towards is None else self.towards[0]


class _Search(Generic[S]):
    def __init__(self, model: Model[S], history: Sequence[Operation]) -> None:
        self.model = model
        by_time = sorted(history, key=lambda operation: operation.invoked)
        self.answered = [(o, o.invoked, o.answered) for o in by_time if o.answered is not None]
        self.unanswered = [
            (1 << place, o) for place, o in enumerate(o for o in by_time if o.answered is None)
        ]
        self.whole = (1 << len(self.answered)) - 1

    def next(self, done: int) -> tuple[list[tuple[int, Operation]], float]:
        """Those with an answer that may be next, with their bits, and the time by which one must be.

        None may be next that was asked for after another one that is not done was answered.
        """
        least = inf
        found = []
        index = (~done & (done + 1)).bit_length() - 1
        for operation, invoked, answered in self.answered[index:]:
            if invoked > least:
                break
            bit = 1 << index
            if not done & bit:
                found.append((bit, operation))
                least = min(least, answered)
            index += 1
        return [each for each in found if each[1].invoked <= least], least

    def following(self, step: _Step[S]) -> Iterator[_Step[S]]:
        """What may come after it."""
        candidates, least = self.next(step.done)
        if step.towards is not None:
            candidates = [step.towards]
        else:
            # What changes nothing may as well be next, wherever else it might be.
            for bit, operation in candidates:
                for state, time in self._reached(step, operation, least):
                    if state == step.state:
                        yield _Step(step.done | bit, step.opened, state, time, operation)
                        return
            candidates = self._lowest(candidates)
        for bit, operation in candidates:
            for state, time in self._reached(step, operation, least):
                yield _Step(step.done | bit, step.opened, state, time, operation)
        for bit, operation in candidates:
            for flag, unanswered in self.unanswered:
                if unanswered.invoked > least:
                    break
                if not step.opened & flag and self.model.may_need(step.state, operation, unanswered):
                    for state, time in self._reached(step, unanswered, least):
                        opened = step.opened | flag
                        yield _Step(step.done, opened, state, time, unanswered, (bit, operation))

    def _lowest(self, candidates: list[tuple[int, Operation]]) -> list[tuple[int, Operation]]:
        """Those that no other one of them has to come before."""
        places = [self.model.place(operation) for _, operation in candidates]
        lowest = min((place for place in places if place is not None), default=None)
        return [each for each, place in zip(candidates, places, strict=True) if place in {None, lowest}]

    def _reached(self, step: _Step[S], operation: Operation, least: float) -> Iterator[tuple[S, float]]:
        for state, not_before in self.model.step(step.state, operation):
            time = max(step.time, operation.invoked, not_before)
            if time <= least:
                yield state, time


def linearize(model: Model[S], history: Sequence[Operation], *, most: int = _MOST) -> Order[S]:
    """An order of the history of one object, or the longest one found where there is none for all of it.

    Raises `Undecided` after `most` places of the search.
    """
    search = _Search(model, history)
    start = _Step(0, 0, model.initial, -inf)
    earliest: dict[Hashable, float] = {}
    way = [(start, search.following(start))]
    best, longest = start, [start]
    while way:
        step, untried = way[-1]
        if step.done.bit_count() > best.done.bit_count():
            best, longest = step, [each for each, _ in way]
        if step.done == search.whole:
            break
        for then in untried:
            if then.time < earliest.get(then.place, inf):
                earliest[then.place] = then.time
                way.append((then, search.following(then)))
                break
        else:
            way.pop()
        if len(earliest) > most:
            raise Undecided(
                f"given up after {most} places of the search: {len(history)} operations on "
                f"{history[0].key!r}, {len(search.unanswered)} of them without an answer"
            )
    return Order(
        operations=tuple(step.by for step in longest if step.by is not None),
        state=best.state,
        stuck=tuple(operation for _, operation in search.next(best.done)[0]),
    )


def told(model: Model[S], history: Sequence[Operation], *, shown: int = 12) -> str:
    """Why there is no order: the shortest beginning of the history that has none. Empty where there is one.

    A history that can be explained can be explained up to any moment; so the first moment that cannot is
    searched for, and what was answered later counts as not answered yet.
    """
    order = linearize(model, history)
    if not order.stuck:
        return ""
    moments = sorted(operation.answered for operation in history if operation.answered is not None)
    least, most = 0, len(moments) - 1
    while least < most:
        middle = (least + most) // 2
        try:
            shorter = linearize(model, _until(history, moments[middle]))
        except Undecided:
            break
        if shorter.stuck:
            most, order = middle, shorter
        else:
            least = middle + 1
    begin = min(operation.invoked for operation in history)
    explained = [_line(model, operation, begin) for operation in order.operations]
    omitted = len(explained) - shown
    if omitted > 0:
        explained[:omitted] = [f"    ({omitted} before these)"]
    return "\n".join(
        [
            f"{history[0].key!r}: no order explains all answers up to {moments[most] - begin:.4f} s",
            "  this order goes furthest:",
            *explained,
            f"  then: {model.show(order.state)}",
            "  and one of these is next, but cannot be:",
            *(_line(model, operation, begin) for operation in order.stuck),
        ]
    )


def _until(history: Sequence[Operation], moment: float) -> list[Operation]:
    """What was known at that moment."""
    return [
        o if o.answered is not None and o.answered <= moment else _unanswered(o)
        for o in history
        if o.invoked <= moment
    ]


def _unanswered(operation: Operation) -> Operation:
    return Operation(
        process=operation.process,
        kind=operation.kind,
        key=operation.key,
        argument=operation.argument,
        result=None,
        invoked=operation.invoked,
        answered=None,
    )


def _line(model: Model[S], operation: Operation, begin: float) -> str:
    end = "   never" if operation.answered is None else f"{operation.answered - begin:8.4f}"
    return (
        f"    {operation.invoked - begin:8.4f} -{end}  {operation.process}: "
        f"{operation.kind} {textwrap.shorten(repr(operation.argument), 60)} -> {model.answer(operation)}"
    )
