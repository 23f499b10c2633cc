"""Consensus while it is open, whatever engine keeps the log: what the other domains and the loop ask.

The session checks what is asked and bounds how long it takes; the engine asks the others, again and again
while it is let, and never answers for a majority that it has not heard of.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from mapek_runtime.errors import EngineUnavailable, NoConsensus
from mapek_runtime.loop.domain import Grant

from .commands import MOST_HOLD, MOST_KEY, MOST_VALUE
from .watch import ConsensusWatcher

__all__ = ["AloneSession", "Engine", "RaftSession", "Standing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where a node stands in its group, as far as it knows."""

    leader: str | None = None
    """None while nobody leads."""
    term: int = 0
    """The newest term that it knows; it grows with every election."""
    commit_index: int = 0
    """The last entry of the log that it knows to be final; with etcd, the revision up to which it saw all."""
    votes: bool = True
    """Whether its vote counts; not while it has to catch up after its journal was lost."""


class Engine(Protocol):
    """What keeps the agreement of the nodes of this process; `node_id` is always one of them.

    The methods that wait go on until they are cancelled; to ask again after that is safe.
    """

    def standing(self, node_id: str) -> Standing:
        """Where a node stands; everything unknown while it is down."""

    async def claim(self, node_id: str, key: str, *, hold: float, leader_only: bool) -> Grant:
        """As `Consensus.claim`."""

    async def release(self, node_id: str, key: str, *, fence: int) -> None:
        """As `Consensus.release`."""

    def claims(self, node_id: str) -> Mapping[str, str]:
        """The claims in force as that node knows them, key → owner."""

    async def configure(self, node_id: str, name: str, value: str, *, expected: int | None) -> int:
        """As `Consensus.configure`."""

    def configured(self, node_id: str, name: str) -> tuple[str, int]:
        """As `Consensus.configured`."""

    def trouble(self, node_id: str) -> str:
        """Why a node gets no answer now, in words: who cannot be heard, or that nobody leads."""

    def statistics(self, node_id: str) -> Mapping[str, int]:
        """What was counted at a node: frames sent and received, and what was refused, by reason."""

    def crashed(self, node_id: str) -> None:
        """As `FollowsNodes.crashed`."""

    def restarted(self, node_id: str) -> None:
        """As `FollowsNodes.restarted`."""


class RaftSession:
    """A `Consensus` for the nodes of this process, over an engine; follows their crashes."""

    def __init__(self, engine: Engine, nodes: Sequence[str], *, patience: float) -> None:
        self.engine = engine
        self._nodes = tuple(nodes)
        self._patience = patience

    def plugins(self, node_id: str) -> Sequence[object]:
        """The phase plugins of one node: one, that watches."""
        self._check_node(node_id)
        return (ConsensusWatcher(lambda: self.engine.standing(node_id), node_id),)

    # Consensus

    def leader(self, node_id: str) -> str | None:
        """Who leads, as far as that node knows; None while nobody does."""
        self._check_node(node_id)
        return self.engine.standing(node_id).leader

    async def claim(self, node_id: str, key: str, *, hold: float, leader_only: bool = False) -> Grant:
        """Ask that `node_id` alone has `key` for `hold` seconds.

        Raises `NoConsensus` when no majority answered in time, and ValueError for a key of no or more than
        200 characters and for a hold that is not above 0 and at most a day.
        """
        self._check_node(node_id)
        _check_text("a key", key, MOST_KEY)
        if not (math.isfinite(hold) and 0.0 < hold <= MOST_HOLD):
            raise ValueError(
                f"hold is {hold!r}; it must be seconds, above 0 and at most {MOST_HOLD:.0f}, because a node "
                "that is lost keeps its claims for as long"
            )
        async with self._answer(node_id, f"the claim of {key!r}"):
            return await self.engine.claim(node_id, key, hold=hold, leader_only=leader_only)

    async def release(self, node_id: str, key: str, *, fence: int) -> None:
        """Give a claim back; without effect when the grant of that `fence` is not in force any more.

        Raises `NoConsensus` when no majority answered in time.
        """
        self._check_node(node_id)
        _check_text("a key", key, MOST_KEY)
        async with self._answer(node_id, f"the release of {key!r}"):
            await self.engine.release(node_id, key, fence=fence)

    def claims(self, node_id: str, prefix: str = "") -> Mapping[str, str]:
        """The claims in force as that node knows them, key → owner. After a grant, at least up to it."""
        self._check_node(node_id)
        claims = self.engine.claims(node_id)
        return {key: owner for key, owner in claims.items() if key.startswith(prefix)}

    async def configure(self, node_id: str, name: str, value: str, *, expected: int | None = None) -> int:
        """Agree on a value for all nodes, and return its epoch, which grows by one with each change of it.

        The value that it has already is no change: its epoch stays. With `expected` only where that is the
        epoch now (0: never set). Raises `MapekError` where it is not, `NoConsensus` when no majority
        answered in time, and ValueError for a name or value that is too long.
        """
        self._check_node(node_id)
        _check_text("a name", name, MOST_KEY)
        _check_text("a value", value, MOST_VALUE, least=0)
        async with self._answer(node_id, f"the configuration of {name!r}"):
            return await self.engine.configure(node_id, name, value, expected=expected)

    def configured(self, node_id: str, name: str) -> tuple[str, int]:
        """What was agreed upon under that name, and its epoch; empty and 0 when nothing was."""
        self._check_node(node_id)
        return self.engine.configured(node_id, name)

    # FollowsNodes

    def crashed(self, node_id: str) -> None:
        """A node of this process is gone at once; what is in memory for it is gone too."""
        self.engine.crashed(node_id)

    def restarted(self, node_id: str) -> None:
        """The node is back, with what it kept on disk."""
        self.engine.restarted(node_id)

    # Inside

    @asynccontextmanager
    async def _answer(self, node_id: str, what: str) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._patience):
                yield
        except TimeoutError:
            raise NoConsensus(
                f"{what} by {node_id!r} was not answered within {self._patience:g} s: "
                f"{self.engine.trouble(node_id)}"
            ) from None

    def _check_node(self, node_id: str) -> None:
        if node_id not in self._nodes:
            raise EngineUnavailable(
                f"node {node_id!r} does not run here; here run {', '.join(sorted(self._nodes))}"
            )


class AloneSession:
    """One node that was told of no others: it agrees with nobody, so it offers no consensus."""

    def plugins(self, _node_id: str) -> Sequence[object]:
        """None: there is nothing to watch."""
        return ()


def _check_text(what: str, text: str, most: int, *, least: int = 1) -> None:
    if not least <= len(text) <= most:
        raise ValueError(f"{what} of {len(text)} characters; it must have {least} to {most}")
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError(f"{what} is {text!r}, which no UTF-8 holds: it has half of a surrogate pair")
