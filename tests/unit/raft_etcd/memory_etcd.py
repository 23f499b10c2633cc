"""An etcd in memory, with servers in front of it that can be made to fail in every way that servers do.

It keeps revisions, versions, leases and history as etcd does (API reference of etcd 3.4); its leases run on
the loop's clock. A `MemoryServer` may refuse, hang, lose an answer, or carry a request out late.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

from mapek_domains.raft.etcd.store import (
    Answer,
    Batch,
    CallFailed,
    Compacted,
    Compare,
    Delete,
    Deletion,
    KeyValue,
    LeaseGone,
    Operation,
    Put,
    Snapshot,
)

__all__ = ["MemoryEtcd", "MemoryServer"]

T = TypeVar("T")
Change = KeyValue | Deletion


class MemoryEtcd:
    """What a majority of servers would have."""

    def __init__(self, *, least: int = 1) -> None:
        self.revision = 1
        self.raft_term = 2
        self.least = least
        """Seconds of the shortest lease."""
        self.pairs: dict[str, KeyValue] = {}
        self.history: list[tuple[int, Change]] = []
        """Every change, with its revision."""
        self.compacted = 0
        self.leases: dict[int, tuple[int, asyncio.TimerHandle]] = {}
        self.watchers: list[Callable[[Sequence[Change]], None]] = []

    def transact(
        self, compares: Sequence[Compare], then: Sequence[Operation], otherwise: Sequence[Operation] = ()
    ) -> Answer:
        succeeded = all(self._holds(each) for each in compares)
        operations = then if succeeded else otherwise
        if any(isinstance(each, Put) and each.lease and each.lease not in self.leases for each in operations):
            raise LeaseGone("requested lease not found")
        changes: list[Change] = []
        found: list[KeyValue | None] = []
        for each in operations:
            found.append(None if isinstance(each, Put) else self.pairs.get(each.key))
            if isinstance(each, Put):
                changes.append(self._put(each))
            elif isinstance(each, Delete) and self.pairs.pop(each.key, None) is not None:
                changes.append(Deletion(each.key, self.revision + 1))
        self._commit(changes)
        return Answer(
            succeeded=succeeded, revision=self.revision, raft_term=self.raft_term, found=tuple(found)
        )

    def put(self, key: str, value: bytes, lease: int = 0) -> None:
        """Somebody else wrote this."""
        self.transact((), (Put(key, value, lease),))

    def delete(self, *keys: str) -> None:
        """Somebody else deleted these."""
        self.transact((), tuple(Delete(key) for key in keys))

    def read(self, prefix: str) -> Snapshot:
        pairs = tuple(pair for key, pair in sorted(self.pairs.items()) if key.startswith(prefix))
        return Snapshot(revision=self.revision, pairs=pairs)

    def read_at(self, key: str, revision: int) -> KeyValue | None:
        if revision < self.compacted:
            raise Compacted("required revision has been compacted")
        found: KeyValue | None = None
        for at, change in self.history:
            if at <= revision and change.key == key:
                found = change if isinstance(change, KeyValue) else None
        return found

    def grant(self, lease: int, seconds: int) -> int:
        if lease not in self.leases:
            self._keep(lease, max(seconds, self.least))
        return self.leases[lease][0]

    def keep_alive(self, lease: int) -> int:
        if lease not in self.leases:
            raise LeaseGone(f"{lease:x}")
        seconds, timer = self.leases[lease]
        timer.cancel()
        self._keep(lease, seconds)
        return seconds

    def revoke(self, lease: int) -> int:
        if lease not in self.leases:
            return 0
        self.leases.pop(lease)[1].cancel()
        gone = [key for key, pair in self.pairs.items() if pair.lease == lease]
        for key in gone:
            del self.pairs[key]
        self._commit([Deletion(key, self.revision + 1) for key in gone])
        return self.revision

    def _keep(self, lease: int, seconds: int) -> None:
        loop = asyncio.get_running_loop()
        self.leases[lease] = seconds, loop.call_later(seconds, self.revoke, lease)

    def _holds(self, compare: Compare) -> bool:
        pair = self.pairs.get(compare.key)
        return (getattr(pair, compare.what) if pair is not None else 0) == compare.equals

    def _put(self, put: Put) -> KeyValue:
        before, at = self.pairs.get(put.key), self.revision + 1
        pair = self.pairs[put.key] = KeyValue(
            key=put.key,
            value=put.value,
            created=at if before is None else before.created,
            modified=at,
            version=1 if before is None else before.version + 1,
            lease=put.lease,
        )
        return pair

    def _commit(self, changes: Sequence[Change]) -> None:
        if changes:
            self.revision += 1
            self.history += [(self.revision, change) for change in changes]
            for tell in tuple(self.watchers):
                tell(changes)


class MemoryServer:
    """One server of the cluster; `limit` are the seconds that a call has.

    `faults` are what becomes of the next calls, by the name of the method: `refused` is not done, `lost` is
    done without an answer, `late` is done one second later without an answer. Then all is well again.
    """

    def __init__(self, etcd: MemoryEtcd, address: str = "a:1", *, limit: float = 0.5) -> None:
        self.address = address
        self.etcd = etcd
        self.limit = limit
        self.down = False
        self.hangs = False
        self.faults: dict[str, deque[str]] = {}
        self.calls: Counter[str] = Counter()
        self.late = 1.0
        self._streams: set[asyncio.Queue[Batch | None]] = set()

    async def status(self) -> tuple[str, int]:
        return await self._do("status", lambda: ("3.4.23", self.etcd.raft_term))

    async def transact(
        self, compares: Sequence[Compare], then: Sequence[Operation], otherwise: Sequence[Operation] = ()
    ) -> Answer:
        return await self._do("transact", lambda: self.etcd.transact(compares, then, otherwise))

    async def read(self, prefix: str) -> Snapshot:
        return await self._do("read", lambda: self.etcd.read(prefix))

    async def read_at(self, key: str, revision: int) -> KeyValue | None:
        return await self._do("read_at", lambda: self.etcd.read_at(key, revision))

    async def grant(self, lease: int, seconds: int) -> int:
        return await self._do("grant", lambda: self.etcd.grant(lease, seconds))

    async def keep_alive(self, lease: int) -> int:
        return await self._do("keep_alive", lambda: self.etcd.keep_alive(lease))

    async def revoke(self, lease: int) -> int:
        return await self._do("revoke", lambda: self.etcd.revoke(lease))

    @asynccontextmanager
    async def watch(self, prefix: str, start: int, *, interval: float) -> AsyncIterator[AsyncIterator[Batch]]:
        await self._do("watch", lambda: None)
        queue: asyncio.Queue[Batch | None] = asyncio.Queue()
        etcd = self.etcd
        past = [c for at, c in etcd.history if at >= start and c.key.startswith(prefix)]
        for change in past:
            queue.put_nowait(Batch(changes=(change,)))

        def tell(changes: Sequence[Change]) -> None:
            ours = tuple(change for change in changes if change.key.startswith(prefix))
            if ours:
                queue.put_nowait(Batch(changes=ours))

        etcd.watchers.append(tell)
        self._streams.add(queue)
        try:
            yield self._batches(queue, interval)
        finally:
            etcd.watchers.remove(tell)
            self._streams.discard(queue)

    async def close(self) -> None:
        self.break_watches()

    def break_watches(self) -> None:
        """Every watch ends."""
        for queue in self._streams:
            queue.put_nowait(None)

    async def _batches(self, queue: asyncio.Queue[Batch | None], interval: float) -> AsyncIterator[Batch]:
        while True:
            batch: Batch | None = Batch()
            try:
                async with asyncio.timeout(interval):
                    batch = await queue.get()
            except TimeoutError:
                # The sign of life that was asked for.
                pass
            if self.hangs:
                await asyncio.sleep(self.limit)
                raise CallFailed(f"{self.address}: the watch has fallen silent")
            if batch is None or self.down:
                raise CallFailed(f"{self.address}: the watch ended")
            yield batch

    async def _do(self, name: str, work: Callable[[], T]) -> T:
        self.calls[name] += 1
        # The way there and back.
        await asyncio.sleep(0.001)
        faults = self.faults.get(name)
        fault = faults.popleft() if faults else ""
        if self.down or fault == "refused":
            raise CallFailed(f"{self.address}: refused")
        if self.hangs:
            await asyncio.sleep(self.limit)
            raise CallFailed(f"{self.address}: no answer")
        if fault == "late":
            asyncio.get_running_loop().call_later(self.late, _attempted, work)
        if fault in {"late", "lost"}:
            if fault == "lost":
                _attempted(work)
            await asyncio.sleep(self.limit)
            raise CallFailed(f"{self.address}: no answer")
        answer = work()
        await asyncio.sleep(0.001)
        return answer


def _attempted(work: Callable[[], object]) -> None:
    """Do it; nobody hears what came of it."""
    try:
        work()
    except (LeaseGone, Compacted):
        return
