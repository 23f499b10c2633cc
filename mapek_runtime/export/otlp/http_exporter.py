"""OTLP over HTTP with aiohttp, by the letter of the specification.

POSTs protobuf over connections that are kept alive. Exactly 429, 502, 503, 504 and failed connections
are tried again, with backoff and `Retry-After`, inside one deadline; redirects are not followed, because
they would carry the headers elsewhere. Neither headers nor what an address keeps secret ever reach a log
line or an error. With a numeric address, or a Unix socket, and without compression nothing here uses a
thread; aiohttp looks a host name up in one.
"""

from __future__ import annotations

import asyncio
import gzip
import os
import random
import ssl
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp

from mapek_runtime.errors import TransportError
from mapek_runtime.export.retry import RETRYABLE_STATUSES, Backoff, persist

from .http_address import HttpAddress, read_address
from .http_answer import check_answer, too_large
from .http_connections import leave_connections, make_connector, reused
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

__all__ = ["OTLPSpanExporter"]

GZIP_LEVEL = 1
"""Level 6 costs about as much as encoding does; 1 costs less than half of that, and its requests are a
few percent larger (measured, `docs/design.md`)."""
IN_PLACE_BYTES = 4096
"""Below this a compression takes some 50 microseconds, less than handing it to a thread."""
_FRAMING = frozenset({"content-length", "transfer-encoding", "connection", "expect"})
"""What HTTP itself writes; a user's header of that name would break the request."""


