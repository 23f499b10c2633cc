"""What a collector's answer over HTTP means: taken, taken in part, refused, to be tried again.

Pure functions over a status, headers and a body (opentelemetry-proto, docs/specification.md#otlphttp).
Every status of success is one, as for the SDKs of other languages: some collectors answer 202.
"""

from __future__ import annotations

import json
import logging
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime

from mapek_runtime.errors import TransportError
from mapek_runtime.export.notice import Notices
from mapek_runtime.export.retry import RETRYABLE_STATUSES, parse_retry_after

from .options import MAX_RESPONSE_BYTES, raise_partial_success, shorten

__all__ = ["check_answer", "too_large"]

logger = logging.getLogger(__name__)
_notices = Notices(logger)

PROTOBUF = "application/x-protobuf"


def check_answer(where: str, status: int, headers: Mapping[str, str], body: bytes) -> None:
    """Return when the collector took the spans; else raise TransportError or TransportRejected."""
    kind = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if body and headers.get("Content-Encoding", "identity").lower() in {"gzip", "deflate"}:
        body = _inflate(where, status, body)
    if not 200 <= status < 300:
        raise _refusal(where, status, headers, kind, body)
    if not body:
        return
    try:
        rejected, message = _partial_success(kind, body)
    except Exception:  # noqa: BLE001 - whatever the body holds, the status says that the request was taken
        if kind == "text/html":
            _notices.warn(where, "%s answered %d with a web page; is it a collector?", where, status)
        else:
            logger.debug("the answer to an export cannot be read as %r", kind)
        return
    raise_partial_success(rejected, message)


def too_large(where: str, status: int) -> TransportError:
    """The error for an answer over the limit, which is final."""
    return TransportError(
        f"{where}: the answer with status {status} is over the limit of {MAX_RESPONSE_BYTES} bytes",
        error_type="response_too_large",
        status_code=status,
    )


def _partial_success(kind: str, body: bytes) -> tuple[int, str]:
    if kind == "application/json":
        partial = json.loads(body).get("partialSuccess") or {}
        return int(partial.get("rejectedSpans") or 0), str(partial.get("errorMessage") or "")
    if kind not in {PROTOBUF, ""}:
        raise ValueError(kind)
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    success = ExportTraceServiceResponse.FromString(body).partial_success
    return success.rejected_spans, success.error_message


def _refusal(where: str, status: int, headers: Mapping[str, str], kind: str, body: bytes) -> TransportError:
    retryable = status in RETRYABLE_STATUSES
    said = _status_message(kind, body)
    if not said and 300 <= status < 400:
        said = "redirects are not followed"
    return TransportError(
        f"{where} answered {status}" + (f": {said}" if said else ""),
        retryable=retryable,
        retry_after=parse_retry_after(headers.get("Retry-After"), datetime.now(UTC)) if retryable else None,
        error_type=str(status),
        status_code=status,
    )


def _status_message(kind: str, body: bytes) -> str:
    """What a google.rpc.Status says; nothing for a body of another kind, which may be anything."""
    if not body or kind not in {PROTOBUF, "application/json"}:
        return ""
    try:
        if kind == PROTOBUF:
            from google.rpc.status_pb2 import Status

            return shorten(Status.FromString(body).message)
        return shorten(str(json.loads(body).get("message") or ""))
    except Exception:  # noqa: BLE001 - a body that cannot be read says nothing
        return ""


def _inflate(where: str, status: int, body: bytes) -> bytes:
    """The body of an answer that was compressed although nobody asked for it, never over the limit."""
    inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
    try:
        plain = inflater.decompress(body, MAX_RESPONSE_BYTES)
    except zlib.error:
        return b""
    if inflater.unconsumed_tail:
        raise too_large(where, status)
    return plain
