"""A cluster of etcd servers as one store: one server is asked at a time, and the next when it fails.

Any server does, each passes on to etcd's leader what it cannot answer itself. A hung one costs a call
`answer` seconds, once: all calls move on together.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from importlib import import_module
from typing import Protocol, TypeVar
from zlib import crc32

from mapek_runtime.errors import EngineUnavailable

from .settings import EtcdEngine, check_etcd
from .store import Answer, Batch, CallFailed, Compacted, Compare, Get, KeyValue, Operation, Snapshot
from .values import Keys

__all__ = ["EtcdClient", "Server", "opened"]

T = TypeVar("T")

_PAUSE = 0.05
"""Seconds after all servers have failed, before the first is asked again."""
_LEAST = (3, 4)
"""The version from which on a watch can be asked for a sign of life."""
_DEFAULT = "'embedded' is the default and needs no server: leave out [raft] engine"


class Server(Protocol):
    """One server, each call once: what `GrpcServer` does."""

    address: str

    async def status(self) -> tuple[str, int]:
        """Its version, and etcd's Raft term as it knows it."""

    async def transact(
        self, compares: Sequence[Compare], then: Sequence[Operation], otherwise: Sequence[Operation] = ()
    ) -> Answer:
        """See `Store`; so for the others."""

    async def read(self, prefix: str) -> Snapshot: ...
    async def read_at(self, key: str, revision: int) -> KeyValue | None: ...
    async def grant(self, lease: int, seconds: int) -> int: ...
    async def keep_alive(self, lease: int) -> int: ...
    async def revoke(self, lease: int) -> int: ...
    def watch(
        self, prefix: str, start: int, *, interval: float
    ) -> AbstractAsyncContextManager[AsyncIterator[Batch]]: ...
    async def close(self) -> None: ...


class EtcdClient:
    """Implements `Store`. `first` chooses the server that is asked first, so that not all ask the same."""

    def __init__(self, servers: Sequence[Server], *, interval: float = 0.5, first: int = 0) -> None:
        self._servers = tuple(servers)
        self._at = first % len(self._servers)
        self._interval = interval
        self.counts: Counter[str] = Counter()
        self.trouble = ""
        """Why the last call that failed did, in words."""

    async def close(self) -> None:
        """Cut all connections."""
        for server in self._servers:
            await server.close()

    async def status(self) -> tuple[str, int]:
        """The version of the server that is asked now, and etcd's Raft term as it knows it."""
        return await self._ask(lambda server: server.status())

    async def transact(
        self, compares: Sequence[Compare], then: Sequence[Operation], otherwise: Sequence[Operation] = ()
    ) -> Answer:
        """See `Store`."""
        attempts = 0

        async def once(server: Server) -> Answer:
            nonlocal attempts
            attempts += 1
            return await server.transact(compares, then, otherwise)

        answer = await self._ask(once)
        return answer if attempts == 1 else replace(answer, attempts=attempts)

    async def read(self, prefix: str) -> Snapshot:
        """See `Store`."""

        async def once(server: Server) -> Snapshot:
            try:
                return await server.read(prefix)
            except Compacted as error:
                raise CallFailed(f"{server.address}: compacted between two pages: {error}") from None

        return await self._ask(once)

    async def read_at(self, key: str, revision: int) -> KeyValue | None:
        """See `Store`."""
        return await self._ask(lambda server: server.read_at(key, revision))

    async def grant(self, lease: int, seconds: int) -> int:
        """See `Store`."""
        return await self._ask(lambda server: server.grant(lease, seconds))

    async def keep_alive(self, lease: int) -> int:
        """See `Store`."""
        return await self._ask(lambda server: server.keep_alive(lease))

    async def revoke(self, lease: int) -> int:
        """See `Store`."""
        return await self._ask(lambda server: server.revoke(lease))

    @asynccontextmanager
    async def watch(self, prefix: str, start: int) -> AsyncIterator[AsyncIterator[Batch]]:
        """See `Store`; when it fails, whoever asks next asks another server."""
        server = self._servers[self._at]
        try:
            async with server.watch(prefix, start, interval=self._interval) as batches:
                yield batches
        except CallFailed as error:
            self._turn_from(server, error)
            raise

    async def _ask(self, call: Callable[[Server], Awaitable[T]]) -> T:
        failed = 0
        while True:
            server = self._servers[self._at]
            try:
                return await call(server)
            except CallFailed as error:
                self._turn_from(server, error)
            failed += 1
            if failed % len(self._servers) == 0:
                await asyncio.sleep(_PAUSE)

    def _turn_from(self, server: Server, error: CallFailed) -> None:
        self.trouble = str(error)
        self.counts["calls_failed"] += 1
        # Another call may have moved on already.
        if self._servers[self._at] is server:
            self._at = (self._at + 1) % len(self._servers)


@asynccontextmanager
async def opened(settings: EtcdEngine, node_id: str) -> AsyncIterator[EtcdClient]:
    """A client of a cluster that answers; raises `EngineUnavailable` and `ConfigError`, saying why not."""
    check_etcd(settings)
    try:
        # In a thread: protobuf and gRPC take a while to load, and both check one another's versions.
        await asyncio.to_thread(import_module, f"{__package__}.grpc_server")
        from .access import read_access
        from .grpc_server import GrpcServer
    except Exception as error:
        raise EngineUnavailable(
            f"raft: engine 'etcd' needs the package aetcd, which cannot be imported ({error}); "
            f"pip install 'mapek-runtime[etcd]'; {_DEFAULT}"
        ) from error
    access = await asyncio.to_thread(read_access, settings)
    servers = [GrpcServer(each, access, limit=settings.answer) for each in settings.endpoints]
    client = EtcdClient(servers, interval=settings.lease / 4, first=crc32(node_id.encode()))
    try:
        await _check_cluster(client, settings)
        yield client
    finally:
        await client.close()


async def _check_cluster(client: EtcdClient, settings: EtcdEngine) -> None:
    where = ", ".join(settings.endpoints)
    version = ""
    try:
        async with asyncio.timeout(settings.dial):
            version, _ = await client.status()
            # A read that a majority stands for; a transaction without one any server answers.
            await client.transact((), (Get(Keys(settings.prefix).leader),))
    except TimeoutError:
        missing = (
            f"the server that answers (etcd {version}) has no majority of its cluster"
            if version
            else "no server answers there"
        )
        raise EngineUnavailable(
            f"raft: engine 'etcd' cannot use the cluster at {where}: {missing} ({client.trouble}); start it "
            f"(Debian: apt-get install etcd-server), or correct [raft.etcd] endpoints; {_DEFAULT}"
        ) from None
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < _LEAST:
        raise EngineUnavailable(
            f"raft: engine 'etcd' needs etcd {_LEAST[0]}.{_LEAST[1]} or later, and the server at {where} is "
            f"{version!r}; {_DEFAULT}"
        )
