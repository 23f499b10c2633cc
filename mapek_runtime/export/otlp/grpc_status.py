"""What a gRPC status means for an export: try again or not, and when.

The rules are those of the OTLP specification (opentelemetry-proto, docs/specification.md#failures):
exactly six statuses may be tried again, and RESOURCE_EXHAUSTED only when the collector says with a
`RetryInfo` that it will recover. Pure decisions over values; knows no channel and imports no gRPC.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from mapek_runtime.errors import TransportError

from .options import raise_partial_success, shorten

__all__ = ["RETRYABLE_STATUSES", "CallFailed", "check_answer", "failure", "read_retry_delay"]

logger = logging.getLogger(__name__)

RETRYABLE_STATUSES = frozenset(
    {"CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"}
)

STATUS_DETAILS = "grpc-status-details-bin"
HIDDEN = "***"


class CallFailed(Exception):
    """A call ended with another status than OK; never leaves the exporter."""

    def __init__(
        self, name: str, number: int, details: str = "", trailers: Iterable[tuple[str, str | bytes]] = ()
    ) -> None:
        super().__init__(name)
        self.name = name
        self.number = number
        self.details = details
        self.trailers = tuple(trailers)


def failure(where: str, failed: CallFailed, secrets: Iterable[str] = ()) -> TransportError:
    """The error for a call that failed; `secrets` are cut out of what the collector said."""
    delay = read_retry_delay(failed.trailers)
    retryable = failed.name in RETRYABLE_STATUSES or (
        failed.name == "RESOURCE_EXHAUSTED" and delay is not None
    )
    said = failed.details
    for secret in secrets:
        said = said.replace(secret, HIDDEN)
    return TransportError(
        f"{where}: {failed.name}" + (f": {shorten(said)}" if said else ""),
        retryable=retryable,
        retry_after=delay if retryable else None,
        error_type=failed.name,
        status_code=failed.number,
    )


def read_retry_delay(trailers: Sequence[tuple[str, str | bytes]]) -> float | None:
    """The seconds that the `RetryInfo` of a status asks to wait; None when it has none.

    A `RetryInfo` without a delay, or with a negative one, says 0: come back, and no word on when.
    """
    for key, value in trailers:
        if key != STATUS_DETAILS or not isinstance(value, bytes):
            continue
        from google.rpc.error_details_pb2 import RetryInfo
        from google.rpc.status_pb2 import Status

        try:
            for detail in Status.FromString(value).details:
                info = RetryInfo()
                if detail.Unpack(info):
                    delay: float = info.retry_delay.seconds + info.retry_delay.nanos / 1e9
                    return max(0.0, delay)
        except Exception:  # noqa: BLE001 - details that cannot be read say nothing
            logger.debug("the details of a gRPC status cannot be read")
    return None


def check_answer(answer: bytes) -> None:
    """Raise TransportRejected when the collector took the request and refused some of the spans."""
    if not answer:
        return
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    try:
        partial = ExportTraceServiceResponse.FromString(answer).partial_success
    except Exception:  # noqa: BLE001 - whatever the message holds, OK says that the request was taken
        logger.debug("the answer to an export cannot be read")
        return
    raise_partial_success(partial.rejected_spans, partial.error_message)
