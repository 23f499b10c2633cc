"""Spans of the mesh."""

from __future__ import annotations

from typing import Annotated

from mapek_runtime import Key, SpanGroup

__all__ = ["mesh", "message_forwarding", "node_discovery", "route_calculation"]

SourceNode = Annotated[str, Key("source_node")]
NodesDiscovered = Annotated[int, Key("nodes_discovered")]
Destination = Annotated[str, Key("destination")]

mesh = SpanGroup("mesh")


@mesh.span("node_discovery")
def node_discovery(source_node: SourceNode, discovered_nodes: NodesDiscovered = 0) -> None:
    """A node looked which nodes it can reach."""


@mesh.span("routing")
def route_calculation(source: SourceNode, destination: Destination, hops: int = 0) -> None:
    """The best path between two nodes was computed, because it had changed."""


@mesh.span("message_forward")
def message_forwarding(from_node: SourceNode, to_node: Destination, message_id: str) -> None:
    """A message was handed on to the next hop."""
