"""The embedded engine: the nodes of this process, each with its journal, and what is asked of them."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from shutil import rmtree
from tempfile import mkdtemp
from urllib.parse import quote

from mapek_domains.raft.commands import Claim, Configure, Release
from mapek_domains.raft.session import Standing
from mapek_domains.raft.settings import RaftSettings, check_timing
from mapek_runtime.errors import ConfigError, MapekError, NoConsensus
from mapek_runtime.loop.domain import DomainContext, Grant, Messenger

from .candidacy import Timing
from .journal import JournalFile, until_done
from .member import Member
from .replica import Replica
from .wire import MOST_FRAME, group_of

__all__ = ["EmbeddedEngine", "embedded"]

logger = logging.getLogger(__name__)


class EmbeddedEngine:
    """Consensus among `members`, of whom some live in this process; see `session.Engine`.

    `folder` keeps the journals, `durable` says whether they have to outlive the machine.
    """

    def __init__(
        self,
        settings: RaftSettings,
        context: DomainContext,
        members: Sequence[str],
        *,
        folder: Path,
        durable: bool,
    ) -> None:
        check_timing(settings)
        self._timing = Timing(settings.heartbeat, settings.election_least, settings.election_most)
        self._context = context
        self._members = tuple(members)
        self._messenger = _messenger(context, members)
        self._rng = {node: Random(context.rng.getrandbits(64)) for node in context.nodes}
        self._folder = folder
        self._durable = durable
        self._lives: dict[str, Member] = {}
        self._tasks: dict[str, list[asyncio.Task[None]]] = {}
        """Of each node: those of its lives that have not ended, the newest last."""
        self._failed: dict[str, str] = {}
        self._group: asyncio.TaskGroup | None = None
        self._born = asyncio.Event()

    # Engine

    def standing(self, node_id: str) -> Standing:
        """Where a node stands; everything unknown while it is down."""
        life = self._lives.get(node_id)
        return life.standing() if life is not None else Standing(votes=False)

    async def claim(self, node_id: str, key: str, *, hold: float, leader_only: bool) -> Grant:
        """As `Consensus.claim`."""
        until = asyncio.get_running_loop().time() + hold
        hold_us = max(1, int(hold * 1e6))
        life = await self._life(node_id)
        answer = await life.ask(lambda request: Claim(request, key, hold_us, leader_only))
        return Grant(
            key=key,
            granted=answer.done,
            owner=answer.owner,
            reason=answer.reason,
            fence=answer.fence if answer.done else 0,
            term=answer.term,
            until=until if answer.done else 0.0,
        )

    async def release(self, node_id: str, key: str, *, fence: int) -> None:
        """As `Consensus.release`."""
        life = await self._life(node_id)
        await life.ask(lambda request: Release(request, key, fence))

    def claims(self, node_id: str) -> Mapping[str, str]:
        """The claims in force as that node knows them, key → owner."""
        life = self._lives.get(node_id)
        if life is None:
            return {}
        return {key: held.owner for key, held in life.replica.decisions.claims.items()}

    async def configure(self, node_id: str, name: str, value: str, *, expected: int | None) -> int:
        """As `Consensus.configure`."""
        life = await self._life(node_id)
        answer = await life.ask(lambda request: Configure(request, name, value, expected))
        if not answer.done:
            raise MapekError(f"{name!r} was not set to {value!r}: {answer.reason}")
        return answer.epoch

    def configured(self, node_id: str, name: str) -> tuple[str, int]:
        """As `Consensus.configured`."""
        life = self._lives.get(node_id)
        return life.replica.decisions.configured(name) if life is not None else ("", 0)

    def trouble(self, node_id: str) -> str:
        """Why a node gets no answer now, in words."""
        life = self._lives.get(node_id)
        if life is None:
            return self._failed.get(node_id, f"{node_id} is down")
        replica = life.replica
        heard = replica.candidacy.heard()
        others = f"of the {len(replica.peers)} others it heard {', '.join(heard) or 'none'} lately"
        if not replica.journal.votes:
            return f"its journal is new, and it has no vote yet; {others}"
        if replica.leader is None:
            return f"nobody leads, as far as it knows; {others}"
        return f"{replica.leader} leads in term {replica.term} and has not said that it is final; {others}"

    def statistics(self, node_id: str) -> Mapping[str, int]:
        """Frames and bytes sent, bytes written, frames received, and frames refused by reason."""
        life = self._lives.get(node_id)
        return dict(life.counts) if life is not None else {}

    def crashed(self, node_id: str) -> None:
        """The node is gone at once: what its journal's file does not hold yet is lost."""
        life = self._lives.pop(node_id, None)
        if life is not None:
            life.silence()
        for task in self._tasks.get(node_id, ()):
            if not task.cancelling():
                task.cancel()

    def restarted(self, node_id: str) -> None:
        """The node is back, with its journal."""
        assert self._group is not None
        if node_id in self._lives:
            return
        # Not the last one alone: it may have ended while it waited for the one before it.
        before = [task for task in self._tasks.get(node_id, ()) if not task.done()]
        again = self._group.create_task(
            self._live_again(node_id, before), name=f"raft {node_id}", context=contextvars.Context()
        )
        self._tasks[node_id] = [*before, again]

    # Inside

    async def open(self) -> None:
        """Open every journal; raises `ConfigError` for one that cannot be gone on from."""
        for node in self._context.nodes:
            self._lives[node] = await self._begin(node)

    def start(self, group: asyncio.TaskGroup) -> None:
        """Start the nodes, as tasks of `group`."""
        self._group = group
        for node, life in self._lives.items():
            living = group.create_task(
                self._live(node, life), name=f"raft {node}", context=contextvars.Context()
            )
            self._tasks[node] = [living]

    def stop(self) -> None:
        """End the nodes."""
        for node in tuple(self._tasks):
            self.crashed(node)

    def replica(self, node_id: str) -> Replica | None:
        """The node's copy of the log, to look at; None while it is down."""
        life = self._lives.get(node_id)
        return life.replica if life is not None else None

    async def _life(self, node_id: str) -> Member:
        while node_id not in self._lives:
            if node_id in self._failed:
                raise NoConsensus(self._failed[node_id])
            self._born.clear()
            await self._born.wait()
        return self._lives[node_id]

    async def _begin(self, node_id: str) -> Member:
        group = group_of(self._members)
        path = self._folder / _file_name(node_id) / f"{group:08x}.journal"
        file = JournalFile(path, durable=self._durable)
        opening = asyncio.get_running_loop().run_in_executor(None, file.open, node_id, group)
        try:
            await asyncio.wait([opening])
        except asyncio.CancelledError:
            # What it opens must be closed.
            await until_done(opening)
            opening.exception()
            file.close()
            raise
        try:
            journal = opening.result()
            replica = Replica(node_id, self._members, journal, self._timing, self._rng[node_id])
        except OSError as error:
            file.close()
            raise ConfigError(
                f"the journal {path} cannot be used: {error.strerror or error}; without one {node_id!r} "
                "would forget its votes, so give a --state that can be written to"
            ) from None
        except ValueError as error:
            file.close()
            raise ConfigError(
                f"the journal {path} is damaged: {error}; move it away, and {node_id!r} comes back without a "
                "vote until the others let it in again"
            ) from None
        except ConfigError:
            file.close()
            raise
        return Member(replica, file, self._messenger, self._context.emit)

    async def _live_again(self, node_id: str, before: Sequence[asyncio.Task[None]]) -> None:
        if before:
            # A life that ends still has the file.
            await asyncio.wait(before)
        try:
            life = await self._begin(node_id)
        except ConfigError as error:
            self._fail(node_id, error)
            return
        self._failed.pop(node_id, None)
        self._lives[node_id] = life
        self._born.set()
        await self._live(node_id, life)

    async def _live(self, node_id: str, life: Member) -> None:
        try:
            await life.run()
        except ExceptionGroup as errors:
            # It may have forgotten something; the others go on without it.
            self._fail(node_id, errors)
            self._lives.pop(node_id, None)

    def _fail(self, node_id: str, error: Exception) -> None:
        causes = error.exceptions if isinstance(error, ExceptionGroup) else (error,)
        words = "; ".join(str(cause) or type(cause).__name__ for cause in causes)
        known = isinstance(error, ConfigError)
        logger.error("raft: %s takes no part any more: %s", node_id, words, exc_info=None if known else error)
        self._failed[node_id] = f"{node_id} takes no part any more: {words}"
        self._born.set()
        self._context.emit("raft.failed", {"node": node_id, "reason": words})


