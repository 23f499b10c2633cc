"""OTLP over gRPC against what does not answer, or not as it should: deadlines, cancellation, closing."""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mapek_runtime.errors import TransportError
from mapek_runtime.export.batch import BatchSpanProcessor
from mapek_runtime.export.otlp.grpc_exporter import OTLPGrpcSpanExporter
from tests.integration.collector import end_spans
from tests.integration.grpc_collector import (
    Reply,
    Serve,
    exporter,
    grpc_collector,
    plain_server,
    refuse,
)


async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def babble(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    await writer.drain()
    writer.close()


async def stay_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.read(65536):
        pass
    writer.close()


@pytest.mark.parametrize("serve", [hang_up, babble], ids=lambda serve: serve.__name__)
async def test_what_speaks_no_grpc_is_tried_until_the_deadline(serve: Serve) -> None:
    async with plain_server(serve) as url, exporter(url, timeout=0.5) as sender:
        async with asyncio.timeout(5):
            with pytest.raises(TransportError, match="UNAVAILABLE") as caught:
                await sender.send(b"body", 1)

        assert caught.value.retryable


async def test_a_refused_connection_is_tried_until_the_deadline() -> None:
    async with exporter(f"http://127.0.0.1:{closed_port()}", timeout=0.3) as sender:
        async with asyncio.timeout(5):
            with pytest.raises(TransportError, match="UNAVAILABLE") as caught:
                await sender.send(b"body", 1)

        assert caught.value.retryable


async def test_a_name_that_is_not_known_is_tried_until_the_deadline() -> None:
    async with exporter("http://nosuch.invalid:4317", timeout=0.3) as sender:
        async with asyncio.timeout(5):
            with pytest.raises(TransportError, match="nosuch"):
                await sender.send(b"body", 1)


def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


async def test_a_collector_that_comes_back_is_found_at_once() -> None:
    port = closed_port()
    async with exporter(f"http://127.0.0.1:{port}", timeout=10) as sender:
        call = asyncio.ensure_future(sender.send(b"body", 1))
        # gRPC's own pauses would have grown to several seconds by now.
        await asyncio.sleep(2)
        assert not call.done()
        async with grpc_collector(address=f"127.0.0.1:{port}") as there:
            async with asyncio.timeout(2.5):
                await call

            assert there.bodies == [b"body"]


@pytest.mark.parametrize("serve", [None, stay_silent], ids=["no answer", "black hole"])
async def test_an_answer_that_never_comes_ends_at_the_deadline(serve: Serve | None) -> None:
    async with plain_server(serve or stay_silent) as hole, grpc_collector(Reply(silent=True)) as there:
        async with exporter(hole if serve else there.url, timeout=0.2) as sender:
            async with asyncio.timeout(5):
                with pytest.raises(TransportError) as caught:
                    await sender.send(b"body", 1)

        assert caught.value.error_type in {"timeout", "UNAVAILABLE"}
        assert caught.value.retryable


async def test_an_error_before_the_deadline_says_more_than_the_deadline() -> None:
    async with grpc_collector(refuse("ABORTED", "first"), Reply(silent=True)) as there:
        async with exporter(there.url, timeout=0.3) as sender:
            with pytest.raises(TransportError, match="'first'"):
                await sender.send(b"body", 1)

        assert len(there.bodies) == 2


@pytest.mark.parametrize("compression", ["none", "gzip"])
async def test_a_cancelled_send_cancels_the_call_at_the_collector(compression: str) -> None:
    async with grpc_collector(Reply(silent=True)) as there:
        async with exporter(there.url, compression=compression) as sender:
            call = asyncio.ensure_future(sender.send(b"body", 1))
            await there.until(requests=1)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await sender.send(b"next", 1)
            await there.until(cancelled=1)

        assert there.bodies == [b"body", b"next"]


@pytest.mark.parametrize("compression", ["none", "gzip"])
async def test_closing_under_a_call_is_an_error_and_no_cancellation(compression: str) -> None:
    async with grpc_collector(Reply(silent=True)) as there:
        sender = OTLPGrpcSpanExporter(there.url, compression=compression)
        call = asyncio.ensure_future(sender.send(b"body", 1))
        await there.until(requests=1)
        async with asyncio.timeout(0.2):
            await sender.aclose()
        with pytest.raises(TransportError) as caught:
            await call

        assert caught.value.error_type == "CANCELLED"
        with pytest.raises(TransportError, match="closed"):
            await sender.send(b"body", 1)


async def test_closing_beside_a_black_hole_is_quick() -> None:
    async with plain_server(stay_silent) as url:
        sender = OTLPGrpcSpanExporter(url)
        call = asyncio.ensure_future(sender.send(b"body", 1))
        await asyncio.sleep(0.1)
        async with asyncio.timeout(0.2):
            await sender.aclose()
        with pytest.raises(TransportError):
            await call


@pytest.mark.parametrize("compression", ["none", "gzip"])
async def test_a_shutdown_interrupts_retries_and_calls(compression: str) -> None:
    script = [Reply(silent=True), *[refuse("UNAVAILABLE", retry_delay=5)] * 100]
    async with grpc_collector(*script) as there:
        processor = BatchSpanProcessor(
            OTLPGrpcSpanExporter(there.url, compression=compression), max_export_batch_size=5
        )
        end_spans(processor, 10)

        start = time.monotonic()
        assert await processor.ashutdown(0.3) is False

        assert time.monotonic() - start < 1.5
        assert processor.statistics().dropped == {"timeout": 10}


@pytest.mark.skipif(sys.platform != "linux", reason="TCP_USER_TIMEOUT and /proc are Linux's")
async def test_a_connection_that_nobody_confirms_is_given_up_by_the_kernel_in_time() -> None:
    async with grpc_collector() as there, exporter(there.url) as sender:
        await sender.send(b"body", 1)
        port = int(there.address.rpartition(":")[2])

        limits = [limit for limit in map(user_timeout_to(port), open_descriptors()) if limit is not None]
        assert limits == [10_000]


def open_descriptors() -> list[int]:
    return [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]


def user_timeout_to(port: int) -> Callable[[int], int | None]:
    def look(descriptor: int) -> int | None:
        try:
            there = socket.socket(fileno=descriptor)
        except OSError:
            return None
        try:
            name = there.getpeername()
        except OSError:
            name = None
        try:
            if isinstance(name, tuple) and name[1] == port:
                return there.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
            return None
        finally:
            there.detach()

    return look
