"""Federated learning while it is open: the nodes of this process, and what they have learned."""

from __future__ import annotations

import asyncio
import contextvars
from collections import Counter
from collections.abc import Mapping, Sequence

from mapek_runtime.errors import ConfigError, EngineUnavailable
from mapek_runtime.loop.domain import DomainContext, Judgement, Normality

from .asking import RoundAsker
from .learner import Forgets, Learner
from .node import FlNode
from .settings import FlSettings
from .wire import FRESH, Model, arrays, encode

__all__ = ["FlSession"]


class FlSession:
    """The nodes of this process that learn; also a `Normality`, where its learner is one.

    Raises `ConfigError` where the learner's model is larger than what can be sent.
    """

    def __init__(self, context: DomainContext, settings: FlSettings, learner: Learner) -> None:
        try:
            encode(Model(FRESH, learner.kind, arrays(learner.initial())))
        except ValueError as error:
            raise ConfigError(f"[fl] the model of {learner.kind!r} cannot be sent: {error}") from None
        self.nodes: dict[str, FlNode] = {}
        """The nodes that run."""
        self._context = context
        self._settings = settings
        self._learner = learner
        self._normality = learner if isinstance(learner, Normality) else None
        self._counts: dict[str, Counter[str]] = {name: Counter() for name in context.nodes}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._turn = asyncio.Semaphore()
        self._group: asyncio.TaskGroup | None = None

    def plugins(self, node_id: str) -> Sequence[object]:
        """The phase plugin of one node."""
        node = self.nodes.get(node_id)
        if node is None:
            raise EngineUnavailable(
                f"node {node_id!r} does not learn here; here run {', '.join(sorted(self.nodes))}"
            )
        return (RoundAsker(node, self._settings.gap),)

    def counts(self, node_id: str) -> Mapping[str, int]:
        """What happened on a node of this process, over all its lives: rounds, and what was refused."""
        return dict(self._counts[node_id])

    # Normality

    def judge(self, node_id: str, kind: str, features: Sequence[float]) -> Judgement | None:
        """Judge a reading; None while there is no model for readings of that kind."""
        return None if self._normality is None else self._normality.judge(node_id, kind, features)

    def observe(self, node_id: str, kind: str, features: Sequence[float], *, normal: bool | None) -> None:
        """Take a reading to learn from; None where nobody knows whether it was normal."""
        if self._normality is not None:
            self._normality.observe(node_id, kind, features, normal=normal)

    # FollowsNodes

    def crashed(self, node_id: str) -> None:
        """The node is gone, and with it its data and its model; what is on disk stays."""
        self.nodes.pop(node_id, None)
        task = self._tasks.pop(node_id, None)
        if task is not None:
            task.cancel()
        if isinstance(self._learner, Forgets):
            self._learner.forget(node_id)

    def restarted(self, node_id: str) -> None:
        """The node is back: it begins with what it kept, and fetches the present model."""
        if self._group is not None and node_id in self._counts and node_id not in self.nodes:
            self._start(node_id, self._group)

    # Life

    def start(self, group: asyncio.TaskGroup) -> None:
        """Start the nodes, as tasks of `group`."""
        self._group = group
        for name in self._context.nodes:
            self._start(name, group)

    def stop(self) -> None:
        """End the tasks of all nodes."""
        self._group = None
        for task in self._tasks.values():
            task.cancel()

    def _start(self, node_id: str, group: asyncio.TaskGroup) -> None:
        node = FlNode(
            node_id,
            self._learner,
            self._settings,
            self._context,
            turn=self._turn,
            counts=self._counts[node_id],
        )
        self.nodes[node_id] = node
        # Born in an empty context, or its spans would be children of whatever is open here.
        self._tasks[node_id] = group.create_task(
            node.run(), name=f"fl {node_id}", context=contextvars.Context()
        )