@asynccontextmanager
async def embedded(
    settings: RaftSettings, context: DomainContext, members: Sequence[str]
) -> AsyncIterator[EmbeddedEngine]:
    """The engine while it is open; raises `ConfigError` for settings and journals that cannot be."""
    failure: Exception | None = None
    async with _folder(context) as folder:
        engine = EmbeddedEngine(settings, context, members, folder=folder, durable=context.state is not None)
        await engine.open()
        async with asyncio.TaskGroup() as group:
            engine.start(group)
            try:
                yield engine
            except Exception as error:  # noqa: BLE001 - raised again below, and not as a group
                failure = error
            finally:
                engine.stop()
    if failure is not None:
        raise failure


@asynccontextmanager
async def _folder(context: DomainContext) -> AsyncIterator[Path]:
    """Where the journals are. Without a state to keep, for as long as the session: a node that crashes in a
    demonstration still has its disk."""
    if context.state is not None:
        yield context.state / "raft"
        return
    folder = await asyncio.to_thread(mkdtemp, prefix="mapek-raft-")
    try:
        yield Path(folder)
    finally:
        await asyncio.to_thread(rmtree, folder, ignore_errors=True)


def _file_name(node_id: str) -> str:
    """A name that is a node's as a name of a folder, wherever it points."""
    name = quote(node_id, safe="")
    return name if name.strip(".") else name.replace(".", "%2E")


def _messenger(context: DomainContext, members: Sequence[str]) -> Messenger | None:
    messenger = context.find(Messenger)
    if messenger is None and len(members) > 1:
        raise ConfigError(
            f"[raft] members are {', '.join(members)}, and there are no links to reach them over: raft needs "
            "the mesh's, so add mesh to the domains; or set [raft] engine to 'etcd'"
        )
    if messenger is not None and messenger.most < MOST_FRAME:
        raise ConfigError(
            f"[raft] a message may have {messenger.most} bytes on these links, and raft needs {MOST_FRAME}"
        )
    return messenger
