"""One member's copy of the log: PySyncObj elects and replicates, and what it takes for granted is seen to.

PySyncObj was made for connections that keep order and lose nothing, and it trusts what comes over them. Here
come datagrams: `intake` looks at every frame before the library sees it, and `candidacy` says when this node
stands for election. What stays here is the library itself, and what it does otherwise than it was written:

* Its journal, its snapshots, its transport and its way to take commands are ours; no pickle is left.
* An acknowledgement says up to where the log was compared with the leader's, not how long it is.
* A leader's first entry but one says that it leads, so no decision of its term stands before that.

Nothing here waits, and nothing is sent: `outbox` holds what is to be sent once the journal is written, and
`applied`, `commits` and `changes` what came of it. Names that begin with `_SyncObj__` are the library's
private ones, for which its version is pinned.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Literal

from pysyncobj import syncobj as library
from pysyncobj.node import Node

from mapek_domains.raft import commands
from mapek_domains.raft.commands import Admit, Command, Lead
from mapek_domains.raft.decisions import Answer, Decisions

from .candidacy import Candidacy, Timing
from .intake import Intake
from .journal import Journal
from .outlet import Outgoing, Outlet
from .peers import Peer
from .snapshots import Snapshots
from .wire import REGULAR, Append, Body, Frame, Hello, Progress, Say, encode, group_of

__all__ = ["Applied", "Change", "Committed", "Replica"]

_LEADER = library._RAFT_STATE.LEADER
_CANDIDATE = library._RAFT_STATE.CANDIDATE
_FOLLOWER = library._RAFT_STATE.FOLLOWER
_KEEP_ENTRIES = 512
_KEEP_TIME = 300
_QUEUE = 4096
_AHEAD = 8192


@dataclass(frozen=True, slots=True)
class Applied:
    """An entry that took effect here; `answer` is for whoever asked."""

    index: int
    term: int
    command: Command
    answer: Answer | None


@dataclass(frozen=True, slots=True)
class Committed:
    """The leader found that `entries` of one cause became final, as all did up to `index`."""

    cause: Any
    entries: int
    index: int


@dataclass(frozen=True, slots=True)
class Change:
    """It stood for election in `term`, won it, or leads no more."""

    what: Literal["stood", "won", "lost"]
    term: int


class Replica(library.SyncObj):  # type: ignore[misc]
    """One member's copy. A `cause` is whatever a command is to be followed by: here it is only carried."""

    def __init__(
        self, node_id: str, members: Sequence[str], journal: Journal, timing: Timing, rng: Random
    ) -> None:
        self.node_id = node_id
        self.journal = journal
        self.decisions = Decisions()
        self.outbox: list[Outgoing] = []
        self.applied: list[Applied] = []
        self.commits: list[Committed] = []
        self.changes: list[Change] = []
        self.causes: dict[int, Any] = {}
        self.election: tuple[int, Any] = (0, None)
        """A term it stood in, and the cause of what winning it puts into the log."""
        self.group = group_of(members)
        self.majority = len(members) // 2 + 1
        self.nodes = {name: Node(name) for name in members if name != node_id}
        self.peers = {name: Peer(name) for name in self.nodes}
        self.outlet = Outlet(self)
        self.candidacy = Candidacy(self, timing, rng)
        self._intake = Intake(self)
        self.timing = timing
        self._queue: deque[tuple[bytes, Any]] = deque(maxlen=_QUEUE)
        self._becoming = False
        self._led = 0
        self._told = 0
        conf = library.SyncObjConf(
            autoTick=False,
            commandsWaitLeader=False,
            dynamicMembershipChange=False,
            appendEntriesPeriod=timing.heartbeat,
            appendEntriesUseBatch=True,
            appendEntriesBatchSizeBytes=2 * commands.MOST_COMMAND,
            raftMinTimeout=timing.least,
            raftMaxTimeout=timing.most,
            leaderFallbackTimeout=timing.most,
            connectionTimeout=2 * timing.most,
            logCompactionMinEntries=_KEEP_ENTRIES,
            logCompactionMinTime=_KEEP_TIME,
            useFork=False,
            onStateChanged=self._state_changed,
        )
        super().__init__(Node(node_id), list(self.nodes.values()), conf=conf, transport=self.outlet)
        self._restore()

    # What it knows

    @property
    def is_leader(self) -> bool:
        """Whether this node leads, as far as it knows."""
        return bool(self._SyncObj__raftState == _LEADER)

    @property
    def is_candidate(self) -> bool:
        """Whether it waits for votes."""
        return bool(self._SyncObj__raftState == _CANDIDATE)

    @property
    def leader(self) -> str | None:
        """Who leads and was heard of late."""
        if self.is_leader:
            return self.node_id
        leader: Any = self._SyncObj__raftLeader
        return str(leader.id) if leader is not None and self.candidacy.led_lately() else None

    @property
    def term(self) -> int:
        """The newest term it knows."""
        return int(self._SyncObj__raftCurrentTerm)

    @property
    def commit_index(self) -> int:
        """Up to there all is final."""
        return int(self._SyncObj__raftCommitIndex)

    @property
    def say(self) -> Say:
        """What it says of itself."""
        if not self.journal.votes:
            return Say.BLANK
        # An entry may be final without this node's knowledge.
        return Say.SETTLED if self.journal.last > 1 else Say.FOUNDING

    # What happens to it

    def submit(self, command: bytes, cause: Any = None) -> None:
        """Put a command into the log at the next tick, where it leads then; else nothing comes of it."""
        self._queue.append((command, cause))

    def receive(self, source: str, frame: Frame, cause: Any = None) -> tuple[str, bool]:
        """Take a frame; a word for the reason where it is refused, and whether to tick now."""
        return self._intake.receive(source, frame, cause)

    def tick(self) -> float:
        """Do what is due; seconds until something is due again."""
        self.candidacy.tick()
        self.doTick(0.0)
        if not self.peers and self.is_leader and self.commit_index < self.journal.last:
            # Alone it is a majority; the library looks whether there is one before it takes commands.
            self.doTick(0.0)
        self.outlet.notice = False
        due = self._SyncObj__newAppendEntriesTime if self.is_leader else self.candidacy.due()
        return max(0.0, float(due) - float(library.monotonicTime()))

    def send(self, to: str, body: Body, causes: tuple[Any, ...] = (), *, notice: bool = False) -> None:
        """Put a frame into the outbox, as of now: what it says of the term holds at this moment."""
        self.outbox.append(Outgoing(to, body, self.term, self.say, causes, notice))

    def greet(self, to: str) -> None:
        """Say who this node is to one that took it for another."""
        self.outbox.append(Outgoing(to, Hello(), self.term, self.say, to_any=True))

    def pulse(self) -> None:
        """Say that this node leads, and nothing else: what its journal does not hold yet is not told."""
        for name, node in self.nodes.items():
            if self.isNodeConnected(node):
                self.send(name, Append(0, 0, 0, []))

    def message(self, each: Outgoing) -> bytes:
        """The message of what is to be sent, which is the next to its receiver."""
        peer, birth = self.peers[each.to], self.journal.birth
        to = 0 if each.to_any else peer.identity
        frame = Frame(
            self.group, self.node_id, birth.identity, self.journal.life, peer.next_seq(), to,
            each.say, each.term, each.body,
        )  # fmt: skip
        return encode(frame)

    def hand_on(self, source: str, message: dict[str, Any]) -> None:
        """Let the library see a message."""
        self.outlet._onMessageReceived(self.nodes[source], message)

    def follow(self, term: int) -> None:
        """A later term was heard of: nobody is known to lead in it, and no vote is given yet."""
        self._SyncObj__setCurrentTerm(term, None)
        self._SyncObj__setState(_FOLLOWER)
        self._SyncObj__raftLeader = None

    # In place of what the library does

    def _restore(self) -> None:
        """Begin with what the journal holds; raises ValueError for one that nothing can go on from."""
        journal = self.journal
        self._SyncObj__raftLog = journal
        self._SyncObj__serializer = Snapshots(journal, self.decisions)
        self._poller = _NoPoller()
        self._SyncObj__raftLastApplied = self._SyncObj__serializer.load()
        self._SyncObj__raftCommitIndex = max(journal.getRaftCommitIndex(), self.raftLastApplied)
        if journal.first != 1 and journal.base is None:
            raise ValueError(f"the log begins with entry {journal.first}, and no snapshot holds those before")
        if journal.getCurrentTerm() < journal[-1][2]:
            raise ValueError("its last entry is of a term that the node has not reached")
        self._SyncObj__raftCurrentTerm = journal.getCurrentTerm()
        self._SyncObj__votedForNodeId = journal.getVotedForNodeId()

    def _SyncObj__setCurrentTerm(self, term: int, voted_for: str | None) -> None:  # noqa: N802 - theirs
        super()._SyncObj__setCurrentTerm(term, voted_for)
        if voted_for == self.node_id:
            self.candidacy.stood()
            self.changes.append(Change("stood", term))

    def _SyncObj__onBecomeLeader(self) -> None:  # noqa: N802 - the library's name
        self._told = self.journal.last
        self.causes.clear()
        term, cause = self.election
        if cause is not None and term == self.term:
            self.causes[self.journal.last + 1] = self.causes[self.journal.last + 2] = cause
        self._becoming = True
        super()._SyncObj__onBecomeLeader()
        self._becoming = False
        lead = REGULAR + commands.encode(Lead(self.node_id, self.term))
        self.journal.add(lead, self.journal.last + 1, self.term)
        self._SyncObj__sendAppendEntries()

    def _SyncObj__sendAppendEntries(self) -> None:  # noqa: N802 - the library's name
        if not self._becoming:
            super()._SyncObj__sendAppendEntries()

    def _SyncObj__sendNextNodeIdx(  # noqa: N802 - the library's name
        self,
        node: Any,
        reset: bool = False,
        nextNodeIdx: int | None = None,  # noqa: N803 - the library's name
        success: bool = False,
    ) -> None:
        following = self.journal.last + 1 if nextNodeIdx is None else nextNodeIdx
        if success and self._intake.verified is not None:
            following = min(following, self._intake.verified + 1)
        elif reset and nextNodeIdx is not None:
            # Where terms differ all that is not final is in doubt: back there at once, not step by step.
            following = self.commit_index + 1
        self.send(node.id, Progress(following, matches=success, reset=reset))

    def _checkCommandsToApply(self) -> None:  # noqa: N802 - the library's name
        if not self._queue:
            return
        waiting, self._queue = self._queue, deque(maxlen=_QUEUE)
        if not self.is_leader or self.journal.last - self.commit_index > _AHEAD:
            return
        for command, cause in waiting:
            index = self.journal.last + 1
            self.journal.add(REGULAR + command, index, self.term)
            if cause is not None:
                self.causes[index] = cause
        self._SyncObj__sendAppendEntries()

    def _SyncObj__applyLogEntries(self) -> bool:  # noqa: N802 - the library's name
        final, applied = self.commit_index, self.raftLastApplied
        if self.is_leader and final > self._told:
            counts: dict[int, tuple[Any, int]] = {}
            for index in range(self._told + 1, final + 1):
                cause = self.causes.pop(index, None)
                if cause is not None:
                    counts[id(cause)] = cause, counts.get(id(cause), (None, 0))[1] + 1
            self.commits += [Committed(cause, count, final) for cause, count in counts.values()]
            self.outlet.notice = bool(counts)
            self._told = final
        super()._SyncObj__applyLogEntries()
        # The others are told at once: whoever asked waits until it takes effect where it is.
        return bool(final > applied)

    def _SyncObj__doApplyCommand(self, command: bytes) -> None:  # noqa: N802 - the library's name
        if command[:1] != REGULAR:
            return
        index = self.raftLastApplied + 1
        term = self.journal.term_at(index)
        assert term is not None
        decided = commands.decode(command[1:])
        answer = self.decisions.apply(index, term, decided)
        if isinstance(decided, Admit):
            self.candidacy.admitted(decided)
        self.applied.append(Applied(index, term, decided, answer))

    def _state_changed(self, before: int, after: int) -> None:
        if after == _LEADER:
            self._led = self.term
            self.changes.append(Change("won", self.term))
        elif before == _LEADER:
            self.causes.clear()
            self.changes.append(Change("lost", self._led))


class _NoPoller:
    def poll(self, _timeout: float) -> None:
        """There is no socket to wait for."""
