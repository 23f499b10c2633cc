"""Spans of replicated data (CRDT)."""

from __future__ import annotations

from typing import Annotated

from mapek_runtime import Key, SpanGroup

__all__ = ["crdt", "crdt_broadcast", "crdt_merge"]

CrdtType = Annotated[str, Key("type")]

crdt = SpanGroup("crdt")


@crdt.span("merge")
def crdt_merge(crdt_type: CrdtType, replica_id: str, changes: int = 0) -> None:
    """The state of another replica was merged; `changes` says how much of it was news."""


@crdt.span("broadcast")
def crdt_broadcast(crdt_type: CrdtType, peers: int = 0) -> None:
    """A replica sent what it has to its peers."""
