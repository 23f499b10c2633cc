"""Questions and answers from node to node over the routes in force: evidence that traffic flows.

A routing table says where packets ought to go; an answer says that they went, there and back. Knows
no socket and no clock: bytes are handed in and out, times are passed in.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable

__all__ = ["Echo"]

_QUESTION, _ANSWER = 1, 2
_BODY = struct.Struct("!BQ")
_REMEMBERED = 256


class Echo:
    """One node's questions. `transmit(node, body)` sends over the route in force."""

    def __init__(self, transmit: Callable[[str, bytes], None]) -> None:
        self._transmit = transmit
        self._number = 0
        self._asked: deque[tuple[int, str, float]] = deque(maxlen=_REMEMBERED)
        self._answered: dict[str, float] = {}

    def ask(self, node_id: str, now: float) -> None:
        """Ask a node for an answer."""
        self._number += 1
        self._asked.append((self._number, node_id, now))
        self._transmit(node_id, _BODY.pack(_QUESTION, self._number))

    def answered(self, node_id: str, since: float) -> bool:
        """Whether the node has answered a question that was asked since then."""
        asked = self._answered.get(node_id)
        return asked is not None and asked >= since

    def heard(self, source: str, body: bytes) -> None:
        """Something came from a node; what is not ours is passed over."""
        if len(body) != _BODY.size:
            return
        kind, number = _BODY.unpack(body)
        if kind == _QUESTION:
            self._transmit(source, _BODY.pack(_ANSWER, number))
        elif kind == _ANSWER:
            for asked, node_id, at in self._asked:
                if (asked, node_id) == (number, source):
                    self._answered[source] = max(at, self._answered.get(source, at))

    def forget(self) -> None:
        """A new life of the node: answers to the one before prove nothing."""
        self._asked.clear()
        self._answered.clear()
