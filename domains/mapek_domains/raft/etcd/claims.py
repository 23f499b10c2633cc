"""Claims: a key that its owner writes under a lease as long as the claim is to hold.

One transaction decides, so that two claims of one key never both succeed. A claim whose answer was lost is
sent again, and knows its own work by the number of its request. An attempt without an answer may still be
on its way to etcd when the claim is over; the lease is revoked by then, and without it the attempt fails.
"""

from __future__ import annotations

import asyncio
import math
import secrets
from collections import deque
from collections.abc import Mapping
from contextlib import suppress

from mapek_domains.raft import spans
from mapek_runtime.errors import EngineUnavailable
from mapek_runtime.loop.domain import Grant

from .presence import new_lease
from .store import Answer, Compacted, Compare, Get, KeyValue, LeaseGone, Put, Store
from .values import Claim, Keys, Refused, Tenure, decoded, encoded
from .view import View

__all__ = ["Claims", "Leftovers"]

_NEVER = -1
"""A revision that no key has."""


class Leftovers:
    """Leases that nobody needs any more, revoked when there is time; etcd ends them anyhow."""

    def __init__(self, store: Store, *, limit: float = 2.0) -> None:
        self._store = store
        self._limit = limit
        self._leases: deque[int] = deque(maxlen=1024)
        self._some = asyncio.Event()

    def add(self, lease: int) -> None:
        """Revoke it; never waits."""
        self._leases.append(lease)
        self._some.set()

    async def run(self) -> None:
        """Revoke what is added."""
        while True:
            await self._some.wait()
            while self._leases:
                with suppress(TimeoutError, EngineUnavailable):
                    async with asyncio.timeout(self._limit):
                        await self._store.revoke(self._leases.popleft())
            self._some.clear()


class Claims:
    """What the nodes of this process ask for. Bound each call: it waits until etcd has answered."""

    def __init__(self, store: Store, view: View, keys: Keys, leftovers: Leftovers) -> None:
        self._store = store
        self._view = view
        self._keys = keys
        self._leftovers = leftovers

    def held(self) -> Mapping[str, str]:
        """Key → owner, as far as is known."""
        return {key: each.value.owner for key, each in self._view.claims.known.items()}

    async def claim(self, node_id: str, key: str, *, hold: float, instance: str | None = None) -> Grant:
        """See `Consensus.claim`; with `instance` only where that life of the node leads.

        etcd counts whole seconds, and has a shortest lease: others may have the key that much later than
        `hold` seconds from now, never sooner.
        """
        attempt = _Attempt(self, node_id, key, instance)
        seconds = math.ceil(hold)
        while True:
            try:
                answer = await attempt.run(hold, seconds)
            except LeaseGone:
                # It took longer than the lease lasts.
                continue
            if isinstance(answer, Grant):
                return answer
            seconds = answer

    async def release(self, node_id: str, key: str, *, fence: int) -> None:
        """See `Consensus.release`."""
        known = self._view.claims.known.get(key)
        # After a grant the view has come as far: what it does not have is not in force any more.
        if known is None or known.value.owner != node_id or not self._in_force(key, fence):
            return
        with spans.commit_entries(0, 0) as span:
            # Not only the key goes, but also whatever of this claim is still on its way to etcd.
            revision = await self._store.revoke(known.key.lease)
            await self._view.until(lambda: not self._in_force(key, fence))
            span.set(entries_count=int(revision > 0), commit_index=revision or self._view.revision)

    def _in_force(self, key: str, fence: int) -> bool:
        known = self._view.claims.known.get(key)
        return known is not None and known.key.modified == fence


