"""OTLP over gRPC against a collector that follows a script, on real sockets."""

from __future__ import annotations

import asyncio
import gzip
import logging
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc  # type: ignore[import-untyped]
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.trace.export import BatchSpanProcessor as StockProcessor

from mapek_runtime.errors import TransportError, TransportRejected
from mapek_runtime.export.batch import BatchSpanProcessor
from mapek_runtime.export.otlp.grpc_exporter import OTLPGrpcSpanExporter
from mapek_runtime.export.otlp.options import MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES
from mapek_runtime.trace import TracerProvider
from tests.integration.collector import end_spans
from tests.integration.grpc_collector import QUICK, Reply, exporter, grpc_collector, plain_server, refuse

AGAIN = ["CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"]
FINAL = [
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAUTHENTICATED",
]


def test_every_status_of_grpc_is_in_one_of_the_two_lists() -> None:
    assert {*AGAIN, *FINAL, "OK"} == {status.name for status in grpc.StatusCode}


@pytest.mark.every_loop
@pytest.mark.parametrize(
    "cls", [TracerProvider, sdk.TracerProvider], ids=["our provider", "the SDK's provider"]
)
async def test_every_span_arrives_over_one_connection(cls: type[sdk.TracerProvider]) -> None:
    async with grpc_collector() as there:
        processor = BatchSpanProcessor(OTLPGrpcSpanExporter(there.url), max_export_batch_size=50)

        end_spans(processor, 1_000, cls)
        assert await processor.ashutdown(10)

        assert sorted(there.names) == sorted(f"span-{number}" for number in range(1_000))
        assert len(set(there.peers)) == 1
        assert processor.statistics().exported == 1_000


async def test_what_a_request_says_about_itself() -> None:
    headers = {"X-Token": "s3cret", "trace-bin": "raw"}
    async with grpc_collector() as there, exporter(there.url, headers=headers) as sender:
        await sender.send(b"body", 1)

        assert there.bodies == [b"body"]
        agent = str(there.metadata[0]["user-agent"])
        assert agent.startswith("mapek-runtime/")
        assert " OTel-OTLP-Exporter-Python/" in agent
        assert there.metadata[0]["x-token"] == "s3cret"
        assert there.metadata[0]["trace-bin"] == b"raw"


@pytest.mark.parametrize("word", ["gzip", grpc.Compression.Gzip], ids=["the word", "the member"])
async def test_gzip_makes_what_goes_over_the_wire_smaller(word: object) -> None:
    async with grpc_collector() as there, counting_relay(there.address) as relay:
        async with exporter(relay.url, compression=word) as sender:
            await sender.send(b"x" * 1_000_000, 1)

        assert there.bodies == [b"x" * 1_000_000]
        assert relay.sent < 10_000


async def test_gzip_keeps_its_work_off_the_loop() -> None:
    body = random.Random(1).randbytes(3_000_000).hex().encode()
    async with grpc_collector() as there, exporter(there.url, compression="gzip") as sender:
        await sender.send(b"opens the connection", 1)
        # The time that this thread works, which does not depend on what else the machine does.
        start = time.thread_time()
        call = asyncio.ensure_future(sender.send(body, 1))
        await there.until(requests=2)
        spent = time.thread_time() - start
        await call

        alone = time.thread_time()
        gzip.compress(body, 6)
        assert spent < (time.thread_time() - alone) / 2


@pytest.mark.parametrize("status", AGAIN)
async def test_these_statuses_are_tried_again(status: str) -> None:
    async with grpc_collector(refuse(status), refuse(status)) as there, exporter(there.url) as sender:
        await sender.send(b"body", 1)

        assert there.bodies == [b"body"] * 3


