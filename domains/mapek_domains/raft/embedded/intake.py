"""Every frame passes here before the library sees anything of it, and much of it the library never sees.

The library was made for connections. What it takes for granted, and what a datagram can break:

* An answer counts only in the term in which it was given, and a vote once for each voter.
* Entries that a follower has already are not handed on: the library deletes whatever follows the place it is
  told, also what is the same. Something is deleted only where the terms differ (Raft, section 5.3), and
  nothing that is final.
* What was acknowledged, and what is said to be final, ends where the log was compared with the leader's.
* A snapshot that comes late drops nothing, and makes nothing final that was not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pysyncobj import syncobj as library

from mapek_domains.raft import commands
from mapek_domains.raft.commands import Admit, Expire, Lead

from .wire import Append, Ask, Chunk, Entry, Frame, Hello, Progress, Propose, Say, Vote

if TYPE_CHECKING:
    from .replica import Replica
    from .snapshots import Snapshots

__all__ = ["Intake"]

Taken = tuple[str, bool]
_ANSWER_EVERY = 2.5
"""Signs of life after which one is answered although nothing is new."""
_FAR = 1 << 32
"""A term that is further ahead than this was never reached by elections."""


class Intake:
    """Takes the frames of one replica. `verified`: up to there its log was compared with the leader's."""

    def __init__(self, replica: Replica) -> None:
        self.verified: int | None = None
        self._replica = replica
        self._answered: tuple[str, int, float] = ("", 0, 0.0)
        """Which leader, in which term, and when."""

    def receive(self, source: str, frame: Frame, cause: Any) -> Taken:
        """Take a frame; a word for the reason where it is refused, and whether to tick now."""
        refused = self._refuse(source, frame)
        if refused:
            return refused, False
        replica, body = self._replica, frame.body
        if not replica.isNodeConnected(replica.nodes[source]):
            replica.outlet._onNodeConnected(replica.nodes[source])
        if isinstance(body, Ask | Append | Chunk) and frame.term < replica.term:
            # Whoever leads or stands in a term that is over is told so.
            replica.send(source, Hello())
            return "stale_term", False
        if frame.term > replica.term and not isinstance(body, Ask):
            replica.follow(frame.term)
        match body:
            case Hello():
                return "", replica.is_leader and frame.say is Say.BLANK
            case Ask():
                return self._asked(source, frame, body, cause)
            case Vote():
                return self._voted(source, frame, body)
            case Append():
                return self._appended(source, frame, body)
            case Chunk():
                return self._snapshot(source, frame, body)
            case Progress():
                return self._progressed(source, frame, body)
            case Propose():
                return self._proposed(source, body, cause)

    def _refuse(self, source: str, frame: Frame) -> str:
        replica = self._replica
        peer = replica.peers.get(source)
        if peer is None:
            return "stranger"
        if frame.sender != source:
            return "wrong_sender"
        if frame.group != replica.group:
            return "another_group"
        if frame.term > replica.term + _FAR:
            return "term_too_far"
        before = peer.identity
        refused = peer.admit(frame, replica.journal.birth.identity, library.monotonicTime())
        if refused == "another_journal":
            replica.greet(source)
        if not refused and before != peer.identity and replica.is_leader:
            # Its journal is another one: nothing is known of what it holds.
            replica._SyncObj__raftMatchIndex[replica.nodes[source]] = 0
        return refused

    def _asked(self, source: str, frame: Frame, ask: Ask, cause: Any) -> Taken:
        replica = self._replica
        if not replica.journal.votes or frame.say is Say.BLANK:
            return "no_vote", False
        if ask.straw:
            vote = replica.candidacy.straw_for(frame, ask)
            if vote is not None:
                replica.send(source, vote)
            return "", False
        voted = replica.term, replica.journal.getVotedForNodeId()
        replica.outlet.cause = cause
        replica.hand_on(
            source,
            {
                "type": "request_vote",
                "term": frame.term,
                "last_log_index": ask.last_index,
                "last_log_term": ask.last_term,
            },
        )
        replica.outlet.cause = None
        if (replica.term, replica.journal.getVotedForNodeId()) != voted:
            replica.candidacy.wait()
        return "", True

    def _voted(self, source: str, frame: Frame, vote: Vote) -> Taken:
        replica = self._replica
        if frame.say is Say.BLANK:
            return "no_vote", False
        if vote.straw:
            return replica.candidacy.straw_vote(source, vote), True
        if not replica.is_candidate or vote.term != replica.term:
            return "stale_vote", False
        refused = replica.candidacy.vote(source)
        if not refused:
            replica.hand_on(source, {"type": "response_vote", "term": vote.term})
        return refused, True

    def _appended(self, source: str, frame: Frame, append: Append) -> Taken:
        replica, log = self._replica, self._replica.journal
        if replica.is_leader:
            return "two_leaders", False
        if self._nothing_new(source, frame, append):
            return "", False
        place = self._place(append)
        if place is None:
            return "final_entry_differs", False
        prev, prev_term, entries = place
        first = append.prev_index + len(append.entries) - len(entries) + 1
        numbered = [(command, first + offset, term) for offset, (term, command) in enumerate(entries)]
        before = log.last, log.term_at(log.last), replica.commit_index
        self.verified = append.prev_index + len(append.entries)
        replica.hand_on(
            source,
            {
                "type": "append_entries",
                "term": frame.term,
                "commit_index": min(append.commit, self.verified),
                "entries": numbered,
                "prevLogIdx": prev,
                "prevLogTerm": prev_term,
            },
        )
        self.verified = None
        replica.candidacy.led()
        return "", (log.last, log.term_at(log.last), replica.commit_index) != before

    def _nothing_new(self, source: str, frame: Frame, append: Append) -> bool:
        """A sign of life of the leader that this node follows, while all is final: most frames are that.

        It is answered now and then, so that the leader knows whom it has.
        """
        replica, log = self._replica, self._replica.journal
        calm = (
            not append.entries
            and append.prev_index == append.commit == log.last == replica.commit_index
            and append.prev_term == log[-1][2]
            and (source, frame.term) == self._answered[:2]
        )
        if calm:
            replica.candidacy.led()
        now = library.monotonicTime()
        often = min(_ANSWER_EVERY * replica.timing.heartbeat, replica.timing.least / 3)
        if not calm or now - self._answered[2] > often:
            self._answered = source, frame.term, now
            if calm:
                replica.send(source, Progress(log.last + 1, matches=True, reset=False))
        return calm

    def _place(self, append: Append) -> tuple[int, int, list[Entry]] | None:
        """Where the library is to go on from, and with which entries; None where what is final differs."""
        log, final = self._replica.journal, self._replica.commit_index
        prev, prev_term, entries = append.prev_index, append.prev_term, append.entries
        end = log.last, log.term_at(log.last) or 0
        # What a snapshot holds is final, and so the same everywhere.
        skipped = min(max(0, log.first - prev), len(entries))
        if skipped:
            prev, prev_term, entries = prev + skipped, entries[skipped - 1][0], entries[skipped:]
        if prev < log.first:
            return *end, []
        if prev > log.last:
            return prev, prev_term, entries
        if log.term_at(prev) != prev_term:
            return (prev, prev_term, entries) if prev > final else None
        same = 0
        while same < len(entries) and log.term_at(prev + same + 1) == entries[same][0]:
            same += 1
        prev, entries = prev + same, entries[same:]
        if not entries:
            # Nothing differs: what follows here stays, but is not said to be the leader's as well.
            return *end, []
        if prev < final:
            return None
        return prev, log.term_at(prev) or 0, entries

    def _snapshot(self, source: str, frame: Frame, chunk: Chunk) -> Taken:
        replica = self._replica
        if replica.is_leader:
            return "two_leaders", False
        snapshots: Snapshots = replica._SyncObj__serializer
        became = snapshots.take_chunk(chunk)
        replica.candidacy.led()
        last = snapshots.received.last if snapshots.received is not None else None
        if last is not None and (
            last[1] <= replica.commit_index or replica.journal.term_at(last[1]) == last[2]
        ):
            # All of it is here, and perhaps more that was acknowledged: nothing is dropped for it.
            snapshots.received = last = None
            replica.send(source, Progress(chunk.index + 1, matches=True, reset=False))
        replica.hand_on(
            source,
            {
                "type": "append_entries",
                "term": frame.term,
                # The entries here were not compared with the leader's.
                "commit_index": replica.commit_index,
                "serialized": last is not None,
            },
        )
        if last is not None:
            replica._SyncObj__raftCommitIndex = last[1]
            replica.journal.setRaftCommitIndex(last[1])
        return became if became != "whole" else "", last is not None

    def _progressed(self, source: str, frame: Frame, progress: Progress) -> Taken:
        replica = self._replica
        if not replica.is_leader or frame.term != replica.term:
            return "stale_progress", False
        if not 1 <= progress.next <= replica.journal.last + 1:
            return "beyond_the_log", False
        node = replica.nodes[source]
        reach, match = replica._SyncObj__raftNextIndex, replica._SyncObj__raftMatchIndex
        now = library.monotonicTime()
        back = max(2, progress.next)
        missed = (
            progress.reset
            and back < reach[node]
            and replica.peers[source].goes_back(back, now, replica.timing.heartbeat)
        )
        if missed:
            # Not to be waited for until the next sign of life.
            replica._SyncObj__newAppendEntriesTime = 0.0
            reach[node] = back
        if progress.matches:
            reach[node] = max(reach[node], progress.next)
        if frame.say is not Say.BLANK:
            replica._SyncObj__lastResponseTime[node] = now
            if progress.matches:
                match[node] = max(match[node], progress.next - 1)
        return "", missed or match[node] > replica.commit_index

    def _proposed(self, source: str, propose: Propose, cause: Any) -> Taken:
        replica = self._replica
        if not replica.is_leader:
            return "not_leader", False
        try:
            command = commands.decode(propose.command)
        except commands.CommandError:
            return "command", False
        # Nobody asks for another, and only the leader says what its clock says.
        if isinstance(command, Lead | Admit | Expire) or command.request.owner != source:
            return "not_yours", False
        replica.submit(propose.command, cause)
        return "", True
