"""The law: no span is lost without being counted.

```
ended + recovered = exported + dropped{reason} + held + queued + in flight + spooled
```

It holds at every instant, and each span is in one place. The ring knows what has ended; `Account` is
told whenever spans that left it go from one place to another, for the processor and for each
exporter, and knows numbers only. A span that ended below a cycle is held until the cycle is decided,
and then goes to the ring or is `sampled_out`; the sampler's holds count these.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from mapek_runtime.trace.ring import Ring
from mapek_runtime.trace.sampling.hold import Holds

__all__ = ["Account", "Fate", "Outcome", "Place", "SinkAccount", "SinkStatistics", "Statistics"]


class Place(enum.IntEnum):
    """Where spans are that left the ring and are not settled."""

    QUEUED = 0
    IN_FLIGHT = 1
    SPOOLED = 2
    SETTLED = 3
    """Exported or dropped."""


class Outcome(NamedTuple):
    """What became of a batch at one exporter: `spooled` spans are on disk and will be tried again."""

    exported: int
    dropped: int = 0
    reason: str = ""
    spooled: bool = False


class SinkStatistics(NamedTuple):
    """What became of the spans that one exporter was given.

    `accepted + recovered = exported + dropped{reason} + queued + in_flight + spooled`.
    """

    accepted: int
    recovered: int
    exported: int
    dropped: Mapping[str, int]
    queued: int
    in_flight: int
    spooled: int

    @property
    def balanced(self) -> bool:
        """Whether the law holds."""
        waiting = self.queued + self.in_flight + self.spooled
        return self.accepted + self.recovered == self.exported + sum(self.dropped.values()) + waiting


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
    """The account of one exporter; only `Account` writes in it."""

    __slots__ = ("accepted", "dropped", "exported", "places", "recovered")

    def __init__(self) -> None:
        self.accepted = 0
        self.recovered = 0
        self.exported = 0
        self.dropped: dict[str, int] = {}
        self.places = [0, 0, 0]
        """Spans by `Place`."""

    @property
    def in_flight(self) -> int:
        """Spans that are being sent just now."""
        return self.places[Place.IN_FLIGHT]

    def statistics(self) -> SinkStatistics:
        """The account now."""
        dropped = MappingProxyType(dict(self.dropped))
        return SinkStatistics(self.accepted, self.recovered, self.exported, dropped, *self.places)


class Fate:
    """What is to become of the spans of one batch, over all exporters."""

    __slots__ = ("best", "count", "lanes", "place")

    def __init__(self, count: int, place: Place = Place.QUEUED) -> None:
        self.count = count
        self.place = place
        """Where the processor counts these spans."""
        self.lanes = [0, 0, 0]
        """At how many exporters they are queued, in flight and spooled."""
        self.best: Outcome | None = None
        """The outcome, so far, of the exporter that took most."""

    @property
    def is_shared(self) -> bool:
        """Whether more than one exporter has, or had, to do with these spans."""
        return self.best is not None or sum(self.lanes) > 1

    def split(self, count: int) -> Fate:
        """Keep the first `count` spans; gives the fate of the others, which has been the same so far.

        Only while one exporter knows of it: for another the batch is still whole.
        """
        rest = Fate(self.count - count, self.place)
        rest.lanes = list(self.lanes)
        self.count = count
        return rest


class Account:
    """The account of a processor and of its sinks.

    A change is a few additions under the ring's lock, which is taken once a batch or slice, so that a
    reader in another thread never sees half of it. `holds` are those of the sampler in front.
    """

    def __init__(self, ring: Ring, holds: Holds | None = None) -> None:
        self._ring = ring
        self._holds = holds
        self.clear()

    def clear(self) -> None:
        """Forget every count, as in the child of a fork, after the ring did."""
        self._lock = self._ring.lock
        self.recovered = 0
        self.exported = 0
        self.refused = 0
        self.dropped: dict[str, int] = {}
        self._places = [0, 0, 0]

    @property
    def unsent(self) -> int:
        """How many spans were dropped or spooled instead of being delivered."""
        return self._ring.dropped + sum(self.dropped.values()) + self._places[Place.SPOOLED]

    # What happens to spans that no batch has yet

    def refuse(self) -> None:
        """A span ended after the shutdown."""
        with self._lock:
            self.refused += 1
            self._drop("already_shutdown", 1)

    def take(self, most: int) -> list[Any]:
        """Move up to `most` spans from the ring to those that wait to be sent."""
        with self._lock:
            spans = self._ring.drain(most)
            self._places[Place.QUEUED] += len(spans)
        return spans

    def drop(self, reason: str, count: int) -> None:
        """Spans that were taken and have no batch are given up."""
        with self._lock:
            self._places[Place.QUEUED] -= count
            self._drop(reason, count)

    def drop_ring(self, reason: str) -> int:
        """Give up every span that is still in the ring."""
        with self._lock:
            count = len(self._ring.drain(self._ring.capacity + 1))
            self._drop(reason, count)
        return count

    # What happens to a batch

    def offer(self, fate: Fate, sinks: list[SinkAccount]) -> None:
        """A batch was made of taken spans, and every exporter is to have it."""
        with self._lock:
            for sink in sinks:
                sink.accepted += fate.count
                sink.places[Place.QUEUED] += fate.count
                fate.lanes[Place.QUEUED] += 1

    def recover(self, fate: Fate, sink: SinkAccount) -> None:
        """Spans of an earlier process were found in the spool of an exporter."""
        with self._lock:
            self.recovered += fate.count
            self._places[Place.SPOOLED] += fate.count
            fate.place = Place.SPOOLED
            fate.lanes[Place.SPOOLED] += 1
            sink.recovered += fate.count
            sink.places[Place.SPOOLED] += fate.count

    def move(self, fate: Fate, sink: SinkAccount, source: Place, target: Place) -> None:
        """At one exporter a batch goes from one place to another."""
        with self._lock:
            sink.places[source] -= fate.count
            sink.places[target] += fate.count
            fate.lanes[source] -= 1
            fate.lanes[target] += 1
            self._follow(fate)

    def settle(self, fate: Fate, sink: SinkAccount, source: Place, outcome: Outcome) -> None:
        """A batch has come to its end at one exporter."""
        if outcome.spooled:
            self.move(fate, sink, source, Place.SPOOLED)
            return
        with self._lock:
            sink.places[source] -= fate.count
            sink.exported += outcome.exported
            if outcome.dropped:
                sink.dropped[outcome.reason] = sink.dropped.get(outcome.reason, 0) + outcome.dropped
            fate.lanes[source] -= 1
            if fate.best is None or outcome.exported > fate.best.exported:
                fate.best = outcome
            self._follow(fate)

    def statistics(self, sinks: Mapping[str, SinkAccount]) -> Statistics:
        """Every term of the law at this instant."""
        with self._lock:
            ring = self._ring.view()
            dropped = dict(self.dropped)
            if ring.dropped:
                dropped["queue_full"] = dropped.get("queue_full", 0) + ring.dropped
            held = sampled_out = 0
            if self._holds is not None:
                # What another thread moves from a hold to the ring just now is on neither side.
                held, sampled_out = self._holds.held, self._holds.sampled_out
            if sampled_out:
                dropped["sampled_out"] = sampled_out
            queued, in_flight, spooled = self._places
            return Statistics(
                ended=ring.ended + self.refused + held + sampled_out,
                recovered=self.recovered,
                exported=self.exported,
                dropped=MappingProxyType(dropped),
                held=held,
                queued=ring.waiting + queued,
                in_flight=in_flight,
                spooled=spooled,
                sinks=MappingProxyType({name: sink.statistics() for name, sink in sinks.items()}),
            )

    def _follow(self, fate: Fate) -> None:
        """Count the spans of a batch where most can still be hoped for them."""
        if fate.place is Place.SETTLED:
            return
        best, (queued, in_flight, spooled) = fate.best, fate.lanes
        place = Place.SETTLED
        if best is None or best.exported < fate.count:
            if in_flight:
                place = Place.IN_FLIGHT
            elif queued:
                place = Place.QUEUED
            elif spooled:
                place = Place.SPOOLED
        if place is fate.place:
            return
        self._places[fate.place] -= fate.count
        fate.place = place
        if place is not Place.SETTLED:
            self._places[place] += fate.count
        elif best is not None:
            self.exported += best.exported
            self._drop(best.reason, best.dropped)

    def _drop(self, reason: str, count: int) -> None:
        if count:
            self.dropped[reason] = self.dropped.get(reason, 0) + count
