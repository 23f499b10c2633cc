"""The data plane as a demonstration uses it: datagrams from node to node, over whatever way is in force.

Canaries and traffic travel on it. It promises nothing: what cannot be sent is lost, without an error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

__all__ = ["DataPlane"]


class DataPlane(Protocol):
    """What the referee and the traffic ask of the nodes of a demonstration."""

    def running(self, node: str) -> bool:
        """Whether the node runs; one that does not sends nothing and receives nothing."""

    def whole(self) -> bool:
        """Whether every node knows a way to every other."""

    def send(self, source: str, destination: str, channel: str, body: bytes, *, traced: bool = False) -> None:
        """Send a few bytes; `traced` messages carry a trace where the plane can carry one."""

    def receive(self, channel: str, receiver: Callable[[bytes], None]) -> None:
        """Call `receiver` with every body that arrives on `channel`, at whichever node."""
