"""One node of a group while it lives: its tasks, its messages, and the spans of what it does.

Nothing is told to anybody before the journal that it rests on was written: whatever a tick or a frame has
brought about waits in the replica's lists, the journal is written in a thread, and only then are frames sent
and questions answered. So a node that is gone at any moment has promised nothing that it does not remember.
What promises nothing is sent meanwhile, so that a slow disk alone deposes no leader.

Signs of life cost no span. A frame with entries is a `raft.log_replicate` in the trace of whoever asked for
the first of them, linked to the others'; what becomes final is a `raft.commit` in the trace of whoever asked
for it, and the others are told inside it. An election is a trace of its own.
"""

from __future__ import annotations

import asyncio
import contextvars
import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context.context import Context

from mapek_domains.raft import spans
from mapek_domains.raft.commands import Claim, Command, Expire, Release, Request
from mapek_domains.raft.commands import encode as encode_command
from mapek_domains.raft.decisions import Answer
from mapek_domains.raft.session import Standing
from mapek_runtime.errors import EngineUnavailable, NoConsensus
from mapek_runtime.loop.domain import Messenger

from .journal import JournalFile, until_done
from .lease import Leases
from .outlet import Outgoing
from .replica import Applied, Change, Committed, Replica
from .wire import Append, Ask, FrameError, Propose, decode, promises_nothing

__all__ = ["TOPIC", "Member"]

TOPIC = "raft"
_ASK_AGAIN = 0.15
_SHORTEST = 0.001


@dataclass(slots=True)
class _Question:
    """What was asked here and is not answered yet; `asked`: whom, in which term, and when."""

    command: bytes
    answer: asyncio.Future[Answer]
    cause: Context | None
    asked: tuple[str | None, int] = (None, -1)
    at: float = 0.0


