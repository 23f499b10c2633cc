"""`SpooledExporter`: an exporter with a spool behind it, as users write it.

It only says what belongs together and how; `sink` does the work.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from mapek_runtime.export.retry import Backoff

from .store import DEFAULT_SEGMENT, Fsync, Spool

__all__ = ["SpooledExporter"]

DEFAULT_RATE = 8 << 20
"""Bytes of spooled batches a second, about 40,000 spans: a collector that comes back is not to be
knocked down by what it missed."""


class SpooledExporter:
    """An exporter of OTLP bytes with a spool behind it, for `BatchSpanProcessor`.

        BatchSpanProcessor(SpooledExporter(OTLPSpanExporter(), "/var/lib/shop/spool"))

    `directory` may be shared by processes that send to the same collector; bounds and `fsync` are
    those of `Spool`, `rate` is in bytes a second. Raises TypeError for an exporter of another kind.
    """

    def __init__(
        self,
        exporter: Any,
        directory: Path | str,
        *,
        max_bytes: int | None = None,
        max_age: float | None = None,
        fsync: Fsync | None = None,
        rate: float = DEFAULT_RATE,
        backoff: Backoff | None = None,
    ) -> None:
        if not asyncio.iscoroutinefunction(getattr(exporter, "send", None)):
            raise TypeError(f"{exporter!r} cannot have a spool; it must have async send(payload, count)")
        if not rate > 0:
            raise ValueError(f"rate is {rate!r}; it must be positive: bytes a second")
        given: dict[str, Any] = {"max_bytes": max_bytes, "max_age": max_age, "fsync": fsync}
        if max_bytes is not None:
            given["segment_bytes"] = max(1, min(DEFAULT_SEGMENT, max_bytes // 8))
        self.exporter = exporter
        self.spool = Spool(directory, **{name: value for name, value in given.items() if value is not None})
        self.rate = rate
        self.backoff = backoff or Backoff()

    def __repr__(self) -> str:
        return f"SpooledExporter({self.exporter!r}, {str(self.spool.directory)!r})"
