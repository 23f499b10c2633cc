"""Spans of the ledger."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mapek_runtime import SpanGroup

__all__ = ["block_creation", "ledger", "merkle_proof", "state_sync", "transaction_commit"]

ledger = SpanGroup("ledger")


def _blocks(heights: Mapping[str, Any]) -> int:
    return int(heights["to_height"] - heights["from_height"])


@ledger.span("transaction_commit")
def transaction_commit(tx_id: str, tx_type: str, size_bytes: int = 0) -> None:
    """A transaction was accepted for the next block."""


@ledger.span("block_create")
def block_creation(block_height: int, tx_count: int = 0) -> None:
    """A block was appended to the chain."""


@ledger.span("merkle_proof")
def merkle_proof(leaf_hash: str, tree_depth: int = 0) -> None:
    """It was proved that a block holds a transaction."""


@ledger.span("state_sync", derived={"blocks": _blocks})
def state_sync(from_height: int, to_height: int) -> None:
    """A replica caught up from one height to another."""
