"""The law: no span is lost without being counted.

```
ended + recovered = exported + dropped{reason} + held + queued + in flight + spooled
```

It holds at every instant, and each span is in one state. `Account` is where spans change their
state after they left the ring; it knows numbers only. A span that ended below a cycle is held until
the cycle is decided, and then goes to the ring or is `sampled_out`; the sampler's holds count these.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from mapek_runtime.trace.ring import Ring
from mapek_runtime.trace.sampling.hold import Holds

__all__ = ["Account", "Outcome", "SinkAccount", "SinkStatistics", "Statistics"]


class Outcome(NamedTuple):
    """What became of one batch at one exporter."""

    exported: int
    dropped: int = 0
    reason: str = ""


class SinkStatistics(NamedTuple):
    """What one exporter was given: `accepted = exported + dropped{reason} + in_flight`."""

    accepted: int
    exported: int
    dropped: Mapping[str, int]
    in_flight: int


class Statistics(NamedTuple):
    """Every term of the law. A span counts as exported when at least one exporter has taken it."""

    ended: int
    recovered: int
    exported: int
    dropped: Mapping[str, int]
    held: int
    queued: int
    in_flight: int
    spooled: int
    sinks: Mapping[str, SinkStatistics]

    @property
    def balanced(self) -> bool:
        """Whether the law holds."""
        settled = self.exported + sum(self.dropped.values())
        waiting = self.held + self.queued + self.in_flight + self.spooled
        return self.ended + self.recovered == settled + waiting


class SinkAccount:
    """The account of one exporter."""

    def __init__(self) -> None:
        self.exported = 0
        self.in_flight = 0
        self.dropped: dict[str, int] = {}

    def settle(self, count: int, outcome: Outcome) -> None:
        """A batch of `count` spans has come to its end here."""
        self.in_flight -= count
        self.exported += outcome.exported
        if outcome.dropped:
            self.dropped[outcome.reason] = self.dropped.get(outcome.reason, 0) + outcome.dropped

    def statistics(self) -> SinkStatistics:
        """The account now."""
        accepted = self.exported + self.in_flight + sum(self.dropped.values())
        return SinkStatistics(accepted, self.exported, MappingProxyType(dict(self.dropped)), self.in_flight)


class Account:
    """The account of a processor: what has left the ring, by state.

    A change is two or three additions under a lock that is taken once a batch or slice, so that a
    reader in another thread never sees half of it. `holds` are those of the sampler in front.
    """

    def __init__(self, ring: Ring, holds: Holds | None = None) -> None:
        self._ring = ring
        self._holds = holds
        self._lock = threading.Lock()
        self.clear()

    def clear(self) -> None:
        """Forget every count, as in the child of a fork."""
        self.exported = 0
        self.waiting = 0
        self.in_flight = 0
        self.refused = 0
        self.dropped: dict[str, int] = {}

    def refuse(self) -> None:
        """A span ended after the shutdown."""
        with self._lock:
            self.refused += 1
            self._drop("already_shutdown", 1)

    def take(self, most: int) -> list[Any]:
        """Move up to `most` spans from the ring to those that wait to be sent."""
        with self._lock:
            spans = self._ring.drain(most)
            self.waiting += len(spans)
        return spans

    def begin(self, count: int) -> None:
        """`count` waiting spans are handed to the exporters."""
        with self._lock:
            self.waiting -= count
            self.in_flight += count

    def put_back(self, count: int) -> None:
        """`count` spans were not sent and wait again."""
        with self._lock:
            self.in_flight -= count
            self.waiting += count

    def settle(self, outcome: Outcome) -> None:
        """A batch in flight has come to its end."""
        with self._lock:
            self.in_flight -= outcome.exported + outcome.dropped
            self.exported += outcome.exported
            self._drop(outcome.reason, outcome.dropped)

    def drop(self, reason: str, count: int) -> None:
        """`count` waiting spans are given up."""
        with self._lock:
            self.waiting -= count
            self._drop(reason, count)

    def drop_ring(self, reason: str) -> int:
        """Give up every span that is still in the ring."""
        with self._lock:
            count = len(self._ring.drain(self._ring.capacity + 1))
            self._drop(reason, count)
        return count

    def statistics(self, sinks: Mapping[str, SinkAccount]) -> Statistics:
        """Every term of the law at this instant."""
        with self._lock:
            ended, ring = self._look_at_ring()
            dropped = dict(self.dropped)
            if ring.dropped:
                dropped["queue_full"] = dropped.get("queue_full", 0) + ring.dropped
            held = sampled_out = 0
            if self._holds is not None:
                # What another thread moves from a hold to the ring just now is on neither side.
                held, sampled_out = self._holds.held, self._holds.sampled_out
            if sampled_out:
                dropped["sampled_out"] = sampled_out
            return Statistics(
                ended=ended + self.refused + held + sampled_out,
                recovered=0,
                exported=self.exported,
                dropped=MappingProxyType(dropped),
                held=held,
                queued=ring.waiting + self.waiting,
                in_flight=self.in_flight,
                spooled=0,
                sinks=MappingProxyType({name: sink.statistics() for name, sink in sinks.items()}),
            )

    def _drop(self, reason: str, count: int) -> None:
        if count:
            self.dropped[reason] = self.dropped.get(reason, 0) + count

    def _look_at_ring(self) -> tuple[int, _RingView]:
        # Another thread may stand between putting its span in and counting it. That lasts a few
        # instructions, so looking again is enough; a difference that stays would be a real one.
        ring = self._ring
        for _ in range(1000):
            ended, view = ring.ended, _RingView(len(ring), ring.dropped)
            if ended == ring.taken + view.dropped + view.waiting:
                break
        return ended, view


class _RingView(NamedTuple):
    waiting: int
    dropped: int
