"""A datagram socket on the address that a node is known by: it speaks over the routes in force."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable

__all__ = ["DATA_PORT", "ECHO_PORT", "IdentitySocket"]

ECHO_PORT = 6698
"""Questions from node to node; the probes of links have 6697."""
DATA_PORT = 6699
"""Canaries and traffic of a demonstration."""

_DATAGRAM = 512
_BURST = 64


class IdentitySocket:
    """Sends to and receives from the addresses of other nodes; takes over a bound, non-blocking socket.

    What cannot be sent or read is counted and is never an error: to have no route is what it is to
    find out. `receive` gets the sender's address and the body.
    """

    def __init__(self, made: socket.socket, receive: Callable[[str, bytes], None]) -> None:
        self._socket = made
        self._receive = receive
        self._port: int = made.getsockname()[1]
        self._loop = asyncio.get_running_loop()
        self.counts: Counter[str] = Counter()
        self._loop.add_reader(made.fileno(), self._readable)

    def send(self, address: str, port: int, body: bytes) -> None:
        """Send one datagram; never waits."""
        try:
            self._socket.sendto(body, (address, port))
        except OSError:
            self.counts["send.failed"] += 1
        else:
            self.counts["sent"] += 1

    def close(self) -> None:
        """Close the socket."""
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()

    def _readable(self) -> None:
        # A bounded burst: a flood must not starve the timers.
        for _ in range(_BURST):
            try:
                body, (address, port) = self._socket.recvfrom(_DATAGRAM)
            except BlockingIOError:
                return
            except OSError:
                self.counts["receive.failed"] += 1
                return
            if port != self._port:
                self.counts["stranger"] += 1
                continue
            self._receive(address, body)
