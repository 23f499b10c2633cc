"""A datagram socket on the address that a node is known by: it speaks over the routes in force."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections import Counter
from collections.abc import Callable
from contextvars import Context

__all__ = ["DATA_PORT", "ECHO_PORT", "MESSAGE_PORT", "IdentitySocket"]

ECHO_PORT = 6698
"""Questions from node to node; the probes of links have 6697."""
DATA_PORT = 6699
"""Canaries and traffic of a demonstration."""
MESSAGE_PORT = 6700
"""Messages of other domains."""

_DATAGRAM = 512
_BURST = 64
_NO_ROUTE = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH})


class IdentitySocket:
    """Sends to and receives from the addresses of other nodes; takes over a bound, non-blocking socket.

    What cannot be sent or read is counted by reason and is never an error: to have no route is what it
    is to find out. `receive` gets the sender's address and the body, of which more than `longest` bytes
    are cut off.
    """

    def __init__(
        self,
        made: socket.socket,
        receive: Callable[[str, bytes], None],
        *,
        longest: int = _DATAGRAM,
        counts: Counter[str] | None = None,
    ) -> None:
        self._socket = made
        self._receive = receive
        self._longest = longest
        self._port: int = made.getsockname()[1]
        self._loop = asyncio.get_running_loop()
        self._open = True
        self.counts: Counter[str] = Counter() if counts is None else counts
        # In an empty context: what arrives is no part of the trace in which a node was started again.
        Context().run(self._loop.add_reader, made.fileno(), self._readable)

    def send(self, address: str, port: int, body: bytes) -> None:
        """Send one datagram; never waits."""
        try:
            self._socket.sendto(body, (address, port))
        except BlockingIOError:
            self.counts["dropped.send_buffer_full"] += 1
        except OSError as error:
            reason = "no_route" if error.errno in _NO_ROUTE else "send_refused"
            self.counts[f"dropped.{reason}"] += 1

    def close(self) -> None:
        """Close the socket."""
        self._open = False
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()

    def _readable(self) -> None:
        # A bounded burst: a flood must not starve the timers.
        for _ in range(_BURST):
            # Closed by the receiver of the datagram before.
            if not self._open:
                return
            try:
                body, (address, port) = self._socket.recvfrom(self._longest)
            except BlockingIOError:
                return
            except OSError:
                # What an earlier send met; it says nothing about what comes next.
                self.counts["dropped.receive_refused"] += 1
                return
            if port != self._port:
                self.counts["dropped.stranger"] += 1
                continue
            self._receive(address, body)
