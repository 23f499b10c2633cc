"""Who leads: a key that one node creates, and that is gone when the node is.

The *term* is the revision at which the leadership's key was created: no two tenures have the same, and a
later one has a greater. etcd's own Raft term is of the servers, not of the nodes; it goes along on the span
as `etcd.raft_term`.
"""

from __future__ import annotations

import asyncio
from collections import Counter

from opentelemetry.context.context import Context

from mapek_domains.raft import spans
from mapek_runtime.errors import EngineUnavailable

from .presence import Life
from .store import Get, Put, Store, absent
from .values import Keys, Tenure, encoded
from .view import View

__all__ = ["Election"]

_LIMIT = 5.0
"""Seconds after which a campaign without an answer ends, and another begins."""
_PAUSE = 1.0
"""Seconds between the two."""


class Election:
    """Stands for one node, for the length of one life."""

    def __init__(self, life: Life, store: Store, view: View, keys: Keys, counts: Counter[str]) -> None:
        self._life = life
        self._store = store
        self._view = view
        self._keys = keys
        self._value = encoded(Tenure(node=life.node_id, instance=life.instance))
        self._counts = counts

    async def run(self) -> None:
        """Campaign whenever nobody leads; raises `LeaseGone`."""
        while True:
            await self._view.until(lambda: self._view.leader_key is None and self._life.lasts)
            try:
                await self._campaign()
            except (TimeoutError, EngineUnavailable):
                # The span says it.
                self._counts["elections.unanswered"] += 1
                await asyncio.sleep(_PAUSE)

    async def _campaign(self) -> None:
        key = self._keys.leader
        # A trace of its own: no cycle asked for it.
        with spans.leader_election(0, self._life.node_id).under(Context()) as span:
            async with asyncio.timeout(_LIMIT):
                answer = await self._store.transact(
                    (absent(key),), (Put(key, self._value, self._life.lease),), (Get(key),)
                )
            found = answer.found[0]
            # The answer to an earlier attempt may have been lost.
            won = answer.succeeded or (found is not None and found.value == self._value)
            term = answer.revision if answer.succeeded else found.created if found is not None else 0
            span.set(term=term)
            span.set_attribute("etcd.raft_term", answer.raft_term)
            span.set_attribute("won", won)
        self._counts["elections.won" if won else "elections.lost"] += 1
        await self._view.reached(term)
