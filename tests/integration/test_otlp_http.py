"""OTLP over HTTP against a collector that follows a script, on real sockets."""

from __future__ import annotations

import asyncio
import gzip
import logging
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import aiohttp
import pytest
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.trace.export import BatchSpanProcessor as StockProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from mapek_runtime.errors import TransportError, TransportRejected
from mapek_runtime.export.batch import BatchSpanProcessor
from mapek_runtime.export.memory import MemorySpanExporter
from mapek_runtime.export.otlp.http_exporter import OTLPSpanExporter
from mapek_runtime.trace import TracerProvider
from tests.integration.collector import RESOURCE, Collector, answer, collector, end_spans, exporter


@pytest.mark.parametrize(
    "cls", [TracerProvider, sdk.TracerProvider], ids=["our provider", "the SDK's provider"]
)
async def test_every_span_arrives_over_one_connection_a_slot(cls: type[sdk.TracerProvider]) -> None:
    async with collector() as there:
        processor = BatchSpanProcessor(
            OTLPSpanExporter(there.url), max_export_batch_size=50, max_concurrency=2
        )

        end_spans(processor, 1_000, cls)
        assert await processor.ashutdown(10)

        assert sorted(there.names) == sorted(f"span-{number}" for number in range(1_000))
        assert there.connections <= 2
        assert processor.statistics().exported == 1_000


async def test_what_a_request_says_about_itself() -> None:
    async with collector() as there, exporter(there.url, headers={"x-token": "s3cret"}) as sender:
        await sender.send(b"body", 1)

        head = there.heads[0].lower()
        assert head.startswith("post /v1/traces http/1.1")
        assert "content-type: application/x-protobuf" in head
        assert "otel-otlp-exporter-python/" in head
        assert "x-token: s3cret" in head
        assert "content-encoding" not in head
        assert there.bodies == [b"body"]


@pytest.mark.parametrize("size", [100, 100_000], ids=["in place", "in a thread"])
async def test_gzip(size: int) -> None:
    async with collector() as there, exporter(there.url, compression="gzip") as sender:
        await sender.send(b"x" * size, 1)

        assert "content-encoding: gzip" in there.heads[0].lower()
        assert gzip.decompress(there.bodies[0]) == b"x" * size


def in_seconds() -> str:
    return "1"


def as_a_date() -> str:
    # A date has whole seconds: two from now is at least one and at most two away.
    return format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)


@pytest.mark.parametrize("form", [in_seconds, as_a_date])
async def test_the_collector_says_when_to_come_back(form: Callable[[], str]) -> None:
    async with collector(answer(503, f"Retry-After: {form()}")) as there, exporter(there.url) as sender:
        await sender.send(b"body", 1)

        assert 0.9 <= there.times[1] - there.times[0] <= 2.5


def partial(rejected: int, message: str) -> bytes:
    success = ExportTracePartialSuccess(rejected_spans=rejected, error_message=message)
    return ExportTraceServiceResponse(partial_success=success).SerializeToString()


async def test_partial_success_is_counted_and_not_tried_again() -> None:
    async with collector(answer(200, body=partial(7, "too old"))) as there:
        processor = BatchSpanProcessor(OTLPSpanExporter(there.url))
        end_spans(processor, 20)
        assert await processor.ashutdown(10) is False

        assert len(there.bodies) == 1
        assert processor.statistics().exported == 13
        assert processor.statistics().dropped == {"rejected": 7}


async def test_partial_success_in_json_is_understood() -> None:
    body = b'{"partialSuccess": {"rejectedSpans": "2", "errorMessage": "no"}}'
    async with (
        collector(answer(200, body=body, kind="application/json")) as there,
        exporter(there.url) as sender,
    ):
        with pytest.raises(TransportRejected) as caught:
            await sender.send(b"body", 3)

        assert caught.value.rejected_spans == 2


async def test_a_shutdown_interrupts_the_retries() -> None:
    async with collector(*[answer(503, "Retry-After: 5")] * 100) as there:
        processor = BatchSpanProcessor(OTLPSpanExporter(there.url))
        end_spans(processor, 10)

        start = time.monotonic()
        assert await processor.ashutdown(0.3) is False

        assert time.monotonic() - start < 1.5
        assert processor.statistics().dropped == {"timeout": 10}


async def test_secrets_appear_in_no_log_line_and_no_error(caplog: pytest.LogCaptureFixture) -> None:
    async with collector(answer(401), answer(401)) as there:
        url = there.url.replace("http://", "http://user:hunter2@") + "?key=hunter3"
        sender = OTLPSpanExporter(url, headers={"x-token": "hunter4"})
        with caplog.at_level(logging.DEBUG), pytest.raises(TransportError) as caught:
            await sender.send(b"body", 1)
        processor = BatchSpanProcessor(sender)
        end_spans(processor, 1)
        with caplog.at_level(logging.DEBUG):
            await processor.ashutdown(5)

        assert "authorization: basic" in there.heads[0].lower()
        assert "401" in caplog.text
        for text in (caplog.text, str(caught.value), repr(sender), sender.endpoint):
            assert "hunter" not in text