@pytest.mark.parametrize("status", FINAL)
async def test_these_statuses_are_final(status: str, caplog: pytest.LogCaptureFixture) -> None:
    async with grpc_collector(refuse(status, "because")) as there:
        sender = OTLPGrpcSpanExporter(there.url, backoff=QUICK)
        processor = BatchSpanProcessor(sender)
        end_spans(processor, 7)
        with caplog.at_level(logging.INFO):
            assert await processor.ashutdown(5) is False

        assert len(there.bodies) == 1
        assert processor.statistics().exported == 0
        assert processor.statistics().dropped == {status: 7}
        [line] = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
        assert f"{there.url}: {status}: 'because'" in line
        assert line.endswith("(count 7)")


async def test_the_error_holds_the_number_and_the_name_of_the_status() -> None:
    async with grpc_collector(refuse("UNAUTHENTICATED")) as there, exporter(there.url) as sender:
        with pytest.raises(TransportError) as caught:
            await sender.send(b"body", 1)

        assert caught.value.error_type == "UNAUTHENTICATED"
        assert caught.value.status_code == 16
        assert not caught.value.retryable


async def test_an_exhausted_collector_is_tried_again_when_it_says_so() -> None:
    reply = refuse("RESOURCE_EXHAUSTED", retry_delay=0.0)
    async with grpc_collector(reply, reply) as there, exporter(there.url) as sender:
        await sender.send(b"body", 1)

        assert len(there.bodies) == 3


@pytest.mark.parametrize("status", ["UNAVAILABLE", "RESOURCE_EXHAUSTED"])
async def test_the_collector_says_how_long_to_wait_at_least(status: str) -> None:
    async with grpc_collector(refuse(status, retry_delay=0.3)) as there, exporter(there.url) as sender:
        await sender.send(b"body", 1)

        assert there.times[1] - there.times[0] >= 0.3


async def test_a_delay_beyond_the_deadline_is_not_waited_for() -> None:
    async with (
        grpc_collector(refuse("UNAVAILABLE", retry_delay=3600)) as there,
        exporter(there.url) as sender,
    ):
        async with asyncio.timeout(5):
            with pytest.raises(TransportError, match="UNAVAILABLE") as caught:
                await sender.send(b"body", 1)

        assert len(there.bodies) == 1
        assert caught.value.retryable
        assert caught.value.retry_after == 3600


async def test_a_status_with_details_that_nobody_can_read_is_like_one_without() -> None:
    reply = Reply(status=grpc.StatusCode.RESOURCE_EXHAUSTED, trailers=(("grpc-status-details-bin", b"\xff"),))
    async with grpc_collector(reply) as there, exporter(there.url) as sender:
        with pytest.raises(TransportError, match="RESOURCE_EXHAUSTED"):
            await sender.send(b"body", 1)

        assert len(there.bodies) == 1


def partial(rejected: int, message: str) -> bytes:
    success = ExportTracePartialSuccess(rejected_spans=rejected, error_message=message)
    return ExportTraceServiceResponse(partial_success=success).SerializeToString()


async def test_partial_success_is_counted_and_not_tried_again() -> None:
    async with grpc_collector(Reply(partial(7, "too old"))) as there:
        processor = BatchSpanProcessor(OTLPGrpcSpanExporter(there.url))
        end_spans(processor, 20)
        assert await processor.ashutdown(10) is False

        assert len(there.bodies) == 1
        assert processor.statistics().exported == 13
        assert processor.statistics().dropped == {"rejected": 7}


@pytest.mark.parametrize("body", [partial(0, "hello"), b"\xff\xff\xff"], ids=["only a message", "broken"])
async def test_any_other_answer_with_ok_is_a_success(body: bytes) -> None:
    async with grpc_collector(Reply(body)) as there, exporter(there.url) as sender:
        await sender.send(b"body", 1)

        assert len(there.bodies) == 1


async def test_partial_success_is_told_by_the_exporter_as_an_error_of_its_own() -> None:
    async with grpc_collector(Reply(partial(2, "no"))) as there, exporter(there.url) as sender:
        with pytest.raises(TransportRejected, match="'no'") as caught:
            await sender.send(b"body", 3)

        assert caught.value.rejected_spans == 2


