"""Spans of identities of workloads (SPIFFE)."""

from __future__ import annotations

from mapek_runtime import NodeId, SpanGroup

__all__ = ["mtls_handshake", "spiffe", "svid_fetch", "svid_renewal"]

spiffe = SpanGroup("spiffe")


@spiffe.span("svid_fetch")
def svid_fetch(node_id: NodeId, ttl_seconds: int = 0) -> None:
    """A node fetched its identity document (SVID), valid for `ttl_seconds`."""


@spiffe.span("svid_renewal")
def svid_renewal(node_id: NodeId, success: bool = True) -> None:
    """A node replaced its identity document before it expired."""


@spiffe.span("mtls_handshake", elapsed="duration_ms")
def mtls_handshake(client: str, server: str, duration_ms: float = 0) -> None:
    """Two workloads proved to each other who they are."""
