"""OTLP over HTTP with aiohttp, by the letter of the specification.

POSTs protobuf over connections that are kept alive. Exactly 429, 502, 503, 504 and failed
connections are tried again, with backoff and `Retry-After`, inside one deadline; partial success is
read and told. Neither headers nor a password in the address ever reach a log line or an error.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import random
import ssl
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NoReturn

import aiohttp
from opentelemetry.sdk.trace import ReadableSpan
from yarl import URL

from mapek_runtime.errors import ConfigError, TransportError, TransportRejected

from .environment import is_header, read_headers, read_number, read_text
from .retry import RETRYABLE_STATUSES, Backoff, parse_retry_after

__all__ = ["OTLPSpanExporter"]

logger = logging.getLogger(__name__)

DEFAULT_ENDPOINT = "http://localhost:4318/v1/traces"
DEFAULT_TIMEOUT_MS = 10_000
SHORT_TIMEOUT_MS = 100
MAX_REQUEST_BYTES = 64 * 1024 * 1024
MAX_RESPONSE_BYTES = 4 * 1024 * 1024
GZIP_LEVEL = 1
"""Level 6 costs as much as encoding does and saves another 7 % (measured); 1 costs a third of it."""
IN_PLACE_BYTES = 4096
"""Below this a compression takes some 50 microseconds, less than handing it to a thread."""
MESSAGE_LIMIT = 200


class OTLPSpanExporter:
    """Sends OTLP requests to a collector; an asyncio exporter for `BatchSpanProcessor`.

    Arguments are named as in the SDK's exporter, and default to `OTEL_EXPORTER_OTLP_TRACES_*`, then
    `OTEL_EXPORTER_OTLP_*`. `endpoint` is the full address; `timeout` is in seconds, for one export
    with all its retries (the variable is in milliseconds, as specified). A `session` that is given
    is used as it is and never closed.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        certificate_file: str | None = None,
        client_key_file: str | None = None,
        client_certificate_file: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        compression: Any = None,  # "gzip", "none" or the SDK's enum, whose members have a `value`
        session: aiohttp.ClientSession | None = None,
        *,
        backoff: Backoff | None = None,
    ) -> None:
        self._url = _endpoint(endpoint)
        self._where = _without_secrets(self._url)
        self._timeout = timeout if timeout is not None else _timeout_from_environment()
        if self._timeout < 0:
            raise ConfigError(f"timeout is {timeout!r}; it must be positive, or 0 for no limit")
        self._gzip = _compression(compression) == "gzip"
        self._ssl_files = (
            certificate_file or _read("CERTIFICATE"),
            client_certificate_file or _read("CLIENT_CERTIFICATE"),
            client_key_file or _read("CLIENT_KEY"),
        )
        self._ssl = _ssl_context(*self._ssl_files) if self._url.scheme == "https" else None
        self._headers = _headers(headers, gzipped=self._gzip)
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

    async def send(self, payload: bytes, count: int) -> None:
        """Deliver a request of `count` spans; raises TransportError or TransportRejected."""
        if self._closed:
            raise TransportError("the exporter is closed", error_type="already_shutdown")
        if len(payload) > MAX_REQUEST_BYTES:
            raise TransportError(
                f"a request of {len(payload)} bytes is over the limit of {MAX_REQUEST_BYTES}",
                error_type="request_too_large",
            )
        loop = asyncio.get_running_loop()
        deadline = loop.time() + (self._timeout or float("inf"))
        body = await self._compressed(payload)
        attempt = 0
        earlier: TransportError | None = None
        while True:
            attempt += 1
            try:
                return await self._attempt(body, deadline)
            except TransportError as error:
                if earlier is not None and error.error_type == "timeout":
                    # The deadline cut this attempt short; what failed before it says why.
                    raise earlier from None
                if not error.retryable:
                    raise
                earlier = error
                wait = self._backoff.delay(
                    attempt,
                    chance=self._random.random(),
                    remaining=deadline - loop.time(),
                    retry_after=error.retry_after,
                )
                if wait is None:
                    raise
            await asyncio.sleep(wait)

    def export(self, spans: Sequence[ReadableSpan]) -> NoReturn:
        """Refuse loudly: this is what a processor of the SDK calls, and it would lose the spans."""
        raise TypeError(
            f"OTLPSpanExporter is an asyncio exporter and cannot take {len(spans)} spans from a processor of "
            "the SDK; give it to mapek_runtime.BatchSpanProcessor"
        )

    def shutdown(self) -> None:
        """Refuse loudly, as `export` does."""
        raise TypeError("OTLPSpanExporter is an asyncio exporter; await aclose()")

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
            # Kept, not closed: closing would say goodbye on connections that the parent still uses.
            _inherited.append(self._session)
        self._session = self._loop = None

    async def _attempt(self, body: bytes, deadline: float) -> None:
        try:
            async with asyncio.timeout_at(deadline if deadline != float("inf") else None):
                async with self._open().post(
                    self._url, data=body, headers=self._headers, ssl=self._ssl or True, allow_redirects=False
                ) as response:
                    answer = await _read_limited(response)
                    if response.status == 200:
                        _check_success(response.content_type, answer)
                        return
                    raise _refusal(self._where, response, answer)
        except TimeoutError:
            raise TransportError(
                f"{self._where}: no answer within {self._timeout:g} s", error_type="timeout"
            ) from None
        except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError) as error:
            # A certificate does not get better by asking again.
            raise TransportError(
                f"{self._where}: TLS failed: {type(error).__name__}", error_type=type(error).__name__
            ) from None
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, OSError) as error:
            raise TransportError(
                f"{self._where}: {_reason(error)}", retryable=True, error_type=type(error).__name__
            ) from None
        except aiohttp.ClientError as error:
            # The text of the error may hold headers or the address as it was given.
            raise TransportError(
                f"{self._where}: {type(error).__name__}", error_type=type(error).__name__
            ) from None

    def _open(self) -> aiohttp.ClientSession:
        if self._given is not None:
            return self._given
        loop = asyncio.get_running_loop()
        if self._session is None or self._loop is not loop:
            if self._session is not None:
                # Its loop ended without us; nothing can be awaited there any more.
                self._session.detach()
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=None),
                cookie_jar=aiohttp.DummyCookieJar(),
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60),
                trust_env=True,
            )
            self._loop = loop
        return self._session

    async def _compressed(self, payload: bytes) -> bytes:
        if not self._gzip:
            return payload
        if len(payload) < IN_PLACE_BYTES:
            return gzip.compress(payload, GZIP_LEVEL, mtime=0)
        return await asyncio.to_thread(gzip.compress, payload, GZIP_LEVEL, mtime=0)

    def __repr__(self) -> str:
        return f"OTLPSpanExporter({self._where!r})"


