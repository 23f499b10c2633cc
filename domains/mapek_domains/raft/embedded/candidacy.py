"""When a node stands for election, and whether it votes at all.

Nobody stands before a majority has said that it would vote for it (a straw poll: Ongaro's dissertation,
section 9.6), so a node that hears only some of the others deposes nobody.

A node whose journal is new has no vote, and what it holds does not count: it may have voted, and held more,
before its journal was lost. It gets a vote in one of two ways. Where a leader finds it so, the leader
proposes to admit this very journal, and once that is final, a majority has agreed on it which this node was
no part of: any majority that it once helped to make has another node in common with that one, and so can
neither elect another leader nor be forgotten. Or, where nobody has agreed on anything yet, the group is being
founded: as soon as a majority, this node included, says to this very journal that it knows of nothing. So a
group forgets what it agreed on only where a majority lost its journals or had none yet, and nobody who knows
better can be heard.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from pysyncobj import syncobj as library

from mapek_domains.raft import commands
from mapek_domains.raft.commands import Admit

from .wire import Ask, Frame, Hello, Say, Vote

if TYPE_CHECKING:
    from .replica import Replica

__all__ = ["Candidacy", "Timing"]

_NEVER = float("-inf")
_ADMIT_EVERY = 1.0
_LATELY = 2.0


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds: between signs of life, and the least and the most before an election."""

    heartbeat: float
    least: float
    most: float


class Candidacy:
    """Decides for one replica; it is asked at every tick."""

    def __init__(self, replica: Replica, timing: Timing, rng: Random) -> None:
        self._replica = replica
        self._timing = timing
        self._rng = rng
        self._begun = float(library.monotonicTime())
        self._led_at = _NEVER
        self._hello_at = _NEVER
        self._stand_at = self._begun + (self._patience() if replica.peers else 0.0)
        self._elected = False
        self._straw_term = 0
        self._straw_voters: set[str] = set()
        self._voters: set[str] = set()
        self._proposed: dict[str, float] = {}

    # What it knows

    def led_lately(self) -> bool:
        """Whether a leader was heard within the longest time before an election."""
        return bool(library.monotonicTime() - self._led_at < self._timing.most)

    def heard(self) -> Sequence[str]:
        """The other members that were heard lately."""
        now = library.monotonicTime()
        peers = self._replica.peers.items()
        return [name for name, peer in peers if now - peer.heard_at < self._timing.most]

    def due(self) -> float:
        """When to look again, on the library's clock."""
        quiet_at = self._led_at + self._timing.least
        return float(min(self._stand_at, quiet_at if quiet_at > library.monotonicTime() else self._hello_at))

    # What happens

    def tick(self) -> None:
        """Say hello, stand for election, or let others vote, where it is time for it."""
        replica = self._replica
        now = library.monotonicTime()
        for name, peer in replica.peers.items():
            if now - peer.heard_at > self._timing.most and replica.isNodeConnected(replica.nodes[name]):
                replica.outlet._onNodeDisconnected(replica.nodes[name])
        # The library would stand on its own.
        replica._SyncObj__raftElectionDeadline = float("inf")
        if replica.is_leader:
            self._elected = False
            self._stand_at = now + self._patience()
            self._admit_others(now)
            return
        if not replica.journal.votes:
            self._found(now)
        self._greet(now)
        if replica.journal.votes:
            self._stand(now)
        else:
            self._stand_at = now + self._patience()

    def led(self) -> None:
        """A leader of the present term was heard."""
        self._led_at = library.monotonicTime()
        self.wait()

    def wait(self) -> None:
        """Somebody else is to be given time."""
        self._stand_at = library.monotonicTime() + self._patience()

    def stood(self) -> None:
        """The replica stands for election: no vote for it has come yet."""
        self._voters = set()

    def straw_for(self, frame: Frame, ask: Ask) -> Vote | None:
        """The answer to a straw poll; None: no."""
        replica = self._replica
        led = replica.is_leader or library.monotonicTime() - self._led_at < self._timing.least
        ours = replica.journal[-1][2], replica.journal.last
        if led or (ask.last_term, ask.last_index) < ours:
            return None
        return Vote(frame.term + 1, straw=True)

    def straw_vote(self, voter: str, vote: Vote) -> str:
        """A straw vote for this node; a word where it is of no use."""
        replica = self._replica
        if replica.is_leader or vote.term != self._straw_term or vote.term != replica.term + 1:
            return "stale_vote"
        self._straw_voters.add(voter)
        self._elected = len(self._straw_voters) + 1 >= replica.majority
        return ""

    def vote(self, voter: str) -> str:
        """A vote for this node, in its term; a word where it does not count."""
        if voter in self._voters:
            return "voted_twice"
        self._voters.add(voter)
        return ""

    def admitted(self, admit: Admit) -> None:
        """The group lets a journal vote; perhaps this one."""
        journal = self._replica.journal
        mine = (admit.node, admit.identity) == (self._replica.node_id, journal.birth.identity)
        if mine and not journal.votes:
            journal.let_vote()

    # Inside

    def _greet(self, now: float) -> None:
        """Where nobody leads, say that this node is here: rarely, when it has been so for long."""
        if now - self._led_at < self._timing.least or now < self._hello_at:
            return
        alone = now - max(self._led_at, self._begun)
        self._hello_at = now + self._timing.heartbeat * (1 if alone < _LATELY else 4)
        for name in self._replica.peers:
            self._replica.send(name, Hello())

    def _stand(self, now: float) -> None:
        replica = self._replica
        if not self._elected and now < self._stand_at:
            return
        self._stand_at = now + self._patience()
        if self._elected or not replica.peers:
            self._elected = False
            replica._SyncObj__raftElectionDeadline = _NEVER
            return
        self._straw_term, self._straw_voters = replica.term + 1, set()
        for name in replica.peers:
            replica.send(name, Ask(replica.journal.last, replica.journal[-1][2], straw=True))

    def _found(self, now: float) -> None:
        replica = self._replica
        lately = [peer.say for peer in replica.peers.values() if now - peer.heard_at < _LATELY]
        founders = 1 + sum(say in (Say.BLANK, Say.FOUNDING) for say in lately)
        if Say.SETTLED not in lately and founders >= replica.majority:
            replica.journal.let_vote()

    def _admit_others(self, now: float) -> None:
        replica = self._replica
        # What an earlier leader left is not known to be final before an entry of this term is.
        if replica.journal.term_at(replica.commit_index) != replica.term:
            return
        for name, peer in replica.peers.items():
            proposed = self._proposed.get(name, _NEVER)
            lately = now - peer.heard_at < self._timing.most
            if peer.say is Say.BLANK and lately and now - proposed > _ADMIT_EVERY:
                self._proposed[name] = now
                replica.submit(commands.encode(Admit(name, peer.identity)))

    def _patience(self) -> float:
        return self._rng.uniform(self._timing.least, self._timing.most)
