"""The datagram sockets of one node's links: each lives in the node's namespace, on one interface."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable, Mapping

from mapek_domains.mesh.probe import Probe

from .advert import MAX_DATAGRAM, Advert, Malformed, decode

__all__ = ["PORT", "LinkSockets"]

PORT = 6697
"""Babel's own port is 6696."""

_BURST = 64


class LinkSockets:
    """Sends to and receives from the other end of each link, by the peer's name.

    `sockets` are bound and non-blocking, and are closed by `close`. Whatever cannot be sent or read
    is counted in `counts` and is never an error: a link that is down is what the probes look for.
    """

    def __init__(
        self,
        sockets: Mapping[str, tuple[socket.socket, str]],
        receive: Callable[[str, Probe | Advert], None],
    ) -> None:
        self._sockets = dict(sockets)
        self._receive = receive
        self._loop = asyncio.get_running_loop()
        self.counts: Counter[str] = Counter()
        for peer, (link, _) in self._sockets.items():
            self._loop.add_reader(link.fileno(), self._readable, peer, link)

    def send(self, peer: str, datagram: bytes) -> None:
        """Send over the link to `peer`; never waits."""
        link, address = self._sockets[peer]
        try:
            link.sendto(datagram, (address, PORT))
        except OSError:
            self.counts["send.failed"] += 1
        else:
            self.counts["sent"] += 1
            self.counts["sent.bytes"] += len(datagram)

    def close(self) -> None:
        """Close every socket."""
        for link, _ in self._sockets.values():
            self._loop.remove_reader(link.fileno())
            link.close()
        self._sockets.clear()

    def _readable(self, peer: str, link: socket.socket) -> None:
        # A bounded burst: a flood on one link must not starve the timers of the others.
        for _ in range(_BURST):
            try:
                datagram, (address, port) = link.recvfrom(MAX_DATAGRAM + 1)
            except BlockingIOError:
                return
            except OSError:
                # What an earlier send met, such as a peer that is not there.
                self.counts["receive.failed"] += 1
                return
            if (address, port) != (self._sockets[peer][1], PORT):
                self.counts["stranger"] += 1
                continue
            try:
                frame = decode(datagram)
            except Malformed:
                self.counts["malformed"] += 1
                continue
            self._receive(peer, frame)
