"""The link emulator: what happens to a datagram between two nodes of one process.

The sockets and packets are real; the emulator stands before the sender's socket and decides for each
datagram whether it is sent, and how late. Loss, delay and blackholes are of one direction of a link.
Losses and jitter come from a seeded generator for each direction, so one link's traffic does not
change another's luck. Knows no node and no socket.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

__all__ = ["Conditions", "Emulator", "ring_with_chords"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """The state of one direction of a link: the share lost, and seconds of delay.

    A datagram is held back for `delay` seconds and up to `jitter` more, at random.
    """

    loss: float = 0.0
    delay: float = 0.0
    blackhole: bool = False
    jitter: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.loss <= 1.0:
            raise ValueError(f"loss is {self.loss!r}; it must lie in 0..1")
        if self.delay < 0.0 or self.jitter < 0.0:
            raise ValueError(f"delay is {self.delay!r} and jitter {self.jitter!r}; neither may be negative")


_PERFECT = Conditions()


class Emulator:
    """The conditions of every link of a group of nodes."""

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._conditions: dict[tuple[str, str], Conditions] = {}
        self._luck: dict[tuple[str, str], random.Random] = {}
        self._down: set[frozenset[str]] = set()
        self.dropped = 0

    def fate(self, sender: str, receiver: str) -> float | None:
        """Seconds to hold the next datagram back, 0 for none, or None to drop it."""
        if self._down and frozenset((sender, receiver)) in self._down:
            self.dropped += 1
            return None
        conditions = self._conditions.get((sender, receiver))
        if conditions is None:
            return 0.0
        if conditions.blackhole or (
            conditions.loss and self._random(sender, receiver).random() < conditions.loss
        ):
            self.dropped += 1
            return None
        if conditions.jitter:
            return conditions.delay + conditions.jitter * self._random(sender, receiver).random()
        return conditions.delay

    def conditions(self, sender: str, receiver: str) -> Conditions:
        """What is in force in that direction."""
        return self._conditions.get((sender, receiver), _PERFECT)

    def change(
        self,
        sender: str,
        receiver: str,
        *,
        loss: float | None = None,
        delay: float | None = None,
        blackhole: bool | None = None,
        jitter: float | None = None,
    ) -> None:
        """Change one direction of a link; what is not named stays."""
        now = self.conditions(sender, receiver)
        changed = replace(
            now,
            loss=now.loss if loss is None else loss,
            delay=now.delay if delay is None else delay,
            blackhole=now.blackhole if blackhole is None else blackhole,
            jitter=now.jitter if jitter is None else jitter,
        )
        if changed == _PERFECT:
            self._conditions.pop((sender, receiver), None)
        else:
            self._conditions[sender, receiver] = changed

    def set_down(self, a: str, b: str, down: bool) -> None:
        """Cut or mend both directions of a link."""
        (self._down.add if down else self._down.discard)(frozenset((a, b)))

    def _random(self, sender: str, receiver: str) -> random.Random:
        key = (sender, receiver)
        if key not in self._luck:
            self._luck[key] = random.Random(f"{self._seed}:{sender}>{receiver}")
        return self._luck[key]


def ring_with_chords(nodes: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """The links of a demonstration mesh: a ring, and chords across it.

    From three nodes on, every node has at least two ways out, and no single link is a bridge.
    Five nodes have seven links.
    """
    count = len(nodes)
    pairs = [(i, (i + 1) % count) for i in range(count)] if count > 1 else []
    pairs += [(i, i + count // 2) for i in range(count // 2)]
    unique = {(min(a, b), max(a, b)) for a, b in pairs if a != b}
    return tuple((nodes[a], nodes[b]) for a, b in sorted(unique))