class _Attempt:
    """One call of `claim`."""

    def __init__(self, claims: Claims, node_id: str, key: str, instance: str | None) -> None:
        self._store = claims._store
        self._view = claims._view
        self._leftovers = claims._leftovers
        self._node_id = node_id
        self._key = key
        self._path = claims._keys.claims + key
        self._leader = claims._keys.leader
        self._instance = instance
        """Of the node, where only the leader may have the claim."""
        self._request = secrets.token_hex(8)

    async def run(self, hold: float, seconds: int) -> Grant | int:
        """Get a lease of so many seconds, and the key under it, or know why not.

        Returns how many seconds the lease must have, where the node has the key under a longer one: an
        extension does not cut short what was granted before.
        """
        until, lease = asyncio.get_running_loop().time() + hold, new_lease()
        # A claim that is cut short may have been granted: then its lease must last, as if it was answered.
        needed = False
        known = self._view.claims.known.get(self._key)
        seen = known.key if known is not None and known.value.owner == self._node_id else None
        if known is not None and seen is not None and known.value.seconds > seconds:
            return known.value.seconds
        try:
            await self._store.grant(lease, seconds)
            value = encoded(Claim(owner=self._node_id, request=self._request, seconds=seconds))
            term = self._own_term(self._view.leader.key if self._view.leader is not None else None)
            while True:
                needed = True
                answer = await self._transact(Put(self._path, value, lease), seen, term)
                found, leader = answer.found
                claim = self._decoded(found)
                if answer.succeeded or (claim is not None and claim.request == self._request):
                    fence = answer.revision
                    if found is not None:
                        # An earlier attempt succeeded, whose answer was lost. Another may lead since.
                        fence, leader = found.modified, await self._led_at(found.modified)
                    if seen is not None:
                        # The lease before holds nothing now, unless a part of that claim is on its way.
                        await self._store.revoke(seen.lease)
                    await self._view.reached(fence)
                    return self._grant(True, self._node_id, leader, fence=fence, until=until)
                refusal = self._refusal(found, claim, leader)
                longer = claim.seconds if claim is not None else 0
                if refusal is None and longer <= seconds:
                    seen, term = found, self._own_term(leader)
                    continue
                needed = False
                if answer.attempts > 1:
                    # An attempt without an answer may be on its way; without its lease it fails.
                    await self._store.revoke(lease)
                return longer if refusal is None else refusal
        finally:
            if not needed:
                self._leftovers.add(lease)

    async def _transact(self, put: Put, seen: KeyValue | None, term: int) -> Answer:
        compares = [Compare(self._path, "modified", seen.modified if seen is not None else 0)]
        if self._instance is not None:
            compares.append(Compare(self._leader, "created", term or _NEVER))
        # `entries` is what of the key-value store was written, `commit_index` the store's revision: etcd's
        # own log and its replication are its servers' business, and cannot be seen from here.
        with spans.commit_entries(1, 0) as span:
            answer = await self._store.transact(
                compares, (put, Get(self._leader)), (Get(self._path), Get(self._leader))
            )
            span.set(entries_count=int(answer.succeeded), commit_index=answer.revision)
        return answer

    async def _led_at(self, revision: int) -> KeyValue | None:
        try:
            return await self._store.read_at(self._leader, revision)
        except Compacted:
            return None

    def _decoded(self, found: KeyValue | None) -> Claim | None:
        with suppress(Refused):
            return decoded(found.value, Claim) if found is not None else None
        return None

    def _refusal(self, found: KeyValue | None, claim: Claim | None, leader: KeyValue | None) -> Grant | None:
        """Why it does not get the key; None where it may try again, knowing more."""
        if found is not None and claim is None:
            reason = f"etcd has under {self._path} what is not this runtime's"
            return self._grant(False, "", leader, reason=reason)
        if claim is not None and claim.owner != self._node_id:
            return self._grant(False, claim.owner, leader, reason=f"{claim.owner} has it")
        if self._instance is not None and not self._own_term(leader):
            return self._grant(False, "", leader, reason=_who_leads(leader))
        return None

    def _grant(
        self,
        granted: bool,
        owner: str,
        leader: KeyValue | None,
        *,
        reason: str = "",
        fence: int = 0,
        until: float = 0.0,
    ) -> Grant:
        return Grant(
            key=self._key,
            granted=granted,
            owner=owner,
            reason=reason,
            fence=fence,
            term=_term(leader),
            until=until,
        )

    def _own_term(self, leader: KeyValue | None) -> int:
        """The term of the leader when that is this life of this node; else 0."""
        tenure = _tenure(leader)
        return leader.created if leader and tenure and tenure.instance == self._instance else 0


def _tenure(leader: KeyValue | None) -> Tenure | None:
    with suppress(Refused):
        return decoded(leader.value, Tenure) if leader is not None else None
    return None


def _term(leader: KeyValue | None) -> int:
    return leader.created if leader is not None and _tenure(leader) is not None else 0


def _who_leads(leader: KeyValue | None) -> str:
    tenure = _tenure(leader)
    return f"only the leader may have it, and {'nobody' if tenure is None else tenure.node} leads"
