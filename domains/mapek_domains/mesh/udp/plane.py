"""The data plane of a UDP demonstration: messages, forwarded hop by hop by the nodes themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .node import UdpNode
from .wire import Data

__all__ = ["MessageData"]


class MessageData:
    """A `DataPlane` over the nodes of this process."""

    def __init__(self, nodes: Mapping[str, UdpNode]) -> None:
        self._nodes = nodes
        self._receivers: dict[str, Callable[[bytes], None]] = {}

    def join(self, node: UdpNode) -> None:
        """One more node; to be called once for each."""
        for channel, receiver in self._receivers.items():
            node.messages.receive(channel, _body_to(receiver))

    def running(self, node: str) -> bool:
        """Whether the node's socket is open."""
        return self._nodes[node].running

    def whole(self) -> bool:
        """Whether every node knows a way to every other."""
        return all(sum(node.nodes().values()) == len(self._nodes) for node in self._nodes.values())

    def send(self, source: str, destination: str, channel: str, body: bytes, *, traced: bool = False) -> None:
        """Send one message; its channel is its topic."""
        self._nodes[source].messages.send(destination, channel, body, traced=traced)

    def receive(self, channel: str, receiver: Callable[[bytes], None]) -> None:
        """Call `receiver` with every body on `channel`; for the nodes that join later."""
        self._receivers[channel] = receiver


def _body_to(receiver: Callable[[bytes], None]) -> Callable[[Data], None]:
    return lambda frame: receiver(frame.payload)