async def test_an_answer_beyond_all_measure_is_final() -> None:
    async with (
        grpc_collector(Reply(b"x" * (MAX_RESPONSE_BYTES + 1))) as there,
        exporter(there.url) as sender,
    ):
        with pytest.raises(TransportError, match="larger than max") as caught:
            await sender.send(b"body", 1)

        assert len(there.bodies) == 1
        assert not caught.value.retryable


async def test_a_request_beyond_all_measure_is_not_sent() -> None:
    async with grpc_collector() as there, exporter(there.url) as sender:
        with pytest.raises(TransportError, match="over the limit") as caught:
            await sender.send(bytes(MAX_REQUEST_BYTES + 1), 1)

        assert caught.value.error_type == "request_too_large"
        assert there.bodies == []


async def test_a_server_without_the_trace_service_is_final() -> None:
    async with grpc_collector(method="/some.other.Service/Export") as there, exporter(there.url) as sender:
        with pytest.raises(TransportError, match="UNIMPLEMENTED") as caught:
            await sender.send(b"body", 1)

        assert not caught.value.retryable


@pytest.mark.parametrize("value", [None, "hunter4"], ids=["argument", "environment"])
async def test_secrets_appear_in_no_log_line_and_no_error(
    value: str | None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A proxy in between may well repeat what it was given.
    async with grpc_collector(*[refuse("UNAUTHENTICATED", "no such token: hunter4")] * 2) as there:
        url = there.url.replace("http://", "http://user:hunter2@") + "/?key=hunter3"
        if value is not None:
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"x-token={value}")
        with caplog.at_level(logging.DEBUG):
            sender = OTLPGrpcSpanExporter(url, headers=None if value else {"x-token": "hunter4"})
            with pytest.raises(TransportError, match="no such token") as caught:
                await sender.send(b"body", 1)
            processor = BatchSpanProcessor(sender)
            end_spans(processor, 1)
            await processor.ashutdown(5)

        assert there.metadata[0]["x-token"] == "hunter4"
        assert "UNAUTHENTICATED" in caplog.text
        for text in (caplog.text, str(caught.value), repr(sender), sender.endpoint):
            assert "hunter" not in text


@pytest.mark.parametrize("form", ["unix:{}", "unix://{}"])
async def test_a_unix_socket(form: str, tmp_path: Path) -> None:
    path = str(tmp_path / "otlp.sock")
    async with grpc_collector(address=f"unix:{path}") as there, exporter(form.format(path)) as sender:
        await sender.send(b"body", 1)

        assert there.bodies == [b"body"]


class Relay:
    """Counts what goes from a client to a server."""

    url = ""
    sent = 0


@asynccontextmanager
async def counting_relay(address: str) -> AsyncIterator[Relay]:
    relay = Relay()
    host, _, port = address.rpartition(":")

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, count: bool) -> None:
        while data := await reader.read(65536):
            relay.sent += len(data) * count
            writer.write(data)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, to = await asyncio.open_connection(host, int(port))
        back = asyncio.ensure_future(pump(there, writer, count=False))
        try:
            await pump(reader, to, count=True)
        finally:
            back.cancel()
            for end in (to, writer):
                end.close()
                await end.wait_closed()

    async with plain_server(serve) as url:
        relay.url = url
        yield relay


async def test_behind_the_processor_of_the_sdk_it_fails_loudly(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The SDK's logger leaves out a line that resembles the one before, from any test.
    monkeypatch.setattr(logging.getLogger("opentelemetry.sdk._shared_internal"), "filters", [])
    processor = StockProcessor(OTLPGrpcSpanExporter("http://127.0.0.1:1"))  # type: ignore[arg-type]
    end_spans(processor, 1, sdk.TracerProvider)

    with caplog.at_level(logging.ERROR):
        await asyncio.to_thread(processor.force_flush)

    assert "mapek_runtime.BatchSpanProcessor" in caplog.text
    with pytest.raises(TypeError, match="aclose"):
        processor.shutdown()  # type: ignore[no-untyped-call]
