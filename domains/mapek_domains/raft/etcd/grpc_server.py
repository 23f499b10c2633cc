"""One etcd server over gRPC. Only this file, `messages` and `access` know aetcd and gRPC.

aetcd (Apache-2.0) brings etcd's messages and stubs for grpc.aio. Its client is not used: it knows one
server, speaks no TLS, and its watch does not tell when the server falls silent.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc  # type: ignore[import-untyped]
from aetcd import rpc
from grpc import aio

from mapek_runtime.errors import EngineUnavailable

from .access import Access
from .messages import encoded_key, end_of, found_in, from_event, from_pair, to_compare, to_operation
from .store import (
    Answer,
    Batch,
    CallFailed,
    Compacted,
    Compare,
    KeyValue,
    LeaseGone,
    Operation,
    Snapshot,
)

__all__ = ["GrpcServer"]

_LARGEST = 16 * 1024 * 1024
"""Bytes of an answer; etcd's own limit of a value is 1.5 MiB unless it was told otherwise."""
_PAGE = 512
"""Keys that are read at once; fewer where their values are too long for one answer."""
_OPTIONS = (
    ("grpc.max_receive_message_length", _LARGEST),
    # Retries and pauses are the client's, which has other servers to ask.
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.use_local_subchannel_pool", 1),
    # etcd hangs up on who pings more often than every five seconds.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
)
_SETTLE = 0.05
"""Seconds for calls that were cut short to report to their loop, before it may be closed."""
_NEEDS_LEADER = ("hasleader", "true")
"""Metadata by which a server that knows no leader refuses at once, and does not answer from the past."""
_NEVER_MIND = {
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
}
"""What every server of the cluster would answer as well."""
_STALE_TOKEN = ("invalid auth token", "user name is empty", "revision of auth store is old")


