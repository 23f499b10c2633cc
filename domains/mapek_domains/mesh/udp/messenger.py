"""A mesh as a `Messenger`: what both engines' sessions offer to other domains.

Whatever carries the messages of a node, its `MessagePlane` numbers, traces, counts and delivers them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Protocol, TypeVar

from opentelemetry import trace

from mapek_domains.mesh.engine import MeshEngine
from mapek_domains.mesh.session import MeshSession
from mapek_runtime.loop.domain import DomainContext

from .messages import MessagePlane, Subscription
from .wire import MAX_PAYLOAD, Data

__all__ = ["MessengerSession"]

_LONGEST_TOPIC = 64


class _Carries(MeshEngine, Protocol):
    """A node that has messages, and can be down."""

    messages: MessagePlane

    @property
    def running(self) -> bool:
        """Whether it runs."""


E = TypeVar("E", bound=_Carries)


class MessengerSession(MeshSession[E], ABC):
    """The nodes of this process; also a `Messenger`, and told of crashes (`FollowsNodes`).

    A node that is down sends nothing and hears nothing, and what had come for it is gone with it. Who
    has subscribed stays subscribed over its restart.
    """

    most = MAX_PAYLOAD

    def __init__(self, context: DomainContext) -> None:
        super().__init__(context)
        self._inboxes: dict[str, list[_Inbox]] = {}

    async def send(self, source: str, destination: str, topic: str, payload: bytes) -> None:
        """Send one message; delivery is not promised, nor order, nor that it comes once.

        Its way is traced where a span is current. Never waits. Raises ValueError for a payload of more
        than `most` bytes and a topic that is not of 1 to 64 characters, and `EngineUnavailable` for a
        source that does not run in this process.
        """
        node = self._node(source)
        if not 0 < len(topic) <= _LONGEST_TOPIC:
            raise ValueError(f"a message on {topic!r}; a topic has 1 to {_LONGEST_TOPIC} characters")
        if not node.running:
            node.messages.counts["dropped.not_running"] += 1
            return
        traced = trace.get_current_span().get_span_context().is_valid
        node.messages.send(destination, topic, payload, traced=traced)

    @abstractmethod
    def reachable(self, node_id: str) -> Sequence[str]:
        """The other nodes to which `node_id` knows a way now; none while it is down."""

    @asynccontextmanager
    async def subscribe(self, node_id: str, topic: str) -> AsyncIterator[AsyncIterator[tuple[str, bytes]]]:
        """(source, payload) of each message for `node_id` on `topic`, in the sender's trace context.

        Of more than 1024 that wait the oldest go, and are counted. Raises `EngineUnavailable` for a node
        that does not run in this process.
        """
        messages = self._node(node_id).messages
        inbox = _Inbox(messages.counts)
        inboxes = self._inboxes.setdefault(node_id, [])
        inboxes.append(inbox)
        try:
            with messages.receiving(topic, inbox.put):
                yield inbox
        finally:
            inboxes.remove(inbox)
            inbox.close()

    # FollowsNodes

    def crashed(self, node_id: str) -> None:
        """What had come for the node, and nobody had worked on yet, is gone."""
        for inbox in self._inboxes.get(node_id, ()):
            inbox.forget()

    def restarted(self, node_id: str) -> None:
        """The node is back; its subscribers hear it again by themselves."""


class _Inbox(Subscription):
    """A subscription that counts what it loses where the node counts."""

    def __init__(self, counts: Counter[str]) -> None:
        super().__init__()
        self._counts = counts

    def put(self, frame: Data) -> None:
        """A message came."""
        before = self.dropped
        super().put(frame)
        if self.dropped > before:
            self._counts["dropped.slow_receiver"] += 1

    def forget(self) -> None:
        """The node has crashed."""
        if self._waiting:
            self._counts["dropped.crashed"] += len(self._waiting)
            self._waiting.clear()
