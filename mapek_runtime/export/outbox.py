"""The outbox: spans on their way from the ring to a finished request.

Everything here is synchronous and bounded in time, so that the batch task can do a slice of it in
each turn of the loop. Knows encoding; knows nothing of exporters.
"""

from __future__ import annotations

import time
from typing import Any

from mapek_runtime.trace.ring import Ring

from .account import Account, Fate
from .encode.request import RequestBuilder
from .notice import Notices

__all__ = ["Batch", "Outbox"]

CHUNK = 64
"""Spans between two looks at the clock: about 0.25 ms."""

MAX_REQUEST_BYTES = 4_000_000
"""A request is closed here: 4 MiB is what gRPC servers accept unless told otherwise."""


class Batch:
    """Spans that are sent together: as OTLP bytes, as spans, or both, as the exporters need."""

    __slots__ = ("count", "fate", "payload", "spans", "start")

    def __init__(self, start: int, count: int, payload: bytes, spans: tuple[Any, ...]) -> None:
        self.start = start
        """How many spans had left the ring before the first of these."""
        self.count = count
        self.payload = payload
        self.spans = spans
        self.fate = Fate(count)

    def part(self, *, takes_bytes: bool) -> Batch:
        """What one exporter needs of it, with the same fate.

        So that the spans, some ten times as large, need not wait with the bytes for a slow collector.
        """
        if not (self.payload and self.spans):
            return self
        part = Batch(
            self.start,
            self.count,
            self.payload if takes_bytes else b"",
            () if takes_bytes else self.spans,
        )
        part.fate = self.fate
        return part


class Outbox:
    """Takes spans from the ring and makes batches of them."""

    def __init__(self, ring: Ring, account: Account, notices: Notices, *, encode: bool, keep: bool) -> None:
        self.ring = ring
        self.account = account
        self._notices = notices
        self._encode = encode
        self._keep = keep
        self.clear()

    def clear(self) -> None:
        """Forget everything, as in the child of a fork."""
        self._told = 0
        self._left: list[Any] = []
        self._begin()

    def _begin(self) -> None:
        self._builder = RequestBuilder(self._unencodable)
        self._spans: list[Any] = []
        self._bad: list[Any] = []
        self._start = 0
        self.open = 0
        """How many spans the batch in the making has."""

    @property
    def oldest(self) -> int:
        """How many spans had left the ring before the oldest one that is in no batch yet."""
        return self._start if self.open else self.ring.removed - len(self._left)

    @property
    def waiting(self) -> int:
        """How many spans are in the ring or in the batch in the making."""
        return len(self.ring) + self.open + len(self._left)

    def is_full(self, most: int) -> bool:
        """Whether the batch in the making has `most` spans, or as many bytes as a request may have."""
        full = self._left and self.open
        return bool(full) or self.open >= most or self._builder.size_bytes >= MAX_REQUEST_BYTES

    def fill(self, most: int, seconds: float, obliged: int = 0) -> int:
        """Add spans from the ring until the batch is full, the ring empty or the time over.

        The time does not count before `obliged` spans are done. Gives the number of spans taken.
        """
        end = time.perf_counter() + seconds
        done = 0
        while not self.is_full(most):
            start = self.oldest
            spans = self._left or self.account.take(min(CHUNK, most - self.open))
            if not spans:
                break
            self._start = start
            taken = self._add(spans)
            done += taken
            if done >= obliged and time.perf_counter() >= end:
                break
        return done

    def close(self) -> Batch | None:
        """Finish the batch in the making; None when it has no span."""
        if not self.open:
            return None
        payload = self._builder.build() if self._encode else b""
        batch = Batch(self._start, self.open, payload, tuple(self._spans))
        self._begin()
        return batch

    def abandon(self, reason: str) -> int:
        """Give up everything that is in no batch yet; gives the number of spans."""
        count = self.open + len(self._left)
        self.account.drop(reason, count)
        self._left = []
        self._begin()
        return count + self.account.drop_ring(reason)

    def tell_overflow(self) -> None:
        """Log what the ring has dropped since the last time: one line in a while, never one a span."""
        dropped = self.ring.dropped
        if dropped > self._told:
            count, self._told = dropped - self._told, dropped
            self._notices.warn(
                "queue_full", "the queue of %d spans is full; the oldest go", self.ring.capacity, count=count
            )

    def _add(self, spans: list[Any]) -> int:
        """Add spans to the batch in the making; gives how many fitted, the others wait for the next."""
        self.open += len(spans)
        self._left = list(self._builder.add(spans, MAX_REQUEST_BYTES)) if self._encode else []
        if self._left:
            self.open -= len(self._left)
            spans = spans[: -len(self._left)]
        if self._keep:
            self._spans += [span for span in spans if span not in self._bad] if self._bad else spans
        self._bad.clear()
        return len(spans)

    def _unencodable(self, span: Any, error: Exception) -> None:
        self._bad.append(span)
        self.open -= 1
        self.account.drop("encode", 1)
        self._notices.warn("encode", "%s; it is dropped", error)
