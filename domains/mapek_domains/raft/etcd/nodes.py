"""The nodes of this process, each with a life of its own in etcd: the engine behind the session.

A node that crashes leaves no farewell: what it led, managed and claimed ends with its leases. Where the
process ends in an orderly way, the leases of its nodes are revoked, and others go on at once.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

from mapek_domains.raft.session import Standing
from mapek_runtime.errors import EngineUnavailable, NoConsensus
from mapek_runtime.loop.domain import Grant

from .claims import Claims, Leftovers
from .configuration import Configuration
from .election import Election
from .fleet import Fleet, digest
from .presence import Life
from .settings import EtcdEngine
from .store import CallFailed, LeaseGone, Store
from .values import Keys
from .view import View

__all__ = ["EtcdNodes"]

logger = logging.getLogger(__name__)

_PAUSE = 0.5
"""Seconds before a life that etcd refuses is begun again."""
_FAREWELL = 1.0
"""Seconds in which the nodes take their leave."""


class EtcdNodes:
    """Implements `Engine` over a cluster, or whatever else is a `Store`.

    `trouble` says in words why the cluster does not answer.
    """

    def __init__(
        self, nodes: Iterable[str], settings: EtcdEngine, store: Store, *, trouble: Callable[[], str] = str
    ) -> None:
        self._settings = settings
        self._store = store
        self._trouble = trouble
        self._keys = Keys(settings.prefix)
        self.view = View(store, self._keys)
        self._leftovers = Leftovers(store)
        self._claims = Claims(store, self.view, self._keys, self._leftovers)
        self._configuration = Configuration(store, self.view, self._keys)
        self._counts = {node_id: Counter[str]() for node_id in nodes}
        self._nodes: dict[str, _Node] = {}
        """Those that have not crashed."""
        self._group: asyncio.TaskGroup | None = None
        self._tasks: list[asyncio.Task[None]] = []

    # Their tasks

    async def start(self, group: asyncio.TaskGroup) -> None:
        """Begin; raises `EngineUnavailable` where it cannot be read what etcd has."""
        self._group = group
        empty = contextvars.Context()
        self._tasks.append(group.create_task(self.view.follow(), name="etcd view", context=empty))
        self._tasks.append(group.create_task(self._leftovers.run(), name="etcd leftovers", context=empty))
        try:
            async with asyncio.timeout(self._settings.dial):
                await self.view.until(lambda: self.view.revision > 0)
        except TimeoutError:
            raise EngineUnavailable(
                f"raft: engine 'etcd': what is under {self._keys.all} could not be read within "
                f"{self._settings.dial:g} s: {self._trouble()}"
            ) from None
        for node_id in self._counts:
            self._begin(node_id)

    async def stop(self) -> None:
        """Take leave, and end all tasks."""
        lives = [node.life for node in self._nodes.values()]
        for node in self._nodes.values():
            node.task.cancel()
        with suppress(TimeoutError, EngineUnavailable):
            async with asyncio.timeout(_FAREWELL):
                for life in lives:
                    await self._store.revoke(life.lease)
        for task in self._tasks:
            task.cancel()

    def crashed(self, node_id: str) -> None:
        """See `Engine`."""
        node = self._nodes.pop(node_id, None)
        if node is not None:
            node.task.cancel()
            self.view.touch()

    def restarted(self, node_id: str) -> None:
        """See `Engine`."""
        if node_id in self._counts and node_id not in self._nodes:
            self._begin(node_id)

    def _begin(self, node_id: str) -> None:
        assert self._group is not None, "start() first"
        node = self._nodes[node_id] = _Node(self, node_id)
        node.task = self._group.create_task(node.run(), name=f"etcd {node_id}", context=contextvars.Context())

    # Engine

    def standing(self, node_id: str) -> Standing:
        """See `Engine`. Nobody leads, as far as is known, when etcd has been silent for a lease."""
        if node_id not in self._nodes:
            return Standing()
        return Standing(leader=self._leader(), term=self.view.term, commit_index=self.view.revision)

    async def claim(self, node_id: str, key: str, *, hold: float, leader_only: bool) -> Grant:
        """See `Engine`.

        etcd counts whole seconds, and has a shortest lease: others may get the key that much later than in
        `hold` seconds, and never sooner.
        """
        life = self._alive(node_id).life
        return await self._claims.claim(
            node_id, key, hold=hold, instance=life.instance if leader_only else None
        )

    async def release(self, node_id: str, key: str, *, fence: int) -> None:
        """See `Engine`."""
        self._alive(node_id)
        await self._claims.release(node_id, key, fence=fence)

    def claims(self, node_id: str) -> Mapping[str, str]:
        """See `Engine`."""
        return self._claims.held() if node_id in self._nodes else {}

    async def configure(self, node_id: str, name: str, value: str, *, expected: int | None) -> int:
        """See `Engine`."""
        self._alive(node_id)
        return await self._configuration.configure(name, value, expected=expected)

    def configured(self, node_id: str, name: str) -> tuple[str, int]:
        """See `Engine`."""
        return self._configuration.known(name) if node_id in self._nodes else ("", 0)

    def trouble(self, node_id: str) -> str:
        """See `Engine`."""
        if node_id not in self._nodes:
            return f"{node_id} has crashed"
        return f"no majority of the etcd servers answers ({self._trouble() or 'nothing was heard'})"

    def statistics(self, node_id: str) -> Mapping[str, int]:
        """See `Engine`: elections won and lost, targets taken and given back, values refused, breaks."""
        refused = {f"refused.{reason}": count for reason, count in self.view.refused.items()}
        return {**self._counts[node_id], **refused, "breaks": self.view.breaks}

    # The fleet

    def owned(self, node_id: str) -> frozenset[str]:
        """The targets that the node manages now."""
        node = self._nodes.get(node_id)
        return frozenset() if node is None else node.fleet.owned()

    # Inside

    def _leader(self) -> str | None:
        leader = self.view.leader
        if leader is None or self.view.silence() > self._settings.lease:
            return None
        tenure = leader.value
        if tenure.node in self._counts:
            here = self._nodes.get(tenure.node)
            if here is None or here.life.instance != tenure.instance or not here.life.lasts:
                # It led in a life that is over, and only etcd does not know that yet.
                return None
        return tenure.node

    def _alive(self, node_id: str) -> _Node:
        node = self._nodes.get(node_id)
        if node is None:
            raise NoConsensus(f"node {node_id!r} has crashed, and asks for nothing")
        return node


class _Node:
    """One node from a start to a crash. In between it may live more than once: when etcd gave it up."""

    task: asyncio.Task[None]

    def __init__(self, nodes: EtcdNodes, node_id: str) -> None:
        self._node_id = node_id
        self._store, self._view, self._keys = nodes._store, nodes.view, nodes._keys
        self._leftovers = nodes._leftovers
        self._settings = nodes._settings
        self._counts = nodes._counts[node_id]
        self._live()

    def _live(self) -> None:
        store, view, keys, settings = self._store, self._view, self._keys, self._settings
        self.life = Life(
            self._node_id, store, view, keys, seconds=settings.lease, fleet=digest(settings.fleet)
        )
        self._election = Election(self.life, store, view, keys, self._counts)
        self.fleet = Fleet(self.life, store, view, keys, settings.fleet, self._counts)

    async def run(self) -> None:
        """Live, and live again, until cancelled."""
        told = False
        while True:
            self._counts["lives"] += 1
            try:
                await self.life.begin()
                async with asyncio.TaskGroup() as group:
                    group.create_task(self.life.keep())
                    group.create_task(self.life.tell_of_others())
                    await self.life.take_name()
                    group.create_task(self._election.run())
                    if self._settings.fleet:
                        group.create_task(self.fleet.run())
            except* LeaseGone:
                logger.info("raft: etcd has given %s up, which begins anew", self._node_id)
            except* (EngineUnavailable, CallFailed) as refused:
                if not told:
                    told = True
                    logger.warning("raft: %s cannot take part: %s", self._node_id, refused.exceptions[0])
                self._leftovers.add(self.life.lease)
                await asyncio.sleep(_PAUSE)
            self._live()
            self._view.touch()