_inherited: list[aiohttp.ClientSession] = []


async def _read_limited(response: aiohttp.ClientResponse) -> bytes:
    answer = bytearray()
    async for chunk in response.content.iter_any():
        answer += chunk
        if len(answer) > MAX_RESPONSE_BYTES:
            response.close()
            raise TransportError(
                f"the answer with status {response.status} is over the limit of {MAX_RESPONSE_BYTES} bytes",
                error_type="response_too_large",
            )
    return bytes(answer)


def _check_success(content_type: str, answer: bytes) -> None:
    """Raise TransportRejected when the collector refused some of the spans."""
    if not answer:
        return
    try:
        rejected, message = _partial_success(content_type, answer)
    except Exception:  # noqa: BLE001 - whatever the body holds, 200 says that the request was taken
        logger.debug("the answer to an export cannot be read as %r", content_type)
        return
    if rejected > 0:
        raise TransportRejected(
            f"the collector refused {rejected} spans: {_shorten(message)}", rejected_spans=rejected
        )
    if message:
        logger.info("the collector took the spans and says: %s", _shorten(message))


def _partial_success(content_type: str, answer: bytes) -> tuple[int, str]:
    if content_type == "application/json":
        partial = json.loads(answer).get("partialSuccess") or {}
        return int(partial.get("rejectedSpans") or 0), str(partial.get("errorMessage") or "")
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    success = ExportTraceServiceResponse.FromString(answer).partial_success
    return success.rejected_spans, success.error_message


