"""Spans of consensus (Raft)."""

from __future__ import annotations

from typing import Annotated

from mapek_runtime import Key, SpanGroup

__all__ = ["commit_entries", "leader_election", "log_replication", "raft"]

Entries = Annotated[int, Key("entries")]

raft = SpanGroup("raft")


@raft.span("log_replicate")
def log_replication(follower_id: str, entries_count: Entries = 0) -> None:
    """A leader sent entries of its log to a follower."""


@raft.span("leader_election")
def leader_election(term: int, candidate_id: str) -> None:
    """A candidate asked for votes in a new term."""


@raft.span("commit")
def commit_entries(entries_count: Entries, commit_index: int) -> None:
    """Entries that a majority holds became final."""
