"""The data plane of a Babel demonstration: datagrams between the nodes' own addresses, by the kernel.

Each body travels inside the namespaces, from 10.255.0.x to 10.255.0.y, over the routes that babeld
has put there; no node of ours forwards it, so it carries no trace.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mapek_domains.mesh.lab import Lab
from mapek_domains.mesh.lab.namespace import node_socket

from .identity import DATA_PORT, IdentitySocket
from .node import BabelNode

__all__ = ["KernelData"]


class KernelData:
    """A `DataPlane` over the namespaces of a lab; `open` it when the lab is up."""

    def __init__(self, lab: Lab, nodes: Callable[[], Mapping[str, BabelNode]]) -> None:
        self._lab = lab
        self._nodes = nodes
        self._sockets: dict[str, IdentitySocket] = {}
        self._channels: list[str] = []
        self._receivers: list[Callable[[bytes], None]] = []

    def open(self) -> None:
        """Open a socket in each namespace; raises `EngineUnavailable` where it cannot."""
        topology = self._lab.topology
        try:
            for name in topology.nodes:
                made = node_socket(self._lab.namespace(name), topology.identity(name), DATA_PORT)
                self._sockets[name] = IdentitySocket(made, self._at(name))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the sockets."""
        while self._sockets:
            self._sockets.popitem()[1].close()

    def running(self, node: str) -> bool:
        """Whether the node's babeld answers; without it the node counts as down."""
        return self._nodes()[node].running

    def whole(self) -> bool:
        """Whether every node knows a way to every other."""
        nodes = self._nodes()
        return all(node.route(other) for node in nodes.values() for other in nodes)

    def send(self, source: str, destination: str, channel: str, body: bytes, *, traced: bool = False) -> None:
        """Send one datagram; `traced` is without effect."""
        if channel in self._channels and source in self._sockets:
            head = bytes((self._channels.index(channel),))
            self._sockets[source].send(self._lab.topology.identity(destination), DATA_PORT, head + body)

    def receive(self, channel: str, receiver: Callable[[bytes], None]) -> None:
        """Call `receiver` with every body that arrives on `channel`."""
        self._channels.append(channel)
        self._receivers.append(receiver)

    def _at(self, name: str) -> Callable[[str, bytes], None]:
        def arrived(_address: str, datagram: bytes) -> None:
            # The socket is this process's and outlives the node; a machine that is down hears nothing.
            if datagram and datagram[0] < len(self._receivers) and self.running(name):
                self._receivers[datagram[0]](datagram[1:])

        return arrived
