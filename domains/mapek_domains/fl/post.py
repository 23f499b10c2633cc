"""What a node of federated learning sends and hears: messages of `wire` over the mesh's `Messenger`."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

from mapek_runtime.errors import MapekError
from mapek_runtime.loop.domain import Messenger

from .parts import Parts, split
from .wire import Message, Part, WireError, decode, encode

__all__ = ["TOPIC", "Post"]

logger = logging.getLogger(__name__)

TOPIC = "fl"
_BURST = 8
"""Parts sent at once: more in a row overflow what a socket holds for its reader."""
_REST = 0.005
_LOOK_AGAIN = 1.0


class Post:
    """The messages of one node. What cannot be sent or understood is counted by reason."""

    def __init__(self, node_id: str, find: Callable[[], Messenger | None], counts: Counter[str]) -> None:
        self._node_id = node_id
        self._find = find
        self._found: Messenger | None = None
        self._counts = counts

    def reachable(self) -> Sequence[str]:
        """The other nodes to which this one knows a way now, in the order of their names."""
        messenger = self._messenger()
        try:
            return sorted(messenger.reachable(self._node_id)) if messenger is not None else ()
        except MapekError:
            return ()

    async def send(self, destination: str, message: Message | bytes) -> None:
        """Send a message, or one that was encoded before; in parts where it is too long for one."""
        messenger = self._messenger()
        if messenger is None:
            self._counts["unsent.no_messenger"] += 1
            return
        try:
            payload = message if isinstance(message, bytes) else encode(message)
            for number, part in enumerate(split(payload, messenger.most), start=1):
                await messenger.send(self._node_id, destination, TOPIC, part)
                if number % _BURST == 0:
                    await asyncio.sleep(_REST)
        except (MapekError, ValueError, OSError) as error:
            self._counts["unsent"] += 1
            logger.warning("%s: nothing was sent to %r: %s", self._node_id, destination, error)

    async def listen(self, heard: Callable[[str, Message], Awaitable[None]]) -> None:
        """Call `heard` with each message and its sender, in the sender's trace context, until cancelled."""
        while (messenger := self._messenger()) is None:  # noqa: ASYNC110 - nobody tells when a mesh opens
            await asyncio.sleep(_LOOK_AGAIN)
        parts, clock = Parts(), asyncio.get_running_loop().time
        async with messenger.subscribe(self._node_id, TOPIC) as messages:
            async for source, payload in messages:
                try:
                    message = decode(payload)
                    if isinstance(message, Part):
                        whole = parts.add(source, message, clock())
                        if whole is None:
                            continue
                        message = decode(whole)
                    if isinstance(message, Part):
                        raise WireError("part")
                    await heard(source, message)
                except WireError as error:
                    self._counts[f"dropped.{error.reason}"] += 1
                except Exception:
                    # One message is not the end of all others.
                    self._counts["dropped.failed"] += 1
                    logger.exception("%s: a message of %r could not be worked on", self._node_id, source)

    def _messenger(self) -> Messenger | None:
        if self._found is None:
            self._found = self._find()
        return self._found