class GrpcServer:
    """One server; each call has `limit` seconds. Raises `CallFailed` where another may do better."""

    def __init__(self, address: str, access: Access, *, limit: float) -> None:
        self.address = address
        self._access = access
        self._limit = limit
        self._token: str | None = None
        if access.credentials is None:
            self._channel = aio.insecure_channel(address, options=_OPTIONS)
        else:
            self._channel = aio.secure_channel(address, access.credentials, options=_OPTIONS)
        self._kv = rpc.KVStub(self._channel)
        self._lease = rpc.LeaseStub(self._channel)
        self._watch = rpc.WatchStub(self._channel)
        self._auth = rpc.AuthStub(self._channel)
        self._maintenance = rpc.MaintenanceStub(self._channel)

    async def close(self) -> None:
        """Cut the connection."""
        await self._channel.close()
        await asyncio.sleep(_SETTLE)

    async def status(self) -> tuple[str, int]:
        """Its version, and etcd's Raft term as it knows it."""
        answer = await self._call(self._maintenance.Status, rpc.StatusRequest(), leader=False)
        return str(answer.version), int(answer.raftTerm)

    async def transact(
        self, compares: Sequence[Compare], then: Sequence[Operation], otherwise: Sequence[Operation] = ()
    ) -> Answer:
        """As `Store.transact`, once."""
        request = rpc.TxnRequest(
            compare=[to_compare(each) for each in compares],
            success=[to_operation(each) for each in then],
            failure=[to_operation(each) for each in otherwise],
        )
        answer = await self._call(self._kv.Txn, request)
        return Answer(
            succeeded=bool(answer.succeeded),
            revision=int(answer.header.revision),
            raft_term=int(answer.header.raft_term),
            found=tuple(found_in(each) for each in answer.responses),
        )

    async def read(self, prefix: str) -> Snapshot:
        """As `Store.read`, once: page by page, all at the revision of the first."""
        first, end = encoded_key(prefix), end_of(prefix)
        revision, limit, skipped = 0, _PAGE, 0
        pairs: list[KeyValue] = []
        while True:
            request = rpc.RangeRequest(
                key=first, range_end=end, limit=max(limit, 1), revision=revision, keys_only=limit == 0
            )
            try:
                answer = await self._call(self._kv.Range, request)
            except _TooLarge:
                limit //= 2
                continue
            revision = revision or int(answer.header.revision)
            if limit == 0:
                # The value of this one key alone is too long for an answer.
                skipped += len(answer.kvs)
            else:
                pairs.extend(from_pair(each) for each in answer.kvs)
            limit = max(limit, 1)
            if not answer.more or not answer.kvs:
                return Snapshot(revision=revision, pairs=tuple(pairs), skipped=skipped)
            first = answer.kvs[-1].key + b"\0"

    async def read_at(self, key: str, revision: int) -> KeyValue | None:
        """As `Store.read_at`, once."""
        answer = await self._call(self._kv.Range, rpc.RangeRequest(key=encoded_key(key), revision=revision))
        return from_pair(answer.kvs[0]) if answer.kvs else None

    async def grant(self, lease: int, seconds: int) -> int:
        """As `Store.grant`, once."""
        try:
            answer = await self._call(self._lease.LeaseGrant, rpc.LeaseGrantRequest(ID=lease, TTL=seconds))
        except _LeaseExists:
            # The answer to an earlier attempt was lost; the number is random, so it is ours.
            return seconds
        return int(answer.TTL)

    async def keep_alive(self, lease: int) -> int:
        """As `Store.keep_alive`, once, on a stream of its own: it may be another server each time."""

        async def ask(requests: Any, **options: Any) -> Any:
            call = self._lease.LeaseKeepAlive(**options)
            try:
                await call.write(requests)
                return await call.read()
            finally:
                call.cancel()

        answer = await self._call(ask, rpc.LeaseKeepAliveRequest(ID=lease))
        if answer is aio.EOF:
            raise CallFailed(f"{self.address}: the stream of keep-alives ended")
        if answer.TTL <= 0:
            raise LeaseGone(f"lease {lease:x}")
        return int(answer.TTL)

    async def revoke(self, lease: int) -> int:
        """As `Store.revoke`, once."""
        try:
            answer = await self._call(self._lease.LeaseRevoke, rpc.LeaseRevokeRequest(ID=lease))
        except LeaseGone:
            return 0
        return int(answer.header.revision)

    @asynccontextmanager
    async def watch(self, prefix: str, start: int, *, interval: float) -> AsyncIterator[AsyncIterator[Batch]]:
        """As `Store.watch`; the server is asked for a sign of life every `interval` seconds."""
        await self._authenticated()

        async def requests() -> AsyncIterator[Any]:
            first, end = encoded_key(prefix), end_of(prefix)
            create = rpc.WatchCreateRequest(key=first, range_end=end, start_revision=start, fragment=True)
            yield rpc.WatchRequest(create_request=create)
            while True:
                await asyncio.sleep(interval)
                yield rpc.WatchRequest(progress_request=rpc.WatchProgressRequest())

        call = self._watch.Watch(requests(), metadata=self._metadata(leader=True))
        try:
            yield self._batches(call, interval + self._limit)
        finally:
            call.cancel()

    async def _batches(self, call: Any, silence: float) -> AsyncIterator[Batch]:
        while True:
            try:
                # To cut a read short ends the whole stream in grpc.aio, which is what is wanted here.
                async with asyncio.timeout(silence):
                    answer = await call.read()
            except grpc.RpcError as error:
                self._token = None
                raise CallFailed(f"{self.address}: the watch broke: {self._failure(error)}") from None
            except TimeoutError:
                raise CallFailed(f"{self.address}: the watch has fallen silent") from None
            except asyncio.CancelledError:
                self._raise_if_closed()
                raise
            if answer is aio.EOF:
                raise CallFailed(f"{self.address}: the watch ended")
            if answer.canceled:
                # It may have been for the token; the next call gets another.
                self._token = None
                why = answer.cancel_reason or f"compacted at {answer.compact_revision}"
                raise CallFailed(f"{self.address}: the watch was cancelled: {why}")
            yield Batch(changes=tuple(from_event(each) for each in answer.events), whole=not answer.fragment)

    async def _call(self, method: Callable[..., Awaitable[Any]], request: Any, *, leader: bool = True) -> Any:
        await self._authenticated()
        try:
            return await self._once(method, request, leader=leader)
        except _TokenStale:
            self._token = None
        await self._authenticated()
        try:
            return await self._once(method, request, leader=leader)
        except _TokenStale as error:
            raise EngineUnavailable(
                f"raft: etcd at {self.address} wants a user: {error}; set [raft.etcd] user and password"
            ) from None

    async def _once(self, method: Callable[..., Awaitable[Any]], request: Any, *, leader: bool) -> Any:
        try:
            # gRPC's own deadline is told to the server; the loop's sees to it that it is kept.
            async with asyncio.timeout(self._limit + 0.05):
                return await method(request, timeout=self._limit, metadata=self._metadata(leader=leader))
        except grpc.RpcError as error:
            raise self._failure(error) from None
        except TimeoutError:
            raise CallFailed(f"{self.address}: no answer within {self._limit:g} s") from None
        except asyncio.CancelledError:
            self._raise_if_closed()
            raise

    async def _authenticated(self) -> None:
        if not self._access.user or self._token is not None:
            return
        request = rpc.AuthenticateRequest(name=self._access.user, password=self._access.password)
        answer = await self._once(self._auth.Authenticate, request, leader=False)
        self._token = str(answer.token)

    def _metadata(self, *, leader: bool) -> tuple[tuple[str, str], ...]:
        needs = (_NEEDS_LEADER,) if leader else ()
        return needs if self._token is None else (*needs, ("token", self._token))

    def _failure(self, error: Any) -> Exception:
        """What a status means; etcd's texts are constants of its API (rpctypes)."""
        code, text = error.code(), error.details() or ""
        found: Exception
        if "requested lease not found" in text:
            found = LeaseGone(text)
        elif "lease already exists" in text:
            found = _LeaseExists(text)
        elif "required revision has been compacted" in text:
            found = Compacted(text)
        elif code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in text:
            found = _TooLarge(text)
        elif code is grpc.StatusCode.UNAUTHENTICATED or any(each in text for each in _STALE_TOKEN):
            found = _TokenStale(text)
        elif code in _NEVER_MIND:
            found = EngineUnavailable(f"raft: etcd at {self.address} refuses: {text or code.name}")
        else:
            found = CallFailed(f"{self.address}: {code.name}: {text[:200]}")
        return found

    def _raise_if_closed(self) -> None:
        task = asyncio.current_task()
        if task is not None and not task.cancelling():
            # grpc.aio cancels when the channel is closed under a call: nobody cancelled us.
            raise CallFailed(f"{self.address}: the connection was closed") from None


class _TokenStale(CallFailed):
    """The server wants a user, or does not know the token."""


class _TooLarge(CallFailed):
    """An answer is longer than is taken."""


class _LeaseExists(CallFailed):
    """A lease of that number is there."""
