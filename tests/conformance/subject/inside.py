"""What upstream's tests look for inside the stock batch processor, led to what ours has for it.

The tests of `BatchSpanProcessor` hand spans to `_batch_processor.emit` and read its settings there.
Those are private names; with them the tests can ask our processor the same questions. What ours has
no answer to stands in `expected.toml`.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from mapek_runtime import BatchSpanProcessor

__all__ = ["Inside", "open_up"]


class Inside:
    """Our processor under the names of the stock one's inner object."""

    def __init__(self, processor: BatchSpanProcessor) -> None:
        self._processor = processor
        self._max_queue_size = processor._ring.capacity
        self._schedule_delay_millis = processor._pace.delay * 1000
        self._max_export_batch_size = processor._pace.size
        self._export_timeout_millis = processor._pace.export_timeout * 1000

    def emit(self, span: Any) -> None:
        """Take a span, as `on_end` does with a sampled one: the tests' own span has no context."""
        self._processor._append(span)

    def shutdown(self, timeout_millis: int = 30_000) -> None:
        """Shut the processor down."""
        self._processor.shutdown(timeout_millis)

    @property
    def _worker_thread(self) -> Threads:
        """Where a synchronous exporter is called: one thread, and another one while it is shut down."""
        return Threads(f"mapek-{self._processor._lanes[0].sink.name}")

    @property
    def _shutdown(self) -> bool:
        return self._processor._stopped


class Threads:
    """All threads of a name, as if they were one."""

    def __init__(self, name: str) -> None:
        self._name = name

    def join(self, timeout: float = 10.0) -> None:
        """Wait for each of them, for so many seconds together."""
        deadline = time.monotonic() + timeout
        for thread in self._alive():
            thread.join(max(0.0, deadline - time.monotonic()))

    def is_alive(self) -> bool:
        """Whether one of them is."""
        return bool(self._alive())

    def _alive(self) -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == self._name]


def open_up() -> None:
    """Give our processor `_batch_processor`, in this process."""
    type.__setattr__(BatchSpanProcessor, "_batch_processor", property(Inside))
