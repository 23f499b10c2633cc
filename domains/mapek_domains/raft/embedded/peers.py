"""What a node knows of another member: which of its lives speaks, how far it came, when it was heard.

A frame counts once and in its order: what comes late, twice, or from a life that is over is refused. That is
what a connection would give; over datagrams each frame has to say where it belongs. What was lost is not
asked for: Raft says everything again. Pure.
"""

from __future__ import annotations

from .wire import Frame, Say

__all__ = ["Peer"]

_NEVER = float("-inf")


class Peer:
    """One other member, as this node has heard it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.identity = 0
        """Of its journal; 0 until it was heard."""
        self.heard_at = _NEVER
        self.say: Say | None = None
        """What it last said of itself to this life of ours; None while it has not answered us."""
        self.sent = 0
        """Frames sent to it."""
        self._again = _NEVER, 0
        self._life = 0
        self._seq = 0

    def admit(self, frame: Frame, me: int, now: float) -> str:
        """Take the frame for the newest that was heard; else say in a word why it is not. Empty: it is.

        `me` is the identity of this node's journal. A sender that takes it for "another_journal" must be
        told: where two take each other for an older one, neither hears of the newer ones by itself.
        """
        if frame.to not in (0, me):
            return "another_journal"
        if frame.identity != self.identity:
            # Of two journals none is known to be the newer. What a journal that was lost has promised was
            # true, and counts; so a late frame of it does no harm, and the next one turns this back.
            self.identity, self._life, self._seq = frame.identity, 0, 0
            self.say = None
        if frame.life < self._life:
            return "older_life"
        if frame.life > self._life:
            self._life, self._seq = frame.life, 0
        if frame.seq <= self._seq:
            return "late"
        self._seq = frame.seq
        self.heard_at = now
        if frame.to == me:
            self.say = frame.say
        return ""

    def goes_back(self, following: int, now: float, pause: float) -> bool:
        """Whether entries are to be sent it again from `following` on, as it missed some or has others there.

        Each frame that was on its way meanwhile is answered so. What was sent again from there, or from
        before, within the `pause` (seconds) is on its way too.
        """
        at, place = self._again
        if following >= place and now - at < pause:
            return False
        self._again = now, following
        return True

    def next_seq(self) -> int:
        """The number of the next frame to it."""
        self.sent += 1
        return self.sent
