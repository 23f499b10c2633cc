"""Messages that are too long for one: cut into parts, and put together again where they arrive.

Parts may be lost, come twice and in any order. A message that is sent again is cut as before, so that what
came the first time need not come again. What is held for messages that are not whole is bounded, for each
sender and in all: the one that waited longest for a part goes first.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence

from .wire import MOST, Part, WireError, encode

__all__ = ["Parts", "split"]

_FRAME = 64
"""Bytes of a part beside its piece, and some more."""
_SHORTEST = 512
"""Bytes of a piece that is not the last: what is held beside a piece is never more than the piece."""
_LIFE = 30.0
_PER_SOURCE = 2
_MOST_OPEN = 64
_MOST_HELD = 8 * MOST


def split(payload: bytes, most: int) -> Sequence[bytes]:
    """The messages of at most `most` bytes in which `payload` travels: itself, where it fits."""
    if len(payload) <= most:
        return (payload,)
    digest, length = _digest(payload), most - _FRAME
    if length < _SHORTEST:
        raise ValueError(f"messages of {most} bytes are too short for parts; {_FRAME + _SHORTEST} at least")
    return tuple(
        encode(Part(digest, len(payload), start, payload[start : start + length]))
        for start in range(0, len(payload), length)
    )


class _Half:
    """A message of which something is missing."""

    def __init__(self, size: int, now: float) -> None:
        self.size = size
        self.pieces: dict[int, bytes] = {}
        self.held = 0
        self.heard = now


class Parts:
    """Puts the messages of many senders together; times are seconds of one clock that never goes back."""

    def __init__(self) -> None:
        self._open: OrderedDict[tuple[str, bytes], _Half] = OrderedDict()
        self.held = 0
        """Bytes held for messages that are not whole."""

    def add(self, source: str, part: Part, now: float) -> bytes | None:
        """Take a part: the whole message when this was the last that was missing.

        Raises `WireError` for a part that does not fit what its message said of itself; the message is
        given up when its parts are all there and are not what they were to be.
        """
        self._expire(now)
        end = part.start + len(part.piece)
        if end > part.size or (len(part.piece) < _SHORTEST and end < part.size):
            raise WireError("part")
        key = source, part.digest
        half = self._open.get(key)
        if half is None:
            half = self._open[key] = _Half(part.size, now)
        elif half.size != part.size:
            raise WireError("part")
        half.heard = now
        self._open.move_to_end(key)
        if part.start in half.pieces:
            return None
        half.pieces[part.start] = part.piece
        half.held += len(part.piece)
        self.held += len(part.piece)
        if half.held < half.size:
            self._make_room(source, key)
            return None
        self._give_up(key)
        whole = b"".join(half.pieces[start] for start in sorted(half.pieces))
        if _digest(whole) != part.digest:
            raise WireError("part")
        return whole

    def _expire(self, now: float) -> None:
        while self._open:
            key, half = next(iter(self._open.items()))
            if now - half.heard <= _LIFE:
                return
            self._give_up(key)

    def _make_room(self, source: str, newest: tuple[str, bytes]) -> None:
        mine = [key for key in self._open if key[0] == source]
        for key in mine[:-_PER_SOURCE]:
            self._give_up(key)
        while (self.held > _MOST_HELD or len(self._open) > _MOST_OPEN) and next(iter(self._open)) != newest:
            self._give_up(next(iter(self._open)))

    def _give_up(self, key: tuple[str, bytes]) -> None:
        self.held -= self._open.pop(key).held


def _digest(payload: bytes) -> bytes:
    return hashlib.blake2b(payload, digest_size=16).digest()
