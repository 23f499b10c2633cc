"""A mesh on a clock of its own: the probes of all links, under faults, as fast as they can be computed.

The meters, the emulator and the schedule are the mesh's own; only sockets and time are not. Nobody acts
upon what is read. The host stands still now and then, as hosts do.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from mapek_domains.mesh.engine import LinkReading, link_id
from mapek_domains.mesh.meter import LinkMeter
from mapek_domains.mesh.probe import DEFAULT_INTERVAL, Probe
from mapek_domains.mesh.udp.emulator import Conditions, Emulator, ring_with_chords
from mapek_domains.mesh.udp.faults import set_fault
from mapek_domains.mesh.udp.node import OVERSLEPT
from mapek_runtime.loop.domain import Fault

__all__ = ["EVERY", "Read", "World"]

EVERY = 0.1
"""Seconds between two readings, as between two cycles of a demonstration."""

_LEAST_WAY = 0.0002
"""Seconds that a datagram takes at least; on average as long again."""
_STALL = 0.015
"""Seconds that the host stands still at a time, on average."""


@dataclass(frozen=True, slots=True)
class Read:
    """All links of all nodes that run, at one time."""

    at: float
    nodes: Mapping[str, Sequence[LinkReading]]


class World:
    """Some nodes, their links and a host that has other work.

    `varied` gives each direction of a link a usual loss of up to 3 %, and each link a delay of up to
    10 ms and a jitter; otherwise links are as on loopback. `stalls` is how often a minute the host
    stands still.
    """

    def __init__(self, seed: int, *, nodes: int = 5, varied: bool = False, stalls: float = 6.0) -> None:
        self._rng = random.Random(seed)
        self.nodes = tuple(f"node-{number}" for number in range(1, nodes + 1))
        self.links = ring_with_chords(self.nodes)
        self._emulator = Emulator(self._rng.getrandbits(64))
        self._usual: dict[tuple[str, str], Conditions] = {}
        self._stalls = stalls / 60.0
        for a, b in self.links:
            delay = self._rng.choice((0.0, 0.001, 0.005, 0.01)) if varied else 0.0
            for sender, receiver in ((a, b), (b, a)):
                usual = Conditions(
                    loss=self._rng.choice((0.0, 0.0, 0.003, 0.01, 0.03)) if varied else 0.0,
                    delay=delay,
                    jitter=delay * self._rng.choice((0.0, 0.2, 1.0)),
                )
                self._usual[sender, receiver] = usual
                self._restore(sender, receiver)
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._count = 0
        self._down: set[str] = set()
        self._meters: dict[tuple[str, str], LinkMeter] = {}
        for node in self.nodes:
            self._begin(node, 0.0)

    def run(self, seconds: float, faults: Sequence[Fault] = ()) -> Iterator[Read]:
        """Read all links each `EVERY` seconds, while the faults come and go."""
        self._events.clear()
        for fault in faults:
            self._at(fault.at, partial(self._set, fault, True))
            self._at(fault.at + fault.duration, partial(self._set, fault, False))
        for place, node in enumerate(self.nodes):
            self._at(place * DEFAULT_INTERVAL / len(self.nodes), self._ticks(node))
        reading = EVERY
        stalled_until, next_stall = 0.0, self._rng.expovariate(self._stalls)
        while reading <= seconds:
            due = min(self._events[0][0], reading)
            if due >= next_stall:
                stalled_until = next_stall + self._rng.expovariate(1 / _STALL)
                next_stall = stalled_until + self._rng.expovariate(self._stalls)
            now = max(due, stalled_until)
            if due == reading:
                reading += EVERY
                running = [name for name in self.nodes if name not in self._down]
                yield Read(now, {name: self._read(name, now) for name in running})
            else:
                heapq.heappop(self._events)[2](now)

    def change(self, sender: str, receiver: str, *, loss: float) -> None:
        """Let one direction of a link lose so much from now on."""
        self._emulator.change(sender, receiver, loss=loss)

    def _at(self, time: float, what: Callable[[float], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (time, self._count, what))

    def _ticks(self, node: str, due: float | None = None) -> Callable[[float], None]:
        """Send the probes of a node, once an interval."""

        def tick(now: float) -> None:
            expected = now if due is None else due
            overslept = now - expected > OVERSLEPT
            after = (now if overslept else expected) + DEFAULT_INTERVAL
            self._at(after, self._ticks(node, after))
            if node in self._down:
                return
            for (mine, peer), meter in self._meters.items():
                if mine == node:
                    if overslept:
                        meter.overslept(now)
                    self._send(node, peer, meter.next_probe(now), now)

        return tick

    def _send(self, sender: str, receiver: str, frame: Probe, now: float) -> None:
        fate = self._emulator.fate(sender, receiver)
        if fate is not None:
            way = fate + _LEAST_WAY + self._rng.expovariate(1 / _LEAST_WAY)
            self._at(now + way, lambda at: self._heard(receiver, sender, frame, at))

    def _heard(self, receiver: str, sender: str, frame: Probe, now: float) -> None:
        if receiver not in self._down:
            self._meters[receiver, sender].heard(frame, now)

    def _read(self, node: str, now: float) -> Sequence[LinkReading]:
        return [
            meter.reading(now, drained=False, drained_here=False, peer_alive=peer not in self._down)
            for (mine, peer), meter in self._meters.items()
            if mine == node
        ]

    def _set(self, fault: Fault, present: bool, now: float) -> None:
        if fault.kind != "node.crash":
            set_fault(self._emulator, fault, present=present, usual=lambda a, b: self._usual[a, b])
        elif present:
            self._down.add(fault.target)
        else:
            self._down.discard(fault.target)
            self._begin(fault.target, now)

    def _begin(self, node: str, now: float) -> None:
        epoch = self._rng.randint(1, 0xFFFF_FFFF)
        for a, b in self.links:
            if node in (a, b):
                peer = b if a == node else a
                self._meters[node, peer] = LinkMeter(link_id(a, b), peer, epoch=epoch, now=now)

    def _restore(self, sender: str, receiver: str) -> None:
        usual = self._usual[sender, receiver]
        self._emulator.change(sender, receiver, loss=usual.loss, delay=usual.delay, jitter=usual.jitter)
