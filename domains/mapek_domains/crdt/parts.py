"""Long frames in pieces, and together again; what is lost on the way is asked for once more.

Pure: the caller says what time it is. What a peer can make this keep is bounded in bytes, in frames and in
time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from .messages import MOST_PARTS, Again, Part
from .update import Refused

__all__ = ["Assembly", "Outgoing", "cut"]

_FRAMES_A_PEER = 2
_ASK_AFTER = 0.3
_ASKS = 30
_ASK_FOR = 64
_KEEP = 30.0


def cut(id_: int, frame: bytes, size: int) -> Sequence[Part]:
    """The parts of a frame, of `size` bytes each; raises `Refused` where they are too many."""
    bodies = [frame[at : at + size] for at in range(0, len(frame), size)]
    if len(bodies) > MOST_PARTS:
        raise Refused("too_large")
    return [Part(id_, index, len(bodies), body) for index, body in enumerate(bodies)]


class Outgoing:
    """The last long frame to each peer, for as long as its parts may be asked for."""

    def __init__(self) -> None:
        self._sent: dict[str, tuple[float, Sequence[Part]]] = {}

    def sent(self, peer: str, parts: Sequence[Part], now: float) -> None:
        """These parts were sent."""
        self._sent[peer] = now, parts

    def again(self, peer: str, asked: Again) -> Sequence[Part]:
        """The parts that a peer misses, as far as they are still here."""
        _, parts = self._sent.get(peer, (0.0, ()))
        if not parts or parts[0].id != asked.id:
            return ()
        return [parts[index] for index in sorted(set(asked.missing))[:_ASK_FOR] if index < len(parts)]

    def expire(self, now: float) -> None:
        """Forget what is old."""
        for peer in [peer for peer, (at, _) in self._sent.items() if now - at > _KEEP]:
            del self._sent[peer]


@dataclass(slots=True)
class _Coming:
    """A frame of which not all parts are here."""

    count: int
    heard: float
    began: float
    asks: int = 0
    size: int = 0
    bodies: dict[int, bytes] = field(default_factory=dict)


class Assembly:
    """The frames that are coming in; `most` bytes of them from each peer."""

    def __init__(self, most: int) -> None:
        self.refused: Counter[str] = Counter()
        self._most = most
        self._coming: dict[str, dict[int, _Coming]] = {}

    def add(self, peer: str, part: Part, now: float) -> bytes | None:
        """The frame, when this was its last part; raises `Refused` for a part that cannot be."""
        coming = self._coming.setdefault(peer, {})
        frame = coming.get(part.id)
        if frame is None:
            if len(coming) >= _FRAMES_A_PEER:
                # The one that was silent for the longest is given up: another way leads to what it said.
                self._give_up(peer, min(coming, key=lambda each: coming[each].heard), "crowded")
                coming = self._coming.setdefault(peer, {})
            frame = coming[part.id] = _Coming(part.count, now, now)
        if part.count != frame.count or part.index >= part.count:
            self._give_up(peer, part.id, "malformed")
            raise Refused("malformed")
        frame.heard = now
        if part.index not in frame.bodies:
            if sum(each.size for each in coming.values()) + len(part.body) > self._most:
                self._give_up(peer, part.id, "too_large")
                raise Refused("too_large")
            frame.bodies[part.index] = part.body
            frame.size += len(part.body)
        if len(frame.bodies) < frame.count:
            return None
        self._drop(peer, part.id)
        return b"".join(frame.bodies[index] for index in range(frame.count))

    def due(self, now: float) -> Iterable[tuple[str, Again]]:
        """Whom to ask for what, because it did not come; what never comes is given up."""
        asks: list[tuple[str, Again]] = []
        for peer, coming in list(self._coming.items()):
            for id_, frame in list(coming.items()):
                if now - frame.heard < _ASK_AFTER:
                    continue
                if frame.asks >= _ASKS or now - frame.began > _KEEP:
                    self._give_up(peer, id_, "lost")
                    continue
                frame.asks += 1
                frame.heard = now
                missing = [index for index in range(frame.count) if index not in frame.bodies]
                asks.append((peer, Again(id_, missing[:_ASK_FOR])))
        return asks

    def _give_up(self, peer: str, id_: int, reason: str) -> None:
        self.refused[reason] += 1
        self._drop(peer, id_)

    def _drop(self, peer: str, id_: int) -> None:
        coming = self._coming.get(peer, {})
        coming.pop(id_, None)
        if not coming:
            self._coming.pop(peer, None)
