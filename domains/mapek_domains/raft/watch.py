"""What a cycle sees of consensus."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from mapek_runtime import Cycle, Observation

__all__ = ["ConsensusWatcher"]


class _Standing(Protocol):
    @property
    def leader(self) -> str | None: ...
    @property
    def term(self) -> int: ...
    @property
    def commit_index(self) -> int: ...


class ConsensusWatcher:
    """Reads where one node stands in its group."""

    name = "raft.watch"

    def __init__(self, standing: Callable[[], _Standing], node_id: str) -> None:
        self._standing = standing
        self._node_id = node_id

    async def monitor(self, _cycle: Cycle) -> Iterable[Observation]:
        """The term, the last final entry, whether the node leads, and whether it knows of a leader."""
        standing = self._standing()
        values = {
            "raft.term": float(standing.term),
            "raft.commit_index": float(standing.commit_index),
            "raft.is_leader": float(standing.leader == self._node_id),
            "raft.has_leader": float(standing.leader is not None),
        }
        return [Observation(name=name, value=value, target=self._node_id) for name, value in values.items()]
