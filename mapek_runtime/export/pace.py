"""The pace of export: how much is held, when it is sent, and how much at once; from `OTEL_BSP_*`."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from .environment import read_number

__all__ = ["Pace", "read_pace"]

logger = logging.getLogger(__name__)

DEFAULT_QUEUE_SIZE = 65_536
"""The specification says 2,048. An asyncio program creates 100,000 spans a second and more, so that
2,048 are full after 20 ms, which is less than one busy turn of a loop: a healthy collector would lose
half. 65,536 spans are at most about 60 MB, and that only while the collector does not keep up."""

DEFAULT_BATCH_SIZE = 512
DEFAULT_AHEAD = 8
"""Unless a queue size is set, so many times the spans of the queue may wait encoded for an exporter, and
at most 96 MiB. That is room for the eight or so turns of the loop that a first connection takes: with
10,000 busy tasks each turn creates 60,000 spans."""
DEFAULT_REQUEST_SIZE = 8_192
"""Unless a batch size is set, spans that had to wait travel in requests of up to this many: under a
backlog, fewer and larger requests are what lets it shrink. Larger ones do not fit into the buffer of a
socket, so that each takes more turns of the loop."""

DEFAULT_DELAY_MS = 5_000
DEFAULT_EXPORT_TIMEOUT_MS = 30_000
DEFAULT_CONCURRENCY = 4
FULL_CONCURRENCY = 48
"""Requests at once while the queue is over half full, unless a number is set. A request takes some
turns of the loop, and with 10,000 busy tasks each turn creates 60,000 spans."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """When to send, and how much at once; times in seconds."""

    capacity: int
    """Ended spans that may wait."""
    ahead: int
    """Encoded spans that may wait for one exporter; of spans that are not encoded, `capacity`."""
    delay: float
    export_timeout: float
    size: int
    """Spans that make a batch worth sending."""
    most: int
    """Spans that one request may hold when there is a backlog."""
    at_once: int
    """Requests that one exporter may have in flight."""
    most_at_once: int
    """The same while the queue is over half full."""


def read_pace(
    max_queue_size: int | None,
    schedule_delay_millis: float | None,
    max_export_batch_size: int | None,
    export_timeout_millis: float | None,
    max_concurrency: int | None,
) -> Pace:
    """The pace that the arguments ask for, else the environment, else the defaults.

    Raises ValueError for a wrong argument; a wrong variable warns and counts as unset.
    """
    if max_concurrency is not None and max_concurrency < 1:
        raise ValueError(f"max_concurrency is {max_concurrency!r}; it must be at least 1")
    capacity, ahead, size, most = _sizes(max_queue_size, max_export_batch_size)
    delay = _setting(
        "schedule_delay_millis", schedule_delay_millis, "OTEL_BSP_SCHEDULE_DELAY", DEFAULT_DELAY_MS
    )
    limit = _setting(
        "export_timeout_millis", export_timeout_millis, "OTEL_BSP_EXPORT_TIMEOUT", DEFAULT_EXPORT_TIMEOUT_MS
    )
    return Pace(
        capacity=capacity,
        ahead=ahead,
        delay=delay / 1000,
        export_timeout=limit / 1000,
        size=size,
        most=most,
        at_once=max_concurrency or DEFAULT_CONCURRENCY,
        # Whoever sets a size does not expect many times as much to be in flight.
        most_at_once=max_concurrency or (FULL_CONCURRENCY if ahead > capacity else DEFAULT_CONCURRENCY),
    )


def _setting(name: str, value: float | None, variable: str, default: float, *, whole: bool = False) -> float:
    if value is None:
        return read_number(variable, default=default, whole=whole)
    if value <= 0:
        raise ValueError(f"{name} is {value!r}; it must be positive")
    return value


def _sizes(queue: int | None, batch: int | None) -> tuple[int, int, int, int]:
    """The queue, what may wait encoded, the batch that wakes the task, and the largest request."""
    asked = int(_setting("max_queue_size", queue, "OTEL_BSP_MAX_QUEUE_SIZE", 0, whole=True))
    capacity = asked or DEFAULT_QUEUE_SIZE
    ahead = asked or DEFAULT_QUEUE_SIZE * DEFAULT_AHEAD
    size = int(_setting("max_export_batch_size", batch, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 0, whole=True))
    if size > capacity:
        if batch is not None:
            raise ValueError(
                f"max_export_batch_size is {batch!r}; it must be at most max_queue_size, {capacity}"
            )
        logger.warning("OTEL_BSP_MAX_EXPORT_BATCH_SIZE is %d; using %d, the queue size", size, capacity)
        size = capacity
    if size:
        return capacity, ahead, size, size
    return capacity, ahead, min(DEFAULT_BATCH_SIZE, capacity), min(DEFAULT_REQUEST_SIZE, capacity)
