"""The ring: where an ended span waits for the batch task.

Appending never waits and never fails, from any thread: while there is room it rests on the atomicity
of `deque` and takes no lock. When the ring is full the oldest *ordinary* span is dropped and counted;
roots and errors go last, because they tell what is wrong now.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import StatusCode

__all__ = ["Ring", "RingView", "Tally"]

HELD = 512
"""Spans between two looks at who disarmed the ring: as many as make a batch unless told otherwise."""


class RingView(NamedTuple):
    """Where the spans that were ever put in are, at one instant."""

    waiting: int
    taken: int
    dropped: int

    @property
    def ended(self) -> int:
        """How many spans were ever put in."""
        return self.waiting + self.taken + self.dropped

    @property
    def removed(self) -> int:
        """How many have left the ring."""
        return self.taken + self.dropped


class Ring:
    """Holds at most `capacity` ended spans, oldest first.

    `on_due` is called from `append`, in the thread that appends, when the number of waiting spans
    reaches the mark set by `arm()`, once for each arming. While it is disarmed `on_held` is called
    instead, for every `HELD` spans and before one goes because the ring is full: whoever disarmed it
    may be gone.
    """

    __slots__ = (
        "_dropped",
        "_hold",
        "_kept",
        "_mark",
        "_push",
        "_queue",
        "_taken",
        "_wanted",
        "capacity",
        "lock",
        "on_due",
        "on_held",
    )

    def __init__(
        self, capacity: int, on_due: Callable[[], None], on_held: Callable[[], None] | None = None
    ) -> None:
        if capacity < 1:
            raise ValueError(f"the capacity of a ring is {capacity}; it must be at least 1")
        self.capacity = capacity
        self.on_due = on_due
        self.on_held = on_held or _nobody_cares
        self._wanted = 1
        self._hold = False
        self.clear()

    def clear(self) -> None:
        """Forget every span and count, as in the child of a fork."""
        self._queue: deque[Any] = deque()
        # Roots and errors that an overflow has spared: older than everything in the queue.
        self._kept: deque[Any] = deque()
        # Bound once: looking it up would be a fifth of what an append costs.
        self._push = self._queue.append
        # Spans only ever leave under it, so that nobody sees one that is between two counts. A span
        # may end inside the garbage collector or a signal handler, in the thread that holds it. The
        # account takes the same one: with two, such a span could wait for a thread that waits for us.
        self.lock = threading.RLock()
        self._taken = 0
        self._dropped = 0
        self._set_mark()

    def append(self, span: ReadableSpan) -> None:
        """Put an ended span in."""
        self._push(span)
        if len(self._queue) >= self._mark:
            self._reached()

    def arm(self, waiting: int) -> None:
        """Ask for one call of `on_due` when `waiting` spans are there; 0 asks for one at every append."""
        self._wanted = waiting
        self._hold = False
        self._set_mark()

    def disarm(self) -> None:
        """Ask for no call until armed again."""
        self._hold = True
        self._set_mark()

    def drain(self, most: int) -> list[Any]:
        """Take up to `most` spans, oldest first."""
        taken: list[Any] = []
        with self.lock:
            for source in (self._kept, self._queue):
                pop = source.popleft
                try:
                    for _ in range(min(most - len(taken), len(source))):
                        taken.append(pop())  # noqa: PERF401 - what was popped before an IndexError stays
                except IndexError:  # pragma: no cover - a span that ended inside the collector overflowed it
                    continue
            self._taken += len(taken)
        self._set_mark()
        return taken

    def view(self) -> RingView:
        """Where everything is at this instant; exact, whatever other threads do."""
        with self.lock:
            return RingView(len(self._queue) + len(self._kept), self._taken, self._dropped)

    def __len__(self) -> int:
        """How many spans wait."""
        return len(self._queue) + len(self._kept)

    @property
    def ended(self) -> int:
        """How many spans were ever put in."""
        return self.view().ended

    @property
    def removed(self) -> int:
        """How many spans have left the ring, taken or dropped."""
        with self.lock:
            return self._taken + self._dropped

    @property
    def taken(self) -> int:
        """How many spans the batch task has taken."""
        return self._taken

    @property
    def dropped(self) -> int:
        """How many went because the ring was full."""
        return self._dropped

    def _set_mark(self) -> None:
        # Under the lock, or a thread that was held up here could undo what another has armed since.
        with self.lock:
            # One comparison on the hot path serves both purposes: the wake-up and the overflow.
            room = self.capacity - len(self._kept)
            self._mark = min(room, len(self._queue) + HELD) if self._hold else min(room + 1, self._wanted)

    def _reached(self) -> None:
        if self._hold:
            self.on_held()
        if len(self._queue) + len(self._kept) > self.capacity:
            with self.lock:
                while len(self._queue) + len(self._kept) > self.capacity:
                    self._drop_one()
        if not self._hold and len(self._queue) >= self._wanted:
            if self._wanted:
                self.disarm()
            self.on_due()
        else:
            self._set_mark()

    def _drop_one(self) -> None:
        for _ in range(len(self._queue)):
            span = self._queue.popleft()
            if not _goes_last(span):
                break
            self._kept.append(span)
        else:
            self._kept.popleft()
        self._dropped += 1


class Tally:
    """A counter that several threads raise without a lock."""

    __slots__ = ("_count", "add")

    def __init__(self) -> None:
        self._count = itertools.count()
        self.add: Callable[[], object] = self._count.__next__

    def read(self) -> int:
        """How often `add` was called."""
        # What it prints, `count(3)`, is the only look at the next number that does not take it. A lock
        # around taking one would not do: a signal handler may read in the thread that holds it.
        return int(repr(self._count)[len("count(") : -1])


def _nobody_cares() -> None:
    """The ring is disarmed, and nobody wants to hear of it."""


def _goes_last(span: ReadableSpan) -> bool:
    return span.parent is None or span.status.status_code is StatusCode.ERROR
