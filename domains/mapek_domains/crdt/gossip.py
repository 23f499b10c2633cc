"""A replica and the others over the mesh's messages: news at once, and comparison now and then.

What a cycle has learned goes to every node that can be reached, once; what comes from others is not sent on.
Messages are lost, so each node compares digests with another one from time to time, and at once with one that
has come back; where they differ the two complete each other by their state vectors, as Yjs does. A comparison
costs no span; an update carries the context of the span it was sent in.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from opentelemetry import context as otel_context
from opentelemetry.context.context import Context

from mapek_runtime.errors import EngineUnavailable
from mapek_runtime.loop.domain import Messenger

from .document import merged
from .messages import (
    Again,
    Compare,
    Frame,
    Part,
    Sync,
    YSyncMessageType,
    decode,
    encode,
    read_sync,
    step1,
    step2,
    update_message,
)
from .parts import Assembly, Outgoing, cut
from .replica import Replica
from .update import Refused

__all__ = ["TOPIC", "Gossip"]

logger = logging.getLogger(__name__)

TOPIC = "crdt"
_ENVELOPE = 64
_AT_ONCE = 8
_PAUSE = 0.005
_MOST_WAITING = 256 << 10
_RETURN = 10.0
_EMPTY = b"\x00\x00"
_BUCKET = 10.0
_A_SECOND = 4.0


class Gossip:
    """The exchange of one node with the others; `interval` seconds between comparisons."""

    def __init__(
        self, replica: Replica, messenger: Messenger, *, rng: random.Random, interval: float
    ) -> None:
        self.replica = replica
        self.counts: Counter[str] = Counter()
        """Messages by `sent.` and `received.` kind, and what was not taken by `refused.` reason."""
        self._messenger = messenger
        self._node = replica.node_id
        self._document = replica.document
        self._rng = rng
        self._interval = interval
        self._clock = asyncio.get_running_loop().time
        self._most_body = max(1, messenger.most - _ENVELOPE)
        self._outgoing = Outgoing()
        self._assembly = Assembly(2 * replica.document.limits.update)
        self._next_id = rng.getrandbits(32)
        self._waiting: list[bytes] = []
        self._present: set[str] = set()
        self._known: set[str] = set()
        self._to_greet: set[str] = set()
        self._returned: dict[str, float] = {}
        self._agreed: set[str] = set()
        self._allowance: dict[str, tuple[float, float]] = {}

    def reachable(self) -> Sequence[str]:
        """The nodes that can be told something now."""
        try:
            return self._messenger.reachable(self._node)
        except EngineUnavailable:
            return ()

    def has_agreed_with_all(self) -> bool:
        """Whether this life was in the same state as each node that can be reached now."""
        others = self.reachable()
        return bool(others) and self._agreed.issuperset(others)

    def relay(self, update: bytes, via: object) -> int:
        """Take what came from elsewhere than the mesh along with the next broadcast."""
        if via is self:
            return 0
        # Beyond the bound a comparison brings it.
        if sum(map(len, self._waiting)) + len(update) <= _MOST_WAITING:
            self._waiting.append(update)
        return 0

    @property
    def has_waiting(self) -> bool:
        """Whether something from elsewhere waits for the next broadcast."""
        return bool(self._waiting)

    def cut(self) -> None:
        """Nothing to close: the mesh's messages need no connection."""

    async def broadcast(self, update: bytes) -> int:
        """Send news to every node that can be reached, in the current span; returns to how many."""
        updates = [each for each in (*self._waiting, update) if each]
        self._waiting.clear()
        others = self.reachable()
        if not updates or not others:
            return 0
        message = update_message(updates[0] if len(updates) == 1 else merged(updates))
        return sum([await self._send(other, Sync(message)) for other in others])

    async def listen(self) -> None:
        """Take in what the others send, until cancelled. Run it in an empty context."""
        async with self._messenger.subscribe(self._node, TOPIC) as messages:
            async for source, payload in messages:
                try:
                    await self._received(source, decode(payload))
                except Refused as refused:
                    self.counts[f"refused.{refused.reason}"] += 1
                except Exception:
                    # Whatever a peer has sent: the next message is another one.
                    self.counts["refused.failed"] += 1
                    logger.exception("a message of %r on shared knowledge could not be handled", source)

    async def compare(self) -> None:
        """Compare with the others from time to time, until cancelled. Run it in an empty context."""
        due = self._clock() + self._interval * self._rng.uniform(0.5, 1.5)
        while True:
            await asyncio.sleep(self._interval / 4 * self._rng.uniform(0.5, 1.5))
            is_due = self._clock() >= due
            if is_due:
                due = self._clock() + self._interval * self._rng.uniform(0.5, 1.5)
            try:
                await self._look_around(is_due=is_due)
            except Exception:
                self.counts["refused.failed"] += 1
                logger.exception("%r could not compare its shared knowledge with the others'", self._node)

    # Inside

    async def _look_around(self, *, is_due: bool) -> None:
        now = self._clock()
        self._outgoing.expire(now)
        for peer, asked in self._assembly.due(now):
            await self._send(peer, asked)
        others = self.reachable()
        self._notice(others)
        chosen = sorted(self._to_greet.intersection(others))
        self._to_greet.clear()
        if is_due and others:
            chosen.append(self._rng.choice(others))
        for other in chosen:
            await self._send(other, Compare(self._document.digest()))

    def _notice(self, others: Sequence[str]) -> None:
        """Note who came, and who came back."""
        until = self._clock() + _RETURN
        for other in others:
            if other not in self._present:
                self._to_greet.add(other)
                if other in self._known:
                    self._returned[other] = until
        self._present = set(others)
        self._known |= self._present

    def _has_been_parted(self) -> bool:
        """Whether another node has come back lately."""
        self._notice(self.reachable())
        now = self._clock()
        self._returned = {peer: until for peer, until in self._returned.items() if until > now}
        return bool(self._returned)

    async def _received(self, source: str, frame: Frame) -> None:
        self.counts[f"received.{type(frame).__name__.lower()}"] += 1
        match frame:
            case Part():
                whole = self._assembly.add(source, frame, self._clock())
                if whole is not None:
                    inner = decode(whole)
                    if not isinstance(inner, Sync):
                        raise Refused("malformed")
                    await self._received(source, inner)
            case Again():
                if self._may(source):
                    with _untraced():
                        await self._send_parts(source, self._outgoing.again(source, frame))
            case Compare():
                await self._compared(source, frame)
            case Sync():
                await self._synchronised(source, frame)

    async def _compared(self, source: str, frame: Compare) -> None:
        if frame.digest == self._document.digest():
            self._agreed.add(source)
            self._returned.pop(source, None)
            self.replica.has_agreed = True
        elif self._may(source):
            await self._ask(source, ask_back=True)

    async def _synchronised(self, source: str, frame: Sync) -> None:
        said = read_sync(frame.message)
        if said.kind is YSyncMessageType.SYNC_STEP1:
            if not self._may(source):
                raise Refused("too_often")
            missing = self._document.missing(said.body)
            if missing != _EMPTY:
                await self._send(source, Sync(step2(missing)))
            if frame.ask_back:
                await self._ask(source)
            return
        try:
            changes = self.replica.take(said.body, self)
        except Refused as refused:
            if refused.reason == "early" and self._may(source):
                with _untraced():
                    await self._ask(source)
            raise
        self.counts["changes"] += changes
        is_answer = said.kind is YSyncMessageType.SYNC_STEP2
        self.replica.has_agreed |= is_answer
        self.replica.tell(source, changes, was_parted=is_answer and self._has_been_parted())

    async def _ask(self, peer: str, *, ask_back: bool = False) -> None:
        await self._send(peer, Sync(step1(self._document.state()), ask_back))

    def _may(self, peer: str) -> bool:
        """Whether that peer may make this node work now: a question is cheap, and the answer may be long."""
        now = self._clock()
        left, since = self._allowance.get(peer, (_BUCKET, now))
        left = min(_BUCKET, left + (now - since) * _A_SECOND)
        self._allowance[peer] = max(0.0, left - 1.0) if left >= 1.0 else left, now
        return left >= 1.0

    async def _send(self, peer: str, frame: Frame) -> bool:
        payload = encode(frame)
        if len(payload) <= self._messenger.most:
            return await self._send_payload(peer, frame, payload)
        self._next_id = self._next_id + 1 & 0xFFFF_FFFF
        try:
            parts = cut(self._next_id, payload, self._most_body)
        except Refused:
            self.counts["refused.too_large"] += 1
            return False
        self._outgoing.sent(peer, parts, self._clock())
        return await self._send_parts(peer, parts)

    async def _send_parts(self, peer: str, parts: Sequence[Part]) -> bool:
        sent = False
        for number, part in enumerate(parts):
            if number and not number % _AT_ONCE:
                # A socket takes only so much at once.
                await asyncio.sleep(_PAUSE)
            sent = await self._send_payload(peer, part, encode(part)) or sent
        return sent

    async def _send_payload(self, peer: str, frame: Frame, payload: bytes) -> bool:
        try:
            await self._messenger.send(self._node, peer, TOPIC, payload)
        except EngineUnavailable:
            # This node is going down, or that one is not known any more.
            return False
        kind = type(frame).__name__.lower()
        self.counts[f"sent.{kind}"] += 1
        self.counts[f"sent.bytes.{kind}"] += len(payload)
        return True


@contextmanager
def _untraced() -> Iterator[None]:
    """A block in which no span is current."""
    token = otel_context.attach(Context())
    try:
        yield
    finally:
        otel_context.detach(token)
