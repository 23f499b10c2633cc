"""Messages of other domains over a Babel mesh, from a node's own address to another's.

The frames are the UDP mesh's. Which way one goes is the kernel's affair: `babeld` has put the routes
there, so no node of ours hands anything on, and a traced message is one span, at its sender, however
many hops it takes. One longer than a link's packets travels in fragments, and is lost with any of them.

Whoever can send from a node's address is believed, as in all of this mesh; what it sends is hostile
until it is decoded.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable

from mapek_domains.mesh.udp.messages import MessagePlane
from mapek_domains.mesh.udp.wire import MAX_DATAGRAM, Data, FrameError, decode, encode

from .identity import MESSAGE_PORT, IdentitySocket

__all__ = ["KernelMessages"]

_BUFFER = 1 << 20
_LIVES = 0xFFFF_FFFF


class KernelMessages:
    """The messages of one node; `open` it with a socket while the node lives.

    `address_of` gives the address of a node, and raises ValueError for what is none; `node_of` names the
    node that has an address. `plane` has the counts and the receivers, which stay over `close`.
    """

    def __init__(
        self, node_id: str, *, address_of: Callable[[str], str], node_of: Callable[[str], str | None]
    ) -> None:
        self.plane = MessagePlane(node_id, next_hop=self._next_hop, transmit=self._transmit)
        self._node_id = node_id
        self._address_of = address_of
        self._node_of = node_of
        self._socket: IdentitySocket | None = None

    def open(self, made: socket.socket) -> None:
        """A new life of the node, with this bound, non-blocking socket."""
        # A burst while this process is busy waits in the kernel instead of being lost.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        self.plane.begin(secrets.randbelow(_LIVES) + 1)
        # One byte more than there may be, so that what is too long is seen to be so.
        self._socket = IdentitySocket(made, self._arrived, longest=MAX_DATAGRAM + 1, counts=self.plane.counts)

    def close(self) -> None:
        """The node is gone."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _next_hop(self, destination: str) -> str | None:
        # The kernel knows whether there is a way; here only whether there is such a node.
        try:
            self._address_of(destination)
        except ValueError:
            return None
        return destination

    def _transmit(self, peer: str, frame: Data) -> None:
        if self._socket is None:
            self.plane.counts["dropped.not_running"] += 1
            return
        self._socket.send(self._address_of(peer), MESSAGE_PORT, encode(frame))

    def _arrived(self, address: str, datagram: bytes) -> None:
        counts = self.plane.counts
        sender = self._node_of(address)
        if sender is None:
            counts["dropped.unknown_sender"] += 1
            return
        try:
            frame = decode(datagram)
        except FrameError as error:
            counts[f"dropped.{error.reason}"] += 1
            return
        if not isinstance(frame, Data):
            counts["dropped.no_message"] += 1
        elif frame.source != sender or frame.destination != self._node_id:
            counts["dropped.wrong_node"] += 1
        else:
            self.plane.arrived(frame)