def _refusal(where: str, response: aiohttp.ClientResponse, answer: bytes) -> TransportError:
    retryable = response.status in RETRYABLE_STATUSES
    said = _status_message(response.content_type, answer)
    return TransportError(
        f"{where} answered {response.status}" + (f": {said}" if said else ""),
        retryable=retryable,
        retry_after=parse_retry_after(response.headers.get("Retry-After"), datetime.now(UTC))
        if retryable
        else None,
        error_type=str(response.status),
    )


def _status_message(content_type: str, answer: bytes) -> str:
    """What a google.rpc.Status says; nothing for a body of another kind, which may be anything."""
    if content_type != "application/x-protobuf" or not answer:
        return ""
    try:
        from google.rpc.status_pb2 import Status

        return _shorten(Status.FromString(answer).message)
    except Exception:  # noqa: BLE001 - a body that cannot be read says nothing
        return ""


def _shorten(message: str) -> str:
    return repr(message[:MESSAGE_LIMIT]) if message else ""


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{type(error).__name__}: {error.strerror}"
    return type(error).__name__


def _read(name: str) -> str | None:
    return read_text(f"OTEL_EXPORTER_OTLP_TRACES_{name}", f"OTEL_EXPORTER_OTLP_{name}")


def _endpoint(given: str | None) -> URL:
    text = given or read_text("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    if text is None:
        general = read_text("OTEL_EXPORTER_OTLP_ENDPOINT")
        text = DEFAULT_ENDPOINT if general is None else general.rstrip("/") + "/v1/traces"
    try:
        url = URL(text)
    except ValueError:
        url = URL()
    if url.scheme not in {"http", "https"} or not url.host:
        # The text itself may hold a password.
        raise ConfigError("the OTLP endpoint cannot be read; it must look like http://host:4318/v1/traces")
    return url


def _without_secrets(url: URL) -> str:
    return str(url.with_user(None).with_query(None).with_fragment(None))


def _timeout_from_environment() -> float:
    milliseconds = read_number(
        "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT", default=DEFAULT_TIMEOUT_MS, least=0
    )
    if 0 < milliseconds < SHORT_TIMEOUT_MS:
        logger.warning(
            "the OTLP timeout is %g ms; the variable is in milliseconds, as specified, and not in seconds",
            milliseconds,
        )
    return milliseconds / 1000


def _compression(given: Any) -> str:
    text = getattr(given, "value", given)
    if text is not None:
        if text not in {"gzip", "none"}:
            raise ConfigError(f"compression is {text!r}; it must be 'gzip' or 'none'")
        return str(text)
    found = _read("COMPRESSION")
    if found is None or found.lower() in {"gzip", "none"}:
        return (found or "none").lower()
    logger.warning("OTEL_EXPORTER_OTLP_COMPRESSION is %r; it must be 'gzip' or 'none'; using 'none'", found)
    return "none"


def _headers(given: Mapping[str, str] | None, *, gzipped: bool) -> dict[str, str]:
    extra = (
        dict(given)
        if given is not None
        else read_headers("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS")
    )
    for key, value in extra.items():
        if not is_header(key, value):
            raise ConfigError(f"the header {key!r} cannot be sent; names and values must be on one line")
    headers = {"User-Agent": _user_agent(), **extra, "Content-Type": "application/x-protobuf"}
    if gzipped:
        headers["Content-Encoding"] = "gzip"
    return headers


def _user_agent() -> str:
    try:
        ours = version("mapek-runtime")
    except PackageNotFoundError:  # a checkout that is not installed
        ours = "0"
    return f"mapek-runtime/{ours} OTel-OTLP-Exporter-Python/{version('opentelemetry-sdk')}"


def _ssl_context(authority: str | None, certificate: str | None, key: str | None) -> ssl.SSLContext | None:
    if authority is None and certificate is None:
        return None
    try:
        context = ssl.create_default_context(cafile=authority)
        if certificate is not None:
            context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"the TLS files of the OTLP exporter cannot be used (authority {authority!r}, certificate "
            f"{certificate!r}, key {key!r}): {error}"
        ) from error
    return context