class OTLPSpanExporter(AsyncioOnly):
    """Sends OTLP requests to a collector; an asyncio exporter for `BatchSpanProcessor`.

    Arguments are named as in the SDK's exporter, and default to `OTEL_EXPORTER_OTLP_TRACES_*`, then
    `OTEL_EXPORTER_OTLP_*`. `endpoint` is the full address, or `unix:///run/collector.sock`; `timeout` is
    in seconds, for one export with all its retries (the variable is in milliseconds, as specified). A
    `session` that is given is used as it is, with its proxies, and never closed.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        certificate_file: str | Path | None = None,
        client_key_file: str | Path | None = None,
        client_certificate_file: str | Path | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        compression: Any = None,  # "gzip", "none" or the SDK's enum, whose members have a `value`
        session: aiohttp.ClientSession | None = None,
        *,
        backoff: Backoff | None = None,
    ) -> None:
        self._address = read_address(endpoint)
        self._where = self._address.where
        self._timeout = read_timeout(timeout)
        self._gzip = read_compression(compression) == "gzip"
        files = read_tls_files(certificate_file, client_certificate_file, client_key_file)
        self._ssl = files.context() if files and self._address.url.scheme == "https" else True
        self._headers = _headers(self._address, read_extra_headers(headers), gzipped=self._gzip)
        self._backoff = backoff if backoff is not None else Backoff()
        self._random = random.Random()  # its own, so that seeding the program's changes nothing here
        self._given = session
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    @property
    def endpoint(self) -> str:
        """Where requests go, without user, password and query."""
        return self._where

    async def send(self, payload: bytes, count: int) -> int:
        """Deliver a request of `count` spans; raises TransportError or TransportRejected.

        Gives the status of the answer.
        """
        deadline = self._deadline()
        body = await self._body(payload, deadline)
        return await persist(
            lambda: self._attempt(body, deadline),
            deadline=deadline,
            backoff=self._backoff,
            chance=self._random.random,
        )

    async def send_once(self, payload: bytes, count: int) -> int:
        """The same without trying again: for whoever keeps the request, as a spool does."""
        deadline = self._deadline()
        body = await self._body(payload, deadline)
        try:
            return await self._attempt(body, deadline)
        except TransportError as error:
            if error.status_code is None and not self._closed:
                # What kept it from the collector, a bad certificate too, may be mended meanwhile.
                error.retryable = True
            raise

    async def release(self) -> None:
        """Close the connections of the running loop; the next request opens others."""
        session = self._session
        if session is not None and self._loop is asyncio.get_running_loop():
            self._session = self._loop = None
            await session.close()

    async def aclose(self) -> None:
        """Close the connections; nothing is sent afterwards."""
        self._closed = True
        await self.release()

    def after_fork(self) -> None:
        """Leave the connections to the parent of the fork."""
        if self._session is not None:
            leave_connections(self._session)
        self._session = self._loop = None

    async def _attempt(self, body: bytes, deadline: float) -> int:
        if self._closed:
            raise TransportError(f"{self._where}: the exporter is closed", error_type="already_shutdown")
        try:
            async with asyncio.timeout_at(deadline if deadline != float("inf") else None):
                while (status := await self._post(body)) is None:
                    # The collector had closed an idle connection: nothing was wrong with it or with us.
                    pass
                return status
        except TimeoutError:
            raise self._timed_out() from None
        except (aiohttp.ClientError, OSError) as error:
            # Without a cause: the text of aiohttp's errors may hold headers or the address as it was given.
            raise _fault(self._where, error) from None

    async def _post(self, body: bytes) -> int | None:
        """Send once, give the status; None when a connection that was kept alive turned out closed."""
        reused.set(False)
        response = None
        try:
            response = await self._open().post(
                self._address.url,
                data=_Body(body),
                headers=self._headers if self._given is not None else None,
                ssl=self._ssl,
                proxy=self._address.proxy if self._given is None else None,
                allow_redirects=False,
            )
            answer = bytearray()
            async for chunk in response.content.iter_any():
                answer += chunk
                if len(answer) > MAX_RESPONSE_BYTES:
                    raise too_large(self._where, response.status)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, ConnectionResetError):
            if response is None and reused.get():
                return None
            raise
        finally:
            # Nothing to do after a whole answer, whose connection went back to the others.
            if response is not None:
                response.close()
        check_answer(self._where, response.status, response.headers, bytes(answer))
        return response.status

    def _open(self) -> aiohttp.ClientSession:
        if self._given is not None:
            return self._given
        loop = asyncio.get_running_loop()
        if self._session is None or self._loop is not loop:
            if self._session is not None:
                # Its loop ended without us; nothing can be awaited there any more.
                self._session.detach()
            self._session = aiohttp.ClientSession(
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(total=None),
                cookie_jar=aiohttp.DummyCookieJar(),
                connector=make_connector(self._address.socket),
                # Answers are a few bytes and were not asked to be compressed; a bomb stays folded.
                auto_decompress=False,
            )
            self._loop = loop
        return self._session

    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + (self._timeout or float("inf"))

    async def _body(self, payload: bytes, deadline: float) -> bytes:
        check_size(self._where, payload)
        if not self._gzip:
            return payload
        if len(payload) < IN_PLACE_BYTES:
            return gzip.compress(payload, GZIP_LEVEL, mtime=0)
        try:
            # The program's own jobs may have taken every thread there is.
            async with asyncio.timeout_at(deadline if deadline != float("inf") else None):
                return await asyncio.to_thread(gzip.compress, payload, GZIP_LEVEL, mtime=0)
        except TimeoutError:
            raise self._timed_out() from None

    def _timed_out(self) -> TransportError:
        return TransportError(f"{self._where}: no answer within {self._timeout:g} s", error_type="timeout")

    def __repr__(self) -> str:
        return f"OTLPSpanExporter({self._where!r})"


class _Body(aiohttp.Payload):
    """Bytes that are written at once: aiohttp would warn above 1 MiB, or write by turns."""

    def __init__(self, value: bytes) -> None:
        super().__init__(value, content_type="application/x-protobuf")
        self._size = len(value)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return str(self._value, encoding, errors)

    async def write(self, writer: Any) -> None:
        await writer.write(self._value)


def _headers(address: HttpAddress, extra: dict[str, str], *, gzipped: bool) -> dict[str, str]:
    headers = {"user-agent": user_agent(), "accept": "*/*", "accept-encoding": "identity"}
    if address.user is not None or address.password is not None:
        pair = f"{address.user or ''}:{address.password or ''}".encode()
        headers["authorization"] = f"Basic {b64encode(pair).decode()}"
    headers |= {key: value for key, value in extra.items() if key not in _FRAMING}
    headers["content-type"] = "application/x-protobuf"
    headers.pop("content-encoding", None)
    if gzipped:
        headers["content-encoding"] = "gzip"
    return headers


def _fault(where: str, error: Exception) -> TransportError:
    """Why there was no answer, in words without secrets, and whether it is worth another attempt."""
    name = type(error).__name__
    cause = _tls_cause(error)
    if cause is not None:
        # A certificate does not get better by asking again.
        return TransportError(f"{where}: TLS failed: {cause}", error_type=name)
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return TransportError(
            f"{where}: the proxy answered {error.status}",
            retryable=error.status in RETRYABLE_STATUSES,
            error_type=str(error.status),
            status_code=error.status,
        )
    if isinstance(error, aiohttp.ClientResponseError):
        return TransportError(f"{where}: the answer is not HTTP; is it the right port?", error_type=name)
    reason = f"{name}: {os.strerror(error.errno)}" if isinstance(error, OSError) and error.errno else name
    retryable = isinstance(error, aiohttp.ClientConnectionError | aiohttp.ClientPayloadError | OSError)
    return TransportError(f"{where}: {reason}", retryable=retryable, error_type=name)


def _tls_cause(error: Exception) -> str | None:
    """What was wrong with TLS itself; None for everything else, a connection that broke included."""
    certificate_error, os_error = getattr(error, "certificate_error", None), getattr(error, "os_error", None)
    for found in (certificate_error, os_error, error, error.__cause__, error.__context__):
        if isinstance(found, ssl.SSLCertVerificationError):
            return found.verify_message or "certificate verify failed"
        if isinstance(found, ssl.SSLEOFError | ssl.SSLZeroReturnError | ssl.SSLSyscallError):
            return None
        if isinstance(found, ssl.SSLError):
            return found.reason or type(found).__name__
    return None
