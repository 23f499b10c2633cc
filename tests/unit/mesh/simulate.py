"""One probed link in simulated time: what would the detectors say?

Ten minutes of a link take a quarter of a second, so that false alarms can be counted over hours and
thresholds compared. Only the tests and whoever tunes a threshold need it. Pure.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mapek_domains.mesh.engine import LinkReading
from mapek_domains.mesh.meter import LinkMeter, alarming
from mapek_domains.mesh.probe import DEFAULT_INTERVAL, Probe

__all__ = ["Moment", "simulate"]

Loss = Callable[[float], float]
"""The share lost at a time."""


@dataclass(frozen=True, slots=True)
class Moment:
    """Both ends of the link at one time, and the rules they see broken."""

    at: float
    a: LinkReading
    b: LinkReading

    @property
    def alarms(self) -> tuple[str, ...]:
        """The rules broken, as `a.dead.in`."""
        return tuple(f"{end}.{rule}" for end, r in (("a", self.a), ("b", self.b)) for rule in alarming(r))


def simulate(
    seconds: float,
    *,
    seed: int,
    forth: Loss,
    back: Loss,
    asleep: Callable[[float], bool] = lambda _at: False,
    every: float = 0.1,
    delay: float = 0.001,
    jitter: float = 0.001,
) -> Iterator[Moment]:
    """Read the link from `a` to `b` each `every` seconds.

    `forth` and `back` are the losses of the two directions; `asleep` says when the process of both
    ends stands still: nothing is sent then, and what arrives waits.
    """
    rng = random.Random(seed)
    a = LinkMeter("a~b", "b", epoch=1, now=0.0)
    b = LinkMeter("a~b", "a", epoch=2, now=0.0)
    flying: list[tuple[float, int, LinkMeter, Probe]] = []
    count = 0
    due = {"a": 0.0, "b": 0.3 * DEFAULT_INTERVAL, "read": every}
    while True:
        at = min(*due.values(), flying[0][0] if flying else seconds + 1.0)
        if at > seconds:
            return
        if asleep(at):
            woken = at
            while asleep(woken):
                woken += 0.005
            due = {name: max(time, woken) for name, time in due.items()}
            flying = [(max(time, woken), *rest) for time, *rest in flying]  # type: ignore[misc]
            heapq.heapify(flying)
            a.overslept(woken)
            b.overslept(woken)
            continue
        if flying and flying[0][0] <= at:
            _, _, meter, frame = heapq.heappop(flying)
            meter.heard(frame, at)
            continue
        turn = min(due, key=lambda name: due[name])
        if turn == "read":
            due[turn] += every
            yield Moment(at, _read(a, at), _read(b, at))
            continue
        due[turn] += DEFAULT_INTERVAL
        meter, other, loss = (a, b, forth) if turn == "a" else (b, a, back)
        frame = meter.next_probe(at)
        count += 1
        if rng.random() >= loss(at):
            heapq.heappush(flying, (at + delay + rng.random() * jitter, count, other, frame))


def _read(meter: LinkMeter, at: float) -> LinkReading:
    return meter.reading(at, drained=False, drained_here=False, peer_alive=True)
