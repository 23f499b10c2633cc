"""`POST /v1/traces` over real sockets: senders of several makes, limits, and what the loop feels of it."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import os
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import httpx
import pytest
from aiohttp import web
from aiohttp.web_app import Application
from google.rpc.status_pb2 import Status
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as StockExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from mapek_runtime.errors import TransportError, TransportRejected
from mapek_runtime.export import OTLPSpanExporter
from mapek_runtime.store import TraceStore
from mapek_runtime.store.receiver import receive
from mapek_runtime.web.otlp import Receiver

PROTOBUF = {"Content-Type": "application/x-protobuf"}
JSON = {"Content-Type": "application/json"}
TRACE = "5b8efff798038103d269b633813fc60c"
SPAN = {"traceId": TRACE, "spanId": "eee19b7ec3c1b174", "name": "I am a span", "startTimeUnixNano": "1"}


class Shelf:
    """A store at the edge: keeps requests, and answers as it is told."""

    def __init__(self) -> None:
        self.spans = 0
        self.answer: Exception | None = None
        self.open = asyncio.Event()
        self.open.set()

    async def send(self, payload: bytes, count: int) -> None:
        await self.open.wait()
        if self.answer is not None:
            raise self.answer
        self.spans += len(ExportTraceServiceRequest.FromString(payload).resource_spans) and count


@contextlib.asynccontextmanager
async def served(receiver: Receiver) -> AsyncIterator[str]:
    app = Application()
    app.router.add_post("/v1/traces", receiver.handle)
    runner = web.AppRunner(app, access_log=None, auto_decompress=False, shutdown_timeout=0.5)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1/traces"
    finally:
        await runner.cleanup()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while True:
            if condition():
                return
            await asyncio.sleep(0.01)


def request(spans: int = 3) -> ExportTraceServiceRequest:
    message = ExportTraceServiceRequest()
    under = message.resource_spans.add()
    under.resource.attributes.add(key="service.name").value.string_value = "other"
    within = under.scope_spans.add()
    for _ in range(spans):
        span = within.spans.add(trace_id=os.urandom(16), span_id=os.urandom(8), name="cycle")
        span.start_time_unix_nano, span.end_time_unix_nano = 1, 2
        for number in range(6):
            span.attributes.add(key=f"key.{number}").value.string_value = "value of some length"
    return message


def otlp_json(*spans: Mapping[str, object]) -> bytes:
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": list(spans)}]}]}).encode()


async def test_spans_of_three_senders_are_in_the_store(tmp_path: Path) -> None:
    async with TraceStore(tmp_path / "traces.sqlite") as store, served(Receiver(store)) as address:
        ours = OTLPSpanExporter(endpoint=address, compression="gzip")
        await ours.send(request(3).SerializeToString(), 3)
        await ours.aclose()

        def stock() -> str:
            provider = TracerProvider(shutdown_on_exit=False)
            exporter = StockExporter(endpoint=address, compression=Compression.Gzip)
            provider.add_span_processor(SimpleSpanProcessor(exporter))
            with provider.get_tracer("stock").start_as_current_span("from the SDK") as span:
                trace_id = span.get_span_context().trace_id
            provider.shutdown()
            return f"{trace_id:032x}"

        trace_id = await asyncio.to_thread(stock)
        async with httpx.AsyncClient() as client:
            answer = await client.post(address, content=otlp_json(SPAN), headers=JSON)

        assert (answer.status_code, answer.json()) == (200, {})
        assert answer.headers["Content-Type"] == "application/json"
        assert await store.trace(trace_id) is not None
        assert await store.trace(TRACE) is not None
        assert store.statistics().written == 5


async def test_full_success_is_an_empty_protobuf_answer() -> None:
    receiver = Receiver(Shelf())
    async with served(receiver) as address, httpx.AsyncClient() as client:
        body = request(100).SerializeToString()
        answer = await client.post(address, content=body, headers=PROTOBUF)

    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["Content-Type"] == "application/x-protobuf"
    statistics = receiver.statistics
    assert (statistics.requests, statistics.accepted, statistics.bytes) == (1, 100, len(body))
    assert statistics.held_bytes == 0


async def test_partial_success_says_how_many_and_why() -> None:
    receiver = Receiver(Shelf())
    message = request(3)
    message.resource_spans[0].scope_spans[0].spans[1].span_id = bytes(8)
    async with served(receiver) as address, httpx.AsyncClient() as client:
        answer = await client.post(address, content=message.SerializeToString(), headers=PROTOBUF)
        other = await client.post(address, content=otlp_json(SPAN, SPAN | {"traceId": ""}), headers=JSON)

    partial = ExportTraceServiceResponse.FromString(answer.content).partial_success
    assert (answer.status_code, partial.rejected_spans) == (200, 1)
    assert "span id of zeros" in partial.error_message
    assert other.json()["partialSuccess"]["rejectedSpans"] == "1"
    assert receiver.statistics.rejected == {"span_id_zero": 1, "trace_id_missing": 1}
    assert receiver.statistics.accepted == 3


async def test_refusals_are_a_status_in_the_encoding_of_the_request() -> None:
    receiver = Receiver(Shelf(), max_packed=10_000, max_bytes=100_000, memory=1 << 20)
    bomb = gzip.compress(bytes(1 << 20))
    packed = PROTOBUF | {"Content-Encoding": "gzip"}

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield bytes(1000)

    async with served(receiver) as address, httpx.AsyncClient() as client:
        broken = await client.post(address, content=b"\x0a\x05", headers=PROTOBUF)
        wrong = await client.post(address, content=b"{", headers=JSON)
        plain = await client.post(address, content=b"plain", headers=packed)
        large = await client.post(address, content=bytes(10_001), headers=PROTOBUF)
        endless = await client.post(address, content=chunks(), headers=PROTOBUF)
        unpacked = await client.post(address, content=bomb, headers=packed)
        unknown = await client.post(address, content=b"a: 1", headers={"Content-Type": "text/yaml"})
        method = await client.get(address)

    answers = [broken, wrong, plain, large, endless, unpacked, unknown, method]
    assert [answer.status_code for answer in answers] == [400, 400, 400, 413, 413, 413, 415, 405]
    assert "reaches to byte" in Status.FromString(broken.content).message
    assert wrong.json()["code"] == 3
    assert unknown.headers["Content-Type"] == "application/json"
    assert receiver.statistics.refused == {400: 3, 413: 3, 415: 1}
    assert receiver.statistics.held_bytes == 0


async def test_a_store_that_fails_or_hangs_is_a_503_with_a_time_to_come_again() -> None:
    shelf = Shelf()
    receiver = Receiver(shelf, patience=0.05)
    body = request().SerializeToString()
    async with served(receiver) as address, httpx.AsyncClient() as client:
        shelf.answer = TransportError("the disk in /secret is full")
        failed = await client.post(address, content=body, headers=PROTOBUF)
        shelf.open.clear()
        hung = await client.post(address, content=body, headers=PROTOBUF)
        shelf.open.set()
        shelf.answer = TransportRejected("1 of 3", rejected_spans=1)
        partial = await client.post(address, content=body, headers=PROTOBUF)

    for answer in (failed, hung):
        assert (answer.status_code, int(answer.headers["Retry-After"]) > 0) == (503, True)
        assert b"/secret" not in answer.content
    assert ExportTraceServiceResponse.FromString(partial.content).partial_success.rejected_spans == 1
    assert receiver.statistics.accepted == 2


async def test_requests_beyond_the_memory_are_told_to_come_again() -> None:
    shelf = Shelf()
    shelf.open.clear()
    receiver = Receiver(shelf, max_packed=50_000, max_bytes=50_000, memory=100_000)
    body = request(100).SerializeToString()
    assert 25_000 < len(body) < 46_000
    async with served(receiver) as address, httpx.AsyncClient() as client, asyncio.TaskGroup() as group:
        waiting = [group.create_task(client.post(address, content=body, headers=PROTOBUF)) for _ in range(6)]
        await until(lambda: sum(task.done() for task in waiting) >= 3)
        assert receiver.statistics.held_bytes <= 100_000
        shelf.open.set()

    statuses = sorted(task.result().status_code for task in waiting)
    assert set(statuses) == {200, 503}
    assert all("Retry-After" in task.result().headers for task in waiting if task.result().status_code == 503)
    assert receiver.statistics.held_bytes == 0
    assert shelf.spans == statuses.count(200) * 100


async def test_a_sender_that_goes_away_leaves_nothing_behind() -> None:
    receiver = Receiver(Shelf())
    async with served(receiver) as address:
        url = httpx.URL(address)
        _, writer = await asyncio.open_connection(url.host, url.port)
        head = "POST /v1/traces HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-protobuf\r\n"
        writer.write(f"{head}Content-Length: 1000\r\n\r\nabc".encode())
        await writer.drain()
        await until(lambda: receiver.statistics.held_bytes > 0)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        await until(lambda: receiver.statistics.held_bytes == 0)

    assert receiver.statistics.requests == 1


async def test_the_loop_goes_on_while_a_large_request_is_read() -> None:
    body = request(50_000).SerializeToString()
    assert 8 << 20 < len(body) < 16 << 20
    turns = 0

    async def watch() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    watching = asyncio.create_task(watch())
    received = await asyncio.to_thread(receive, body, PROTOBUF["Content-Type"])
    watching.cancel()

    # The parser, had it the whole body at once, would stop the loop: it would turn before and after.
    assert received.accepted == 50_000
    assert turns > 100


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_curl_sends_the_example_of_the_specification() -> None:
    receiver = Receiver(Shelf())
    async with served(receiver) as address:
        curl = await asyncio.create_subprocess_exec(
            "curl", "-s", "--noproxy", "*", "-H", "Content-Type: application/json",
            "-d", otlp_json(SPAN).decode(), address, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        answer, _ = await curl.communicate()

    assert (answer, receiver.statistics.accepted) == (b"{}", 1)
