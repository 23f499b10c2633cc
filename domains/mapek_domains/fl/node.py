"""A node that learns with others: its model, and what comes for it."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import random
from collections import Counter
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from mapek_runtime.errors import MapekError
from mapek_runtime.loop.domain import Consensus, DomainContext, Messenger, Topology

from . import keep, spans
from .aggregate import refusal
from .client import Client
from .learner import Learner, Weights
from .post import Post
from .rounds import Coordinator
from .settings import FlSettings
from .wire import (
    FRESH,
    Arrays,
    Ask,
    Call,
    Declined,
    Download,
    Fetch,
    Message,
    Model,
    Ready,
    Upload,
    Version,
    WireError,
    arrays,
    weights_of,
)

__all__ = ["FlNode"]

logger = logging.getLogger(__name__)

_LEAP = 1_000_000
"""Rounds by which a model may be ahead of what a node has: whoever claims more would stop all learning."""
_MOST_FETCHING = 16
_FETCHES = (0.2, 0.5, 1.0, 2.0, 4.0)
"""Seconds that a node waits, when it starts, for each answer to its question for the present model."""


class FlNode:
    """One node of this process, for one life of it; run `run()` in a task of its own.

    `version` and `weights` are its model, which is only ever replaced by a newer one. `counts` is what
    happened, by reason, and may outlive it.
    """

    def __init__(
        self,
        node_id: str,
        learner: Learner,
        settings: FlSettings,
        context: DomainContext,
        *,
        turn: asyncio.Semaphore,
        counts: Counter[str],
    ) -> None:
        self.node_id = node_id
        self.kind = learner.kind
        self.version = FRESH
        self.weights = learner.initial()
        self.counts = counts
        self._learner = learner
        self._context = context
        self._state = None if context.state is None else keep.path_of(context.state, node_id)
        self._newer = asyncio.Event()
        self._unkept = asyncio.Event()
        self._fetching: set[str] = set()
        self._group: asyncio.TaskGroup | None = None
        self._consensus: Consensus | None = None
        self._post = Post(node_id, lambda: context.find(Messenger), counts)
        self._client = Client(self, self._post, learner, settings, turn=turn, counts=counts)
        self._coordinator = Coordinator(
            self,
            self._post,
            settings,
            rng=random.Random(context.rng.getrandbits(64)),
            counts=counts,
            emit=context.emit,
        )

    @property
    def loss(self) -> float | None:
        """The loss on the node's own samples after its last training; None before the first."""
        return self._client.loss

    def samples(self) -> int:
        """How many samples the node could train on now."""
        return self._learner.local(self.node_id)

    def coordinator(self) -> str:
        """The leader, where there is one that can be reached; else the first by name of who can be."""
        reachable = {self.node_id, *self._post.reachable()}
        if self._consensus is None:
            self._consensus = self._context.find(Consensus)
        try:
            leader = self._consensus.leader(self.node_id) if self._consensus is not None else None
        except MapekError:
            leader = None
        return leader if leader in reachable else min(reachable)

    def known(self) -> int:
        """How many nodes there are, whether they can be reached or not."""
        topology = self._context.find(Topology)
        names = () if topology is None else topology.alive()
        return len({self.node_id, *self._context.nodes, *names})

    def adopt(self, version: Version, weights: Weights) -> bool:
        """Take a model for the node's own; False where it is not newer."""
        if version <= self.version:
            return False
        self.version, self.weights = version, weights
        self._learner.adopt(self.node_id, weights, version.round)
        self._unkept.set()
        self._newer.set()
        return True

    def usable(self, version: Version, kind: str, model: Arrays) -> Weights:
        """The weights of a model that came; raises `WireError` where it is not for this node."""
        if kind != self.kind:
            raise WireError("kind")
        if version < self.version:
            raise WireError("older")
        if self.version != FRESH and version.round > self.version.round + _LEAP:
            raise WireError("leap")
        weights = weights_of(model)
        reason = refusal(weights, 1, like=self.weights)
        if reason is not None:
            raise WireError(reason)
        return weights

    async def until(self, version: Version, limit: float) -> None:
        """Wait until the node has that model or a newer one, for `limit` seconds at most."""
        try:
            async with asyncio.timeout(limit):
                while self.version < version:
                    self._newer.clear()
                    await self._newer.wait()
        except TimeoutError:
            self.counts["round.not_caught_up"] += 1

    async def ask(self, reason: str) -> None:
        """Ask the coordinator for a round, in the trace of the span that is current."""
        await self._post.send(self.coordinator(), Ask(reason[:200]))

    async def run(self) -> None:
        """Take part until cancelled. Run it in an empty context."""
        await self._begin_with_what_was_kept()
        async with asyncio.TaskGroup() as group:
            self._group = group
            self._spawn(self._post.listen(self._heard), "hears")
            self._spawn(self._coordinator.run(), "coordinates")
            self._spawn(self._catch_up(), "catches up")
            if self._state is not None:
                self._spawn(self._keep(self._state), "keeps")

    # Messages

    async def _heard(self, source: str, message: Message) -> None:
        match message:
            case Ask():
                self._coordinator.asked()
            case Call():
                if source != self.node_id:
                    self._coordinator.others_began()
                await self._client.called(source, message)
            case Ready() | Upload() | Declined():
                self._coordinator.answered(source, message)
            case Download():
                # A task, because more comes in while it trains; it inherits the context of the message.
                self._spawn(self._client.work(source, message), "trains", inherits=True)
            case Model():
                self._heard_model(message)
            case Fetch():
                if message.have < self.version and source not in self._fetching:
                    self._send_model_to(source)

    def _heard_model(self, message: Model) -> None:
        if message.version == self.version:
            # It was sent twice, or came with a round already.
            return
        weights = self.usable(message.version, message.kind, message.model)
        with spans.model_download(self.node_id, message.version.round):
            self.adopt(message.version, weights)

    def _send_model_to(self, destination: str) -> None:
        if len(self._fetching) >= _MOST_FETCHING:
            self.counts["fetch.busy"] += 1
            return
        self._fetching.add(destination)
        self._spawn(self._send_model(destination), "sends its model")

    async def _send_model(self, destination: str) -> None:
        try:
            await self._post.send(destination, Model(self.version, self.kind, arrays(self.weights)))
        finally:
            self._fetching.discard(destination)

    async def _catch_up(self) -> None:
        """Ask for the present model, until there is one: where it was lost, or is not what it was."""
        began_with = self.version
        for wait in _FETCHES:
            coordinator = self.coordinator()
            if coordinator != self.node_id:
                await self._post.send(coordinator, Fetch(self.version))
            await asyncio.sleep(wait)
            if self.version > began_with:
                return

    # Disk

    async def _begin_with_what_was_kept(self) -> None:
        if self._state is None:
            return
        try:
            kept = await asyncio.to_thread(
                keep.load, self._state, self.kind, self.weights, on_broken=self._set_aside
            )
        except OSError as error:
            self.counts["kept.unreadable"] += 1
            logger.warning("%s: its model cannot be read: %s", self.node_id, error)
            return
        if kept is not None:
            self.adopt(*kept)
            self._unkept.clear()

    def _set_aside(self, reason: str) -> None:
        self.counts[f"kept.{reason}"] += 1
        logger.warning("%s: its model in %s was set aside: %s", self.node_id, self._state, reason)

    async def _keep(self, path: Path) -> None:
        while True:
            await self._unkept.wait()
            self._unkept.clear()
            try:
                await asyncio.to_thread(keep.save, path, self.version, self.kind, self.weights)
            except OSError as error:
                self.counts["kept.not_written"] += 1
                logger.warning("%s: its model was not kept: %s", self.node_id, error)

    def _spawn(self, work: Coroutine[Any, Any, None], what: str, *, inherits: bool = False) -> None:
        assert self._group is not None
        context = None if inherits else contextvars.Context()
        self._group.create_task(work, name=f"fl {self.node_id} {what}", context=context)
