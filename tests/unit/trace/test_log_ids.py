"""A log line carries the ids of the span it was written in, in whatever task and thread."""

from __future__ import annotations

import asyncio
import logging
import logging.handlers
import queue
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from mapek_runtime import SpanGroup, TracerProvider
from mapek_runtime.service.logs import add_trace_ids
from mapek_runtime.testing import AutojumpClock
from mapek_runtime.trace import run_in_executor, use_provider
from mapek_runtime.trace.logs import TraceIds, current_ids

FORMAT = "%(message)s %(otelTraceID)s %(otelSpanID)s %(otelTraceSampled)s"

group = SpanGroup("test")


@group.span("work")
def work(number: int) -> None:
    """Some work that logs."""


class Lines(logging.Handler):
    """Keeps what a formatter makes of each record."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.setFormatter(logging.Formatter(FORMAT))

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@contextmanager
def listening(handler: logging.Handler) -> Iterator[logging.Logger]:
    """A logger that only that handler hears."""
    logger = logging.getLogger("tests.log_ids")
    logger.propagate = False
    logger.addHandler(handler)
    try:
        yield logger
    finally:
        logger.removeHandler(handler)


def expected(message: str, span: trace.Span) -> str:
    context = span.get_span_context()
    return f"{message} {context.trace_id:032x} {context.span_id:016x} {context.trace_flags.sampled}"


async def test_two_hundred_tasks_log_their_own_span(tracer: trace.Tracer, autojump: AutojumpClock) -> None:
    handler = Lines()
    handler.addFilter(TraceIds())
    structured: list[dict[str, Any]] = []

    def keep(_logger: Any, _method: str, event: Any) -> Any:
        structured.append(dict(event))
        raise structlog.DropEvent

    structlogger = structlog.wrap_logger(structlog.PrintLogger(), processors=[add_trace_ids, keep])
    wanted: list[str] = []
    spans: dict[int, trace.SpanContext] = {}
    pauses = random.Random(7)

    async def task(number: int, logger: logging.Logger) -> None:
        await asyncio.sleep(pauses.random())
        with work(number) as span:
            spans[number] = span.get_span_context()
            for step in range(3):
                await asyncio.sleep(pauses.random())
                logger.warning("%d.%d", number, step)
                structlogger.info("step", number=number)
                wanted.append(expected(f"{number}.{step}", span))
        logger.warning("%d outside", number)
        wanted.append(f"{number} outside 0 0 False")

    with listening(handler) as logger:
        async with asyncio.TaskGroup() as tasks:
            for number in range(200):
                tasks.create_task(task(number, logger))
        structlogger.info("outside", number=-1)

    assert sorted(handler.lines) == sorted(wanted)
    assert len({context.span_id for context in spans.values()}) == 200
    assert structured.pop() == {"event": "outside", "number": -1}
    assert len(structured) == 600
    for event in structured:
        context = spans[event["number"]]
        assert event["trace_id"] == f"{context.trace_id:032x}"
        assert event["span_id"] == f"{context.span_id:016x}"


async def test_threads_log_the_span_that_sent_them(tracer: trace.Tracer) -> None:
    handler = Lines()
    handler.addFilter(TraceIds())

    with listening(handler) as logger, work(1) as span:
        await asyncio.to_thread(logger.warning, "to_thread")
        await run_in_executor(None, None, logger.warning, "executor")

    assert handler.lines == [expected("to_thread", span), expected("executor", span)]


def test_a_queue_keeps_the_ids_of_where_the_line_was_logged(tracer: trace.Tracer) -> None:
    records: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    front = logging.handlers.QueueHandler(records)
    front.addFilter(TraceIds())
    behind = Lines()
    # Behind the queue, in its thread, no span is current.
    behind.addFilter(TraceIds())
    listener = logging.handlers.QueueListener(records, behind)

    with listening(front) as logger, work(1) as span:
        logger.warning("queued")
    listener.start()
    listener.stop()

    assert behind.lines == [expected("queued", span)]


def test_an_unsampled_span_says_so() -> None:
    provider = TracerProvider(ALWAYS_OFF, shutdown_on_exit=False)
    with provider.get_tracer("tests").start_as_current_span("x") as span:
        ids = current_ids()

    assert ids is not None
    assert ids.span_id == trace.format_span_id(span.get_span_context().span_id)
    assert not ids.sampled


def test_the_format_of_the_instrumentation_can_be_used() -> None:
    provider = TracerProvider(resource=Resource({"service.name": "mesh"}), shutdown_on_exit=False)
    handler = Lines()
    handler.addFilter(TraceIds())
    handler.setFormatter(logging.Formatter("resource.service.name=%(otelServiceName)s %(otelTraceID)s"))

    with listening(handler) as logger, use_provider(provider):
        logger.warning("x")

    assert handler.lines == ["resource.service.name=mesh 0"]


def test_a_broken_span_costs_the_ids_and_nothing_else() -> None:
    class Broken(trace.NonRecordingSpan):
        def get_span_context(self) -> trace.SpanContext:
            raise RuntimeError("broken")

    handler = Lines()
    handler.addFilter(TraceIds())

    with listening(handler) as logger, trace.use_span(Broken(trace.INVALID_SPAN_CONTEXT)):
        logger.warning("line")
        assert add_trace_ids(None, "info", {"event": "line"}) == {"event": "line"}

    assert handler.lines == ["line 0 0 False"]


def test_nothing_is_written_over() -> None:
    record = logging.LogRecord("x", logging.INFO, "file", 1, "text", None, None)
    names = ("otelTraceID", "otelSpanID", "otelTraceSampled", "otelServiceName")
    record.__dict__.update(dict.fromkeys(names, "mine"))

    assert TraceIds().filter(record)

    assert {record.__dict__[name] for name in names} == {"mine"}
