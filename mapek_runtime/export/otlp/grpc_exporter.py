"""OTLP over gRPC with grpc.aio, by the letter of the specification.

One connection is kept for all requests. Exactly the statuses that the specification names are tried
again, with backoff and the collector's `RetryInfo`, inside one deadline; partial success is read and told.
Neither headers nor what an address keeps secret ever reach a log line or an error.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import random
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]

from mapek_runtime.errors import ConfigError, TransportError
from mapek_runtime.export.retry import Backoff, persist

from .grpc_channel import Channel, Dial, forked, open_channel
from .grpc_status import CallFailed, check_answer, failure
from .grpc_target import Target, read_target
from .options import (
    MAX_RESPONSE_BYTES,
    check_size,
    read_compression,
    read_extra_headers,
    read_timeout,
    read_tls_files,
    user_agent,
)
from .refusal import AsyncioOnly

__all__ = ["OTLPGrpcSpanExporter"]

logger = logging.getLogger(__name__)

CHANNEL_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.max_receive_message_length", MAX_RESPONSE_BYTES),
    # Retries are ours: gRPC's own would go on behind the counters.
    ("grpc.enable_retries", 0),
    # After a refused connection gRPC fails calls for up to two minutes without dialling. The pauses are
    # ours too, so that a collector that is back is found by the next attempt.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.use_local_subchannel_pool", 1),
    # Servers hang up on who pings more often than every five minutes. No export lasts as long, so no ping
    # is ever sent; but with pings on, a connection whose data nobody confirms for ten seconds is given
    # up (TCP_USER_TIMEOUT), and not after the quarter of an hour that the kernel would try.
    ("grpc.keepalive_time_ms", 300_000),
    ("grpc.keepalive_timeout_ms", 10_000),
)

_KEY = re.compile(r"[0-9a-z_.-]+")
_VALUE = re.compile(r"[\x20-\x7e]*")
CLOCKS_DIFFER = 0.01
"""Seconds by which gRPC may find the deadline over before the loop does."""

SECRET_LENGTH = 4
"""Shorter header values are no secrets; to cut "1" out of every message would spoil it."""


class OTLPGrpcSpanExporter(AsyncioOnly):
    """Sends OTLP requests to a collector over gRPC; an asyncio exporter for `BatchSpanProcessor`.

    Arguments are named as in the SDK's gRPC exporter, and default to `OTEL_EXPORTER_OTLP_TRACES_*`, then
    `OTEL_EXPORTER_OTLP_*`. `timeout` is in seconds, for one export with all its retries (the variable is in
    milliseconds, as specified). `channel_options` come after ours and win.

    gRPC does not survive a fork: in the child of a process that has exported over gRPC, `send` is refused.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        insecure: bool | None = None,
        credentials: Any = None,  # grpc.ChannelCredentials, which have no types
        headers: Mapping[str, str] | Sequence[tuple[str, str]] | None = None,
        timeout: float | None = None,
        compression: Any = None,  # "gzip", "none", or a member of the SDK's enum or of grpc.Compression
        channel_options: Sequence[tuple[str, Any]] | None = None,
        *,
        backoff: Backoff | None = None,
    ) -> None:
        target = read_target(endpoint, insecure)
        metadata = _metadata(headers)
        self._where = target.shown
        self._timeout = read_timeout(timeout)
        self._dial = Dial(
            address=target.address,
            credentials=_credentials(target, credentials),
            options=_channel_options(channel_options or ()),
            metadata=tuple(
                (key, value.encode() if key.endswith("-bin") else value) for key, value in metadata.items()
            ),
            gzip=read_compression(_named(compression)) == "gzip",
        )
        self._secrets = tuple(value for value in metadata.values() if len(value) >= SECRET_LENGTH)
        self._backoff = backoff if backoff is not None else Backoff()
        self._random = random.Random()  # its own, so that seeding the program's changes nothing here
        self._channel: Channel | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    @property
    def endpoint(self) -> str:
        """Where requests go, without user, password and query."""
        return self._where

    async def send(self, payload: bytes, count: int) -> None:
        """Deliver a request of `count` spans; raises TransportError or TransportRejected."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + (self._timeout or math.inf)
        await persist(
            lambda: self._attempt(loop, payload, deadline),
            deadline=deadline,
            backoff=self._backoff,
            chance=self._random.random,
        )

    async def send_once(self, payload: bytes, count: int) -> None:
        """The same without trying again: for whoever keeps the request, as a spool does."""
        loop = asyncio.get_running_loop()
        await self._attempt(loop, payload, loop.time() + (self._timeout or math.inf))

    async def release(self) -> None:
        """Close the connection of the running loop; the next request opens another."""
        channel = self._channel
        if channel is not None and self._loop is asyncio.get_running_loop():
            self._channel = self._loop = None
            if not forked():
                await channel.close()

    async def aclose(self) -> None:
        """Close the connection; nothing is sent afterwards."""
        self._closed = True
        await self.release()

    def after_fork(self) -> None:
        """Leave the connection to the parent of the fork; from here on `send` says why it cannot."""
        self._channel = self._loop = None

    def _open(self, loop: asyncio.AbstractEventLoop) -> Channel:
        if self._closed:
            raise TransportError("the exporter is closed", error_type="already_shutdown")
        if self._channel is None or self._loop is not loop or forked():
            # A channel of another loop is let go: that loop ended without us.
            self._channel = None
            self._channel = open_channel(self._dial)
            self._loop = loop
        return self._channel

    async def _attempt(self, loop: asyncio.AbstractEventLoop, payload: bytes, deadline: float) -> None:
        check_size(self._where, payload)
        remaining = None if deadline == math.inf else max(0.0, deadline - loop.time())
        try:
            answer = await self._open(loop).call(payload, remaining)
        except CallFailed as failed:
            if failed.name == "DEADLINE_EXCEEDED" and loop.time() >= deadline - CLOCKS_DIFFER:
                raise TransportError(
                    f"{self._where}: no answer within {self._timeout:g} s",
                    retryable=True,
                    error_type="timeout",
                ) from None
            error = failure(self._where, failed, self._secrets)
            if self._closed:
                error.retryable = False
            raise error from None
        check_answer(answer)

    def __repr__(self) -> str:
        return f"OTLPGrpcSpanExporter({self._where!r})"


def _metadata(given: Mapping[str, str] | Sequence[tuple[str, str]] | None) -> dict[str, str]:
    if isinstance(given, str):
        raise ConfigError("headers are text; they must be a mapping or pairs, such as {'x-token': '...'}")
    headers = read_extra_headers(given if given is None or isinstance(given, Mapping) else dict(given))
    for key, value in list(headers.items()):
        if _KEY.fullmatch(key) and not key.startswith("grpc-") and _VALUE.fullmatch(value):
            continue
        # gRPC would refuse each call with it, and repeat it in the error.
        if given is not None:
            raise ConfigError(
                f"the header {key!r} cannot be sent over gRPC; a name is made of 0-9 a-z _ - . and is not "
                "gRPC's own, a value of printable ASCII"
            )
        logger.warning("the header %r of OTEL_EXPORTER_OTLP_HEADERS cannot be sent over gRPC; left out", key)
        del headers[key]
    return headers


def _credentials(target: Target, given: Any) -> Callable[[], Any] | None:
    if not target.secure:
        if given is not None:
            raise ConfigError(
                f"credentials are given for {target.shown}, which is an insecure connection; use https://, "
                "or leave the credentials out"
            )
        return None
    if given is not None:
        return lambda: given
    files = read_tls_files(None, None, None)
    if files:
        files.context()  # says which file is wrong, and how; gRPC would say so at every handshake
    key = files.key or files.certificate
    return functools.partial(
        grpc.ssl_channel_credentials,
        root_certificates=_read(files.authority),
        private_key=_read(key),
        certificate_chain=_read(files.certificate),
    )


def _read(path: str | None) -> bytes | None:
    return None if path is None else Path(path).read_bytes()


def _channel_options(given: Sequence[tuple[str, Any]]) -> tuple[tuple[str, Any], ...]:
    options = {"grpc.primary_user_agent": user_agent(), **dict(CHANNEL_OPTIONS), **dict(given)}
    return tuple(options.items())


def _named(compression: Any) -> Any:
    """The word for a member of grpc.Compression, whose values are numbers; anything else as it is."""
    words = {grpc.Compression.Gzip: "gzip", grpc.Compression.NoCompression: "none"}
    return words.get(compression, compression) if isinstance(compression, grpc.Compression) else compression