async def test_the_exporter_does_not_trace_itself() -> None:
    traced = MemorySpanExporter()
    watcher = TracerProvider(ALWAYS_ON, RESOURCE, shutdown_on_exit=False)
    inner = BatchSpanProcessor(traced)
    watcher.add_span_processor(inner)
    instrumentor = AioHttpClientInstrumentor()
    instrumentor.instrument(tracer_provider=watcher)
    try:
        async with collector() as there:
            processor = BatchSpanProcessor(OTLPSpanExporter(there.url))
            end_spans(processor, 5)
            assert await processor.ashutdown(5)
            async with aiohttp.ClientSession() as session:
                await session.post(there.url, data=b"")
    finally:
        instrumentor.uninstrument()
    await inner.ashutdown(5)

    assert [span.name for span in traced.finished_spans] == ["POST"]


async def test_a_session_that_is_given_is_used_and_left_open() -> None:
    async with collector() as there, aiohttp.ClientSession(headers={"x-mine": "yes"}) as session:
        sender = OTLPSpanExporter(there.url, session=session)
        await sender.send(b"body", 1)
        await sender.aclose()

        assert not session.closed
        assert "x-mine: yes" in there.heads[0].lower()


def test_what_ends_after_its_collector_is_gone_is_counted() -> None:
    processors: list[BatchSpanProcessor] = []

    async def program() -> None:
        async with collector() as there:
            processors.append(BatchSpanProcessor(OTLPSpanExporter(there.url), max_export_batch_size=1))
            end_spans(processors[0], 3)
            await processors[0].aforce_flush(5)

    async def again() -> None:
        end_spans(processors[0], 3)
        await asyncio.sleep(0.01)

    asyncio.run(program())
    asyncio.run(again())
    processors[0].shutdown(100)

    assert processors[0].statistics().exported == 3
    assert processors[0].statistics().dropped == {"timeout": 3}


def test_one_exporter_serves_several_loops() -> None:
    sender: list[OTLPSpanExporter] = []
    received: list[bytes] = []

    async def program() -> None:
        async with collector() as there:
            sender.append(OTLPSpanExporter(there.url))
            await sender[0].send(b"first", 1)
            # The first program's collector is gone with its loop; this one listens where it did.
            received.extend(there.bodies)
            await sender[0].release()

    asyncio.run(program())
    port = int(sender[0].endpoint.split(":")[2].split("/")[0])

    async def again() -> None:
        told = Collector()
        server = await asyncio.start_server(told.serve, "127.0.0.1", port)
        await sender[0].send(b"second", 1)
        await sender[0].aclose()
        server.close()
        received.extend(told.bodies)

    asyncio.run(again())

    assert received == [b"first", b"second"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_what_is_left_at_the_end_of_the_program_is_sent(host: str) -> None:
    # A host name is looked up in an executor, and at exit no executor can be had any more.
    program = """
import asyncio, sys
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from mapek_runtime.export.batch import BatchSpanProcessor
from mapek_runtime.export.otlp.http_exporter import OTLPSpanExporter
from mapek_runtime.trace import TracerProvider
provider = TracerProvider(ALWAYS_ON, shutdown_on_exit=False)
exporter = OTLPSpanExporter(sys.argv[1], compression="gzip")
provider.add_span_processor(BatchSpanProcessor(exporter, max_export_batch_size=40))
tracer = provider.get_tracer("exit")
async def program():
    for number in range(100):
        tracer.start_span(f"{number}").end()
        await asyncio.sleep(0)
asyncio.run(program())
tracer.start_span("outside").end()
"""
    async with collector() as there:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            program,
            there.url.replace("127.0.0.1", host),
            stderr=asyncio.subprocess.PIPE,
        )
        _, errors = await asyncio.wait_for(process.communicate(), 60)
        there.bodies = [gzip.decompress(body) for body in there.bodies]

        assert (process.returncode, errors) == (0, b"")
        # At least once: a request that was on its way when the loop ended is sent again.
        assert set(there.names) == {*(str(number) for number in range(100)), "outside"}


def test_behind_the_processor_of_the_sdk_it_fails_loudly(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The SDK's logger leaves out a line that resembles the one before, from any test.
    monkeypatch.setattr(logging.getLogger("opentelemetry.sdk._shared_internal"), "filters", [])
    processor = StockProcessor(OTLPSpanExporter("http://127.0.0.1:1/v1/traces"))  # type: ignore[arg-type]
    end_spans(processor, 1, sdk.TracerProvider)

    with caplog.at_level(logging.ERROR):
        processor.force_flush()

    assert "mapek_runtime.BatchSpanProcessor" in caplog.text
    with pytest.raises(TypeError, match="aclose"):
        processor.shutdown()  # type: ignore[no-untyped-call]
