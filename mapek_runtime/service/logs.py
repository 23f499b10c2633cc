"""Logging: structlog and the standard library's loggers, as one stream on standard error.

Every line that is written inside a span carries its `trace_id` and `span_id`. Lines are rendered
where they are logged, because only there is the span current, and written by a thread of their own:
a terminal that does not read must not hold up the event loop.
"""

from __future__ import annotations

import logging
import logging.handlers
import queue
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog

from mapek_runtime.config import LogSettings
from mapek_runtime.trace.logs import current_ids

__all__ = ["add_trace_ids", "logging_to_stderr"]

_TRACEBACK = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
"""Without local variables, which structlog shows by default: headers and settings are among them."""


def add_trace_ids(
    _logger: Any, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """A structlog processor: the ids of the current span, where there is one."""
    ids = current_ids()
    if ids is not None:
        event["trace_id"] = ids.trace_id
        event["span_id"] = ids.span_id
    return event


@contextmanager
def logging_to_stderr(settings: LogSettings) -> Iterator[None]:
    """Inside the block every logger of the process writes to standard error; then all is as before."""
    as_json = settings.format == "json" or (settings.format == "auto" and not sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        add_trace_ids,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    ending: list[structlog.typing.Processor] = (
        [structlog.processors.ExceptionRenderer(_TRACEBACK), structlog.processors.JSONRenderer()]
        if as_json
        else [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        ]
    )
    handler = _Rendering(queue.SimpleQueue())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *ending],
        )
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers[:] = [handler]
    root.setLevel(settings.level.upper())
    # They log each request and each change of their own state at info.
    chatty = {name: logging.getLogger(name).level for name in ("httpx", "httpcore", "asyncio")}
    for name in chatty:
        logging.getLogger(name).setLevel(max(root.level, logging.WARNING))
    logging.captureWarnings(True)
    listener = logging.handlers.QueueListener(handler.queue, _StandardError())
    listener.start()
    try:
        yield
    finally:
        listener.stop()
        logging.captureWarnings(False)
        for name, was in chatty.items():
            logging.getLogger(name).setLevel(was)
        root.handlers[:] = before
        root.setLevel(level)
        structlog.reset_defaults()


class _Rendering(logging.handlers.QueueHandler):
    """Renders a record where it is logged and queues the text."""

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """The record with its text and nothing that belongs to the thread that logged it."""
        return logging.makeLogRecord({"msg": self.format(record), "levelno": record.levelno})


class _StandardError(logging.StreamHandler[Any]):
    """Writes to whatever standard error is now: a live view puts something in its place."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        self.stream = sys.stderr
        super().emit(record)
