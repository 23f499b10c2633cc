"""The pace of export: how much is held, when it is sent, and how much at once; from `OTEL_BSP_*`."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from .environment import read_number

__all__ = ["DEFAULT_CONCURRENCY", "Pace", "read_pace"]

logger = logging.getLogger(__name__)

DEFAULT_QUEUE_SIZE = 65_536
"""The specification says 2,048. An asyncio program creates 100,000 spans a second and more, so that
2,048 are full after 20 ms, which is less than one busy turn of a loop: a healthy collector would lose
half. 65,536 spans are at most about 60 MB, and that only while the collector does not keep up."""

DEFAULT_BATCH_SIZE = 512
DEFAULT_REQUEST_SIZE = 4_096
"""Unless a batch size is set, spans that had to wait travel in requests of up to this many: under a
backlog, fewer and larger requests are what lets it shrink."""

DEFAULT_DELAY_MS = 5_000
DEFAULT_EXPORT_TIMEOUT_MS = 30_000
DEFAULT_CONCURRENCY = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """When to send, and how much at once; times in seconds."""

    capacity: int
    delay: float
    export_timeout: float
    size: int
    """Spans that make a batch worth sending."""
    most: int
    """Spans that one request may hold when there is a backlog."""
    concurrency: int = DEFAULT_CONCURRENCY


def read_pace(
    max_queue_size: int | None,
    schedule_delay_millis: float | None,
    max_export_batch_size: int | None,
    export_timeout_millis: float | None,
) -> Pace:
    """The pace that the arguments ask for, else the environment, else the defaults.

    Raises ValueError for a wrong argument; a wrong variable warns and counts as unset.
    """
    capacity, size, most = _sizes(max_queue_size, max_export_batch_size)
    delay = _setting(
        "schedule_delay_millis", schedule_delay_millis, "OTEL_BSP_SCHEDULE_DELAY", DEFAULT_DELAY_MS
    )
    limit = _setting(
        "export_timeout_millis", export_timeout_millis, "OTEL_BSP_EXPORT_TIMEOUT", DEFAULT_EXPORT_TIMEOUT_MS
    )
    return Pace(capacity=capacity, delay=delay / 1000, export_timeout=limit / 1000, size=size, most=most)


def _setting(name: str, value: float | None, variable: str, default: float, *, whole: bool = False) -> float:
    if value is None:
        return read_number(variable, default=default, whole=whole)
    if value <= 0:
        raise ValueError(f"{name} is {value!r}; it must be positive")
    return value


def _sizes(queue: int | None, batch: int | None) -> tuple[int, int, int]:
    """The queue, the batch that wakes the task, and the largest request."""
    capacity = int(
        _setting("max_queue_size", queue, "OTEL_BSP_MAX_QUEUE_SIZE", DEFAULT_QUEUE_SIZE, whole=True)
    )
    size = int(_setting("max_export_batch_size", batch, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 0, whole=True))
    if size > capacity:
        if batch is not None:
            raise ValueError(
                f"max_export_batch_size is {batch!r}; it must be at most max_queue_size, {capacity}"
            )
        logger.warning("OTEL_BSP_MAX_EXPORT_BATCH_SIZE is %d; using %d, the queue size", size, capacity)
        size = capacity
    if size:
        return capacity, size, size
    return capacity, min(DEFAULT_BATCH_SIZE, capacity), min(DEFAULT_REQUEST_SIZE, capacity)