class Member:
    """One life of one node. `tell(change, fields)` hears of elections won and leaderships lost."""

    def __init__(
        self,
        replica: Replica,
        file: JournalFile,
        messenger: Messenger | None,
        tell: Callable[[str, Mapping[str, object]], None],
    ) -> None:
        self.node_id = replica.node_id
        self.replica = replica
        self.counts: Counter[str] = Counter()
        self._file = file
        self._messenger = messenger
        self._tell = tell
        self._clock = asyncio.get_running_loop().time
        self._wake = asyncio.Event()
        self._busy = False
        self._writing: asyncio.Future[None] | None = None
        self._leases = Leases()
        self._session = secrets.randbits(62)
        self._number = 0
        self._questions: dict[int, _Question] = {}
        self._campaign: tuple[int, asyncio.Future[bool]] | None = None

    # What is asked of it

    async def ask(self, make: Callable[[Request], Command]) -> Answer:
        """Put a command before the group, again and again, until its answer is known here.

        Raises `NoConsensus` when the node goes down meanwhile.
        """
        self._number += 1
        number = self._number
        request = Request(self.node_id, self._session, number, min(self._questions, default=number))
        question = _Question(
            encode_command(make(request)), asyncio.get_running_loop().create_future(), _traced()
        )
        self._questions[number] = question
        self._wake.set()
        try:
            return await question.answer
        finally:
            del self._questions[number]

    def standing(self) -> Standing:
        """Where it stands."""
        replica = self.replica
        return Standing(
            leader=replica.leader,
            term=replica.term,
            commit_index=replica.commit_index,
            votes=replica.journal.votes,
        )

    # Its life

    async def run(self) -> None:
        """Live until cancelled; raises what it cannot go on from."""
        try:
            async with asyncio.TaskGroup() as group:
                if self._messenger is not None:
                    group.create_task(self._listen(self._messenger), name=f"raft {self.node_id} hears")
                await self._drive(group)
        finally:
            self.silence()
            if self._writing is not None:
                # The file is the thread's own until it is done.
                await until_done(self._writing)
            self._file.close()

    def silence(self) -> None:
        """The node is gone: nobody waits for it any more, and nothing is sent."""
        self._messenger = None
        for question in self._questions.values():
            if not question.answer.done():
                question.answer.set_exception(NoConsensus(f"{self.node_id!r} went down while it was asked"))
        self._end_campaign(won=False)

    async def _drive(self, group: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            due = self._tick()
            self._busy = True
            await self._settle(group)
            self._busy = False
            if not self._wake.is_set():
                timer = loop.call_later(max(due, _SHORTEST), self._wake.set)
                await self._wake.wait()
                timer.cancel()

    async def _listen(self, messenger: Messenger) -> None:
        async with messenger.subscribe(self.node_id, TOPIC) as messages:
            async for source, message in messages:
                try:
                    frame = decode(message)
                except FrameError as error:
                    self.counts[f"refused.{error.reason}"] += 1
                    continue
                cause = _traced()
                refused, urgent = self.replica.receive(source, frame, cause)
                self.counts[f"refused.{refused}" if refused else "received"] += 1
                if self._busy:
                    await self._post_what_promises_nothing()
                elif urgent or self.replica.journal.pending or (self.replica.outbox and cause is not None):
                    self._wake.set()
                else:
                    # An answer that rests on nothing new goes at once.
                    outgoing, self.replica.outbox = self.replica.outbox, []
                    for each in outgoing:
                        await self._post(each)
                if urgent:
                    self._wake.set()

    # A step

    def _tick(self) -> float:
        """Let the replica do what is due, and say what the clock says; seconds until the next."""
        replica, now = self.replica, self._clock()
        if replica.is_leader:
            for key, fence in self._leases.over(replica.decisions.claims, now):
                replica.submit(encode_command(Expire(key, fence)))
        leader = replica.leader, replica.term
        for question in self._questions.values():
            if leader[0] is None or (question.asked == leader and now - question.at < _ASK_AGAIN):
                continue
            question.asked, question.at = leader, now
            if leader[0] == self.node_id:
                replica.submit(question.command, question.cause)
            else:
                causes = () if question.cause is None else (question.cause,)
                replica.send(leader[0], Propose(question.command), causes)
        due = replica.tick()
        return min(due, _ASK_AGAIN) if self._questions else due

    async def _settle(self, group: asyncio.TaskGroup) -> None:
        """Write what is new, then say what follows from it."""
        replica = self.replica
        while True:
            changes, replica.changes = replica.changes, []
            applied, replica.applied = replica.applied, []
            commits, replica.commits = replica.commits, []
            outgoing, replica.outbox = replica.outbox, []
            self._count_leases(changes, applied)
            if replica.journal.pending:
                await self._write()
            elif not (changes or applied or commits or outgoing):
                return
            requests = [each for each in outgoing if isinstance(each.body, Ask) and not each.body.straw]
            for change in changes:
                self._changed(group, change, [each for each in requests if each.term == change.term])
            await self._say([each for each in outgoing if each not in requests], commits)
            for each in applied:
                self._answer(each)
            self._look_at_campaign()

    async def _write(self) -> None:
        batch = self.replica.journal.take()
        loop = asyncio.get_running_loop()
        self.counts["written_bytes"] += len(batch[1])
        self._writing = loop.run_in_executor(None, self._file.write, [batch])
        while not self._writing.done():
            await asyncio.wait([self._writing], timeout=self.replica.timing.heartbeat)
            if not self._writing.done() and self.replica.is_leader:
                self.replica.pulse()
                await self._post_what_promises_nothing()
        self._writing.result()

    async def _post_what_promises_nothing(self) -> None:
        outgoing, self.replica.outbox = self.replica.outbox, []
        for each in outgoing:
            if not promises_nothing(each.body):
                self.replica.outbox.append(each)
        with _within(Context()):
            for each in outgoing:
                if promises_nothing(each.body):
                    await self._post(each)

    async def _say(self, outgoing: list[Outgoing], commits: list[Committed]) -> None:
        notices = []
        for each in outgoing:
            if each.notice:
                notices.append(each)
            elif isinstance(each.body, Append) and each.body.entries:
                first, *others = each.causes or (Context(),)
                scope = spans.log_replication(each.to, len(each.body.entries)).under(first)
                with scope.linked(*(trace.get_current_span(other).get_span_context() for other in others)):
                    await self._post(each)
            else:
                with _within(each.causes[0] if each.causes else None):
                    await self._post(each)
        for place, committed in enumerate(commits):
            with spans.commit_entries(committed.entries, committed.index).under(committed.cause):
                if place == 0:
                    for each in notices:
                        await self._post(each)

    async def _post(self, each: Outgoing) -> None:
        messenger = self._messenger
        if messenger is None:
            return
        message = self.replica.message(each)
        self.counts["sent"] += 1
        self.counts["sent_bytes"] += len(message)
        try:
            await messenger.send(self.node_id, each.to, TOPIC, message)
        except EngineUnavailable:
            # The links went before this node was told to; it is lost like any other message.
            self.counts["unsent"] += 1

    # What came of it

    def _count_leases(self, changes: list[Change], applied: list[Applied]) -> None:
        now, claims = self._clock(), self.replica.decisions.claims
        for each in applied:
            if isinstance(each.command, Claim | Release | Expire):
                key = each.command.key
                held = claims.get(key)
                if held is None:
                    self._leases.gone(key)
                elif held.fence == each.index:
                    self._leases.granted(key, held, now)
        if any(change.what == "won" for change in changes):
            self._leases.begin(claims, now)

    def _changed(self, group: asyncio.TaskGroup, change: Change, requests: list[Outgoing]) -> None:
        self._end_campaign(won=change.what == "won")
        match change.what:
            case "stood":
                outcome = asyncio.get_running_loop().create_future()
                self._campaign = change.term, outcome
                group.create_task(
                    self._stand(change.term, requests, outcome),
                    name=f"raft {self.node_id} stands in term {change.term}",
                    context=contextvars.Context(),
                )
            case "won":
                self._tell("leader.elected", {"node": self.node_id, "term": change.term})
            case "lost":
                self._tell("leader.lost", {"node": self.node_id, "term": change.term})

    async def _stand(self, term: int, requests: list[Outgoing], outcome: asyncio.Future[bool]) -> None:
        with spans.leader_election(term, self.node_id) as span:
            self.replica.election = term, _traced()
            for each in requests:
                await self._post(each)
            span.set_attribute("won", await outcome)

    def _look_at_campaign(self) -> None:
        replica = self.replica
        if self._campaign is not None and not (replica.is_candidate and replica.term == self._campaign[0]):
            self._end_campaign(won=False)

    def _end_campaign(self, *, won: bool) -> None:
        campaign, self._campaign = self._campaign, None
        if campaign is not None and not campaign[1].done():
            campaign[1].set_result(won)

    def _answer(self, each: Applied) -> None:
        command = each.command
        request = getattr(command, "request", None)
        if each.answer is None or request is None or request.owner != self.node_id:
            return
        question = self._questions.get(request.number) if request.session == self._session else None
        if question is not None and not question.answer.done():
            question.answer.set_result(each.answer)


def _traced() -> Context | None:
    """The current context where it has a span, so that what follows can be part of its trace."""
    if not trace.get_current_span().get_span_context().is_valid:
        return None
    return otel_context.get_current()


@contextmanager
def _within(cause: Context | None) -> Iterator[None]:
    if cause is None:
        yield
        return
    token = otel_context.attach(cause)
    try:
        yield
    finally:
        otel_context.detach(token)
