"""Shared knowledge while it is open: a replica for each node of this process, in each of its lives."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterable, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from functools import partial

from mapek_runtime import Cycle, Insight, Observation
from mapek_runtime.loop.domain import DomainContext, Messenger

from . import spans
from .gossip import Gossip
from .keep import Keep, path_of
from .replica import KNOWLEDGE, Replica
from .settings import CrdtSettings, limits_of

__all__ = ["CrdtSession", "KnowledgeSharer"]

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Life:
    """One life of a node."""

    replica: Replica
    gossip: Gossip | None = None
    tasks: list[asyncio.Task[None]] = field(default_factory=list)


class CrdtSession:
    """The replicas of this process; `start` it in a task group, and `aclose` it when the group is done."""

    def __init__(self, settings: CrdtSettings, context: DomainContext) -> None:
        self._settings = settings
        self._context = context
        self.address = ""
        """Where clients of Yjs' WebSocket protocol can connect; empty where it is not served."""
        self._group: asyncio.TaskGroup | None = None
        self._lives: dict[str, _Life] = {}
        folder = context.state
        self._keeps = {} if folder is None else {node: Keep(path_of(folder, node)) for node in context.nodes}

    # What the service asks for

    def plugins(self, node_id: str) -> Sequence[object]:
        """The phase plugins of one node."""
        return (KnowledgeSharer(self, node_id),)

    def crashed(self, node_id: str) -> None:
        """Forget what is in memory for the node, at once."""
        life = self._lives.pop(node_id, None)
        if life is None:
            return
        for task in life.tasks:
            task.cancel()
        life.replica.detach()
        for relay in tuple(life.replica.relays):
            relay.cut()
        if node_id in self._keeps:
            self._keeps[node_id].forget()

    def restarted(self, node_id: str) -> None:
        """Begin a new life of the node: from disk, and from the others."""
        self.crashed(node_id)
        self._begin(node_id)

    # What the plugins and tests ask for

    def replica(self, node_id: str) -> Replica | None:
        """The replica of a node, or of the first one under the name of the room; None while it is down."""
        if node_id == KNOWLEDGE and node_id not in self._lives:
            node_id = self._context.nodes[0]
        life = self._lives.get(node_id)
        return None if life is None else life.replica

    def gossip(self, node_id: str) -> Gossip | None:
        """The exchange of a node with the others over the mesh; None without a mesh."""
        life = self._lives.get(node_id)
        return None if life is None else life.gossip

    async def publish(self, node_id: str) -> int:
        """Commit what the node has learned and tell the others; returns how many were told."""
        life = self._lives.get(node_id)
        if life is None:
            return 0
        update = life.replica.collect()
        gossip = life.gossip
        waiting = gossip is not None and gossip.has_waiting
        others = 0 if gossip is None else len(gossip.reachable())
        listeners = [relay for relay in life.replica.relays if relay is not gossip]
        if not (others and (update or waiting)) and not (listeners and update):
            return 0
        with spans.crdt_broadcast(KNOWLEDGE) as span:
            told = sum(relay.relay(update, self) for relay in listeners) if update else 0
            if gossip is not None:
                told += await gossip.broadcast(update)
            span.set(peers=told)
        return told

    # Life

    def start(self, group: asyncio.TaskGroup) -> None:
        """Begin the life of every node, as tasks of `group`."""
        self._group = group
        for node_id in self._context.nodes:
            self._begin(node_id)
        if self._is_alone():
            logger.info(
                "knowledge is shared with nobody: no domain carries messages between nodes, and neither "
                "crdt.listen nor crdt.peers is set"
            )

    def stop(self) -> None:
        """End all tasks."""
        for life in self._lives.values():
            for task in life.tasks:
                task.cancel()

    async def aclose(self) -> None:
        """Write what is left to disk; after the tasks have ended."""
        for life in self._lives.values():
            life.replica.detach()
        for node_id, keep in self._keeps.items():
            if node_id in self._lives:
                await keep.finish(self._lives[node_id].replica.document.whole)
            else:
                keep.close()

    # Inside

    def _is_alone(self) -> bool:
        return not (self._settings.listen or self._settings.peers) and self._context.find(Messenger) is None

    def _begin(self, node_id: str) -> None:
        assert self._group is not None
        keep = self._keeps.get(node_id)
        replica = Replica(
            node_id,
            limits=limits_of(self._settings),
            keep=keep,
            is_alone=self._is_alone(),
            emit=self._context.emit,
            follow=partial(self._context.follow, node_id),
        )
        life = self._lives[node_id] = _Life(replica)
        rng = random.Random(self._context.rng.getrandbits(64))
        # Born in an empty context, or its spans would be children of whatever is open here.
        life.tasks.append(
            self._group.create_task(self._live(life, keep, rng), name=f"crdt {node_id}", context=Context())
        )

    async def _live(self, life: _Life, keep: Keep | None, rng: random.Random) -> None:
        replica = life.replica
        await replica.load()
        async with asyncio.TaskGroup() as group:
            if keep is not None:
                group.create_task(keep.run(replica.document.whole), name=f"crdt keep {replica.node_id}")
            messenger = self._context.find(Messenger)
            if messenger is not None:
                gossip = life.gossip = Gossip(replica, messenger, rng=rng, interval=self._settings.interval)
                replica.relays.append(gossip)
                replica.may_adopt = gossip.has_agreed_with_all
                group.create_task(gossip.listen(), name=f"crdt hear {replica.node_id}")
                group.create_task(gossip.compare(), name=f"crdt compare {replica.node_id}")
            if self._settings.peers:
                from .websocket import dial, quiet_context

                for url in self._settings.peers:
                    group.create_task(
                        dial(url, self._settings, replica, rng),
                        name=f"crdt dial {url}",
                        context=quiet_context(),
                    )


class KnowledgeSharer:
    """Shares what each cycle of a node has learned."""

    name = "crdt.share"

    def __init__(self, session: CrdtSession, node_id: str) -> None:
        self._session = session
        self._node_id = node_id

    async def monitor(self, cycle: Cycle) -> Iterable[Observation]:
        """How much is shared, and with how many."""
        replica = self._session.replica(self._node_id)
        if replica is None:
            return ()
        replica.attach(cycle.knowledge)
        gossip = self._session.gossip(self._node_id)
        others = len(gossip.reachable()) if gossip is not None else 0
        sockets = sum(relay is not gossip for relay in replica.relays)
        incidents = replica.document.view.sizes["incidents"]
        mine = self._node_id
        return (
            Observation(name="crdt.incidents", value=incidents, unit="{incident}", target=mine),
            Observation(name="crdt.replicas", value=1 + others + sockets, unit="{replica}", target=mine),
        )

    async def learn(self, cycle: Cycle) -> Iterable[Insight]:
        """Commit what was learned since the last cycle, in one transaction, and tell the others."""
        await self._session.publish(self._node_id)
        return ()
