"""One UDP socket on the running event loop, read in batches.

asyncio's own datagram endpoint reads one datagram a turn of the loop; after a stall of the host the
queue then drains slower than timers fire, and a probe that had arrived in time looks lost. This
port empties the socket, up to a bound, each time it is readable. What cannot be sent is dropped and
counted, as a network would. Knows no frame.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections import Counter
from collections.abc import Callable, Mapping
from contextvars import Context

from mapek_runtime.errors import ConfigError

__all__ = ["Address", "UdpPort", "parse_address", "resolved"]

Address = tuple[str, int]
_BATCH = 64
_BUFFER = 1 << 20
_LARGEST = 65_535


def parse_address(text: str, *, where: str) -> Address:
    """`host:port` or `[v6]:port` as a pair; raises `ConfigError` naming `where` it was written."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise ConfigError(f"{where} is {text!r}; it must be HOST:PORT, such as '127.0.0.1:7001'")
    return host.removeprefix("[").removesuffix("]"), int(port)


async def resolved(peers: Mapping[str, Address]) -> dict[str, Address]:
    """The addresses with host names looked up; raises `ConfigError` for a name that is not known."""
    loop = asyncio.get_running_loop()
    found: dict[str, Address] = {}
    for peer, (host, port) in peers.items():
        try:
            answers = await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
        except OSError as error:
            raise ConfigError(
                f"[mesh.peers] {peer} is '{host}:{port}': {error}; it must be an address or a known host name"
            ) from None
        address = answers[0][4]
        found[peer] = (str(address[0]), int(address[1]))
    return found


class UdpPort:
    """A bound socket; give `open` a receiver, which is called as `receiver(datagram, address)`."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._receiver: Callable[[bytes, Address], None] | None = None
        self.dropped: Counter[str] = Counter()

    @property
    def address(self) -> Address:
        """Where the socket is bound; the port is the one the system chose when 0 was asked for."""
        if self._socket is None:
            raise RuntimeError("the port is closed; open it first")
        name = self._socket.getsockname()
        return str(name[0]), int(name[1])

    @property
    def is_open(self) -> bool:
        """Whether the socket is bound."""
        return self._socket is not None

    async def open(self, address: Address, receiver: Callable[[bytes, Address], None], *, name: str) -> None:
        """Bind and begin to receive; raises `ConfigError` for an address that cannot be used."""
        loop = asyncio.get_running_loop()
        host, port = address
        try:
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
        except OSError as error:
            raise ConfigError(
                f"[mesh] listen of {name} is {host!r}: {error}; it must be an address of this machine"
            ) from None
        family, kind, protocol, _, where = found[0]
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            # A burst while this process is busy waits here instead of being lost.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            sock.bind(where)
        except OSError as error:
            sock.close()
            cause = (
                "another program has that port; choose a free one, or 0 for any"
                if error.errno == errno.EADDRINUSE
                else f"{error.strerror or error}; it must be a free port on an address of this machine"
            )
            raise ConfigError(f"[mesh] listen of {name} is '{host}:{port}': {cause}") from None
        self._socket = sock
        self._receiver = receiver
        # In an empty context: a node that a cycle starts again is no part of that cycle's trace.
        Context().run(loop.add_reader, sock.fileno(), self._readable)

    def close(self) -> None:
        """Unbind; what waits in the socket is gone."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None
            self._receiver = None

    def send(self, datagram: bytes, address: Address) -> None:
        """Hand a datagram to the system, or drop and count it."""
        if self._socket is None:
            self.dropped["closed"] += 1
            return
        try:
            self._socket.sendto(datagram, address)
        except BlockingIOError:
            self.dropped["send_buffer_full"] += 1
        except OSError:
            self.dropped["send_refused"] += 1

    def _readable(self) -> None:
        for _ in range(_BATCH):
            # Closed by the receiver of the datagram before.
            if self._socket is None or self._receiver is None:
                return
            try:
                datagram, sender = self._socket.recvfrom(_LARGEST)
            except BlockingIOError:
                return
            except OSError:
                # An ICMP error for something sent earlier; it says nothing about what comes next.
                self.dropped["receive_refused"] += 1
                continue
            self._receiver(datagram, (sender[0], sender[1]))
