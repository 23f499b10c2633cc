"""The data plane of a node: messages go hop by hop, each hop a span of the same trace.

A message with a `traceparent` opens `mesh.message_forward` at every node that hands it on, under the
context it carries, and carries that span's context further: three hops are one trace over three
nodes. A message without one costs no span. Delivery is not promised: what cannot be handed on is
dropped and counted by reason.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from contextvars import Token

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context.context import Context

from mapek_domains.mesh import carried, spans

from .wire import MAX_PAYLOAD, MAX_TTL, Data

__all__ = ["MessagePlane", "Subscription"]

_QUEUE = 1024

Receiver = Callable[[Data], None]


class MessagePlane:
    """Sends, forwards and delivers the messages of one node.

    `next_hop(destination)` names the neighbour on the path, `transmit(peer, frame)` sends to it.
    """

    def __init__(
        self,
        node_id: str,
        *,
        next_hop: Callable[[str], str | None],
        transmit: Callable[[str, Data], None],
    ) -> None:
        self.node_id = node_id
        self.counts: Counter[str] = Counter()
        self._next_hop = next_hop
        self._transmit = transmit
        self._id = 0
        self._receivers: dict[str, list[Receiver]] = {}

    def begin(self, epoch: int) -> None:
        """A new life of the node: ids go on from another place. Receivers stay, as an address does."""
        self._id = epoch << 32

    def send(self, destination: str, topic: str, payload: bytes, *, traced: bool = True) -> int:
        """Send one message and return its id; raises ValueError when the payload is too long."""
        if len(payload) > MAX_PAYLOAD:
            raise ValueError(
                f"a message of {len(payload)} bytes on {topic!r}; a message holds at most {MAX_PAYLOAD}"
            )
        self._id += 1
        frame = Data(
            id=self._id,
            source=self.node_id,
            destination=destination,
            ttl=MAX_TTL,
            topic=topic,
            payload=payload,
        )
        self.counts["sent"] += 1
        if destination == self.node_id:
            self._deliver(_carrying(trace.get_current_span(), frame, frame.ttl) if traced else frame)
        elif traced:
            self._hand_on_traced(frame, frame.ttl, None)
        else:
            self._hand_on(frame)
        return frame.id

    def arrived(self, frame: Data) -> None:
        """A neighbour handed a message on to this node."""
        if frame.destination == self.node_id:
            self._deliver(frame)
        elif frame.ttl <= 1:
            self.counts["dropped.ttl"] += 1
        else:
            context = carried.read(frame.traceparent, frame.tracestate) if frame.traceparent else Context()
            # One that cannot be read would begin a trace of its own at every hop.
            if trace.get_current_span(context).get_span_context().is_valid:
                self._hand_on_traced(frame, frame.ttl - 1, context)
            else:
                self._hand_on(_with(frame, frame.ttl - 1, "", ""))

    @property
    def topics(self) -> frozenset[str]:
        """The topics that somebody here listens to."""
        return frozenset(topic for topic, receivers in self._receivers.items() if receivers)

    def receive(self, topic: str, receiver: Receiver) -> None:
        """Call `receiver` with each message on `topic`, at once and on the loop; it must not wait."""
        self._receivers.setdefault(topic, []).append(receiver)

    @contextmanager
    def receiving(self, topic: str, receiver: Receiver) -> Iterator[None]:
        """The same, while the block lasts."""
        self.receive(topic, receiver)
        try:
            yield
        finally:
            self._receivers[topic].remove(receiver)

    def _hand_on_traced(self, frame: Data, ttl: int, context: Context | None) -> None:
        scope = spans.message_forwarding(self.node_id, frame.destination, f"{frame.id:016x}")
        if context is not None:
            scope = scope.under(context)
        with scope as span:
            self._hand_on(_carrying(span, frame, ttl))

    def _hand_on(self, frame: Data) -> None:
        hop = self._next_hop(frame.destination)
        if hop is None:
            self.counts["dropped.no_route"] += 1
            return
        if frame.source != self.node_id:
            self.counts["forwarded"] += 1
        self._transmit(hop, frame)

    def _deliver(self, frame: Data) -> None:
        receivers = self._receivers.get(frame.topic)
        if not receivers:
            self.counts["dropped.no_receiver"] += 1
            return
        self.counts["delivered"] += 1
        for receiver in tuple(receivers):
            receiver(frame)


class Subscription(AsyncIterator[tuple[str, bytes]]):
    """The messages on one topic, as they come; a full queue drops the oldest.

    While the caller works on a message, the sender's trace context is current in its task.
    """

    def __init__(self) -> None:
        self._waiting: deque[Data] = deque(maxlen=_QUEUE)
        self._ready = asyncio.Event()
        self._attached: tuple[asyncio.Task[object] | None, Token[Context]] | None = None
        self.dropped = 0

    def put(self, frame: Data) -> None:
        """A message came."""
        self.dropped += len(self._waiting) == _QUEUE
        self._waiting.append(frame)
        self._ready.set()

    def close(self) -> None:
        """Give the task that listened its own context back."""
        attached, self._attached = self._attached, None
        # A token belongs to the task that attached; elsewhere there is nothing to give back.
        if attached is not None and attached[0] is asyncio.current_task():
            otel_context.detach(attached[1])

    async def __anext__(self) -> tuple[str, bytes]:
        self.close()
        while not self._waiting:
            self._ready.clear()
            await self._ready.wait()
        frame = self._waiting.popleft()
        if frame.traceparent:
            token = otel_context.attach(carried.read(frame.traceparent, frame.tracestate))
            self._attached = (asyncio.current_task(), token)
        return frame.source, frame.payload


def _carrying(span: trace.Span, frame: Data, ttl: int) -> Data:
    return _with(frame, ttl, *carried.write(span))


def _with(frame: Data, ttl: int, traceparent: str, tracestate: str) -> Data:
    return Data(
        id=frame.id,
        source=frame.source,
        destination=frame.destination,
        ttl=ttl,
        topic=frame.topic,
        payload=frame.payload,
        traceparent=traceparent,
        # A longer one may be cut off whole (W3C Trace Context, 3.3.1.5).
        tracestate=tracestate if len(tracestate) <= 512 else "",
    )
