"""The connections of OTLP/HTTP: sockets, proxies, who gets which header, threads and turns of the loop."""

from __future__ import annotations

import asyncio
import base64
import re
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mapek_runtime.errors import TransportError
from mapek_runtime.export.batch import BatchSpanProcessor
from mapek_runtime.export.otlp.http_exporter import OTLPSpanExporter
from mapek_runtime.export.otlp.options import MAX_REQUEST_BYTES
from mapek_runtime.export.retry import Backoff
from tests.integration.collector import answer, collector, end_spans, exporter


async def test_a_unix_socket(tmp_path: Path) -> None:
    async with collector(path=str(tmp_path / "c.sock")) as there, exporter(there.url) as sender:
        await sender.send(b"one", 1)
        await sender.send(b"two", 1)

        assert there.bodies == [b"one", b"two"]
        assert there.heads[0].startswith("POST /v1/traces HTTP/1.1\r\nHost: localhost")
        assert there.connections == 1


async def test_a_unix_socket_that_nobody_serves_is_named(tmp_path: Path) -> None:
    async with exporter(f"unix://{tmp_path}/none.sock", timeout=0.2) as sender:
        with pytest.raises(TransportError, match=r"unix://.*/none\.sock: .*No such file") as caught:
            await sender.send(b"body", 1)

    assert caught.value.retryable


async def test_an_address_without_a_path_is_asked_for_its_root() -> None:
    async with collector() as there, exporter(there.url.removesuffix("/v1/traces")) as sender:
        await sender.send(b"body", 1)

        assert there.heads[0].startswith("POST / HTTP/1.1\r\n")


async def test_a_proxy_of_the_environment_is_asked_and_gets_its_own_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with collector() as proxy:
        monkeypatch.setenv(
            "HTTP_PROXY", proxy.url.replace("http://", "http://u:pw@").removesuffix("/v1/traces")
        )
        async with exporter("http://collector.invalid:4318/v1/traces") as sender:
            await sender.send(b"body", 1)

        assert proxy.heads[0].startswith("POST http://collector.invalid:4318/v1/traces HTTP/1.1\r\n")
        assert f"Proxy-Authorization: Basic {base64.b64encode(b'u:pw').decode()}\r\n" in proxy.heads[0]
        assert "\r\nauthorization" not in proxy.heads[0].lower()


async def test_a_proxy_that_refuses_is_told_apart_from_the_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    async def deny(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer(407))

    async with collector(greeting=deny) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url.replace("http://", "http://u:hunter2@"))
        async with exporter("https://collector.invalid/v1/traces") as sender:
            with pytest.raises(TransportError, match="the proxy answered 407") as caught:
                await sender.send(b"body", 1)

    assert (caught.value.status_code, caught.value.retryable) == (407, False)
    assert "hunter2" not in str(caught.value)


async def test_what_lies_in_netrc_is_not_given_to_the_collector(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NETRC", write(tmp_path / "netrc", "machine 127.0.0.1 login me password hunter2\n"))
    async with collector() as there, exporter(there.url) as sender:
        await sender.send(b"body", 1)

        assert "authorization" not in there.heads[0].lower()


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


async def test_a_header_of_the_user_replaces_ours_but_for_what_the_protocol_says() -> None:
    headers = {
        "User-Agent": "mine",
        "Authorization": "Bearer x",
        "Content-Length": "3",
        "content-type": "text/x",
    }
    async with collector() as there:
        async with exporter(there.url.replace("//", "//user:pw@"), headers=headers) as sender:
            await sender.send(b"a longer body", 1)

        head = there.heads[0].lower()
        assert there.bodies == [b"a longer body"]
        assert re.findall(r"user-agent: (.*)\r", head) == ["mine"]
        assert re.findall(r"authorization: (.*)\r", head) == ["bearer x"]
        assert re.findall(r"content-type: (.*)\r", head) == ["application/x-protobuf"]
        assert re.findall(r"accept-encoding: (.*)\r", head) == ["identity"]


async def test_a_request_over_the_limit_is_not_sent() -> None:
    async with collector() as there, exporter(there.url) as sender:
        with pytest.raises(TransportError, match=r"67108865 bytes is over the limit") as caught:
            await sender.send(bytes(MAX_REQUEST_BYTES + 1), 1)

        assert caught.value.error_type == "request_too_large"
        assert there.connections == 0


async def test_a_redirect_is_not_followed_so_that_headers_stay_where_they_belong() -> None:
    async with collector() as elsewhere, collector(answer(307, f"Location: {elsewhere.url}")) as there:
        async with exporter(there.url, headers={"x-token": "s3cret"}) as sender:
            with pytest.raises(TransportError, match="307: redirects are not followed"):
                await sender.send(b"body", 1)

        assert elsewhere.connections == 0


async def test_compression_ends_at_the_deadline_when_the_program_has_taken_every_thread() -> None:
    go_on = threading.Event()
    # The loop shuts its executor down at its end.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    job = asyncio.get_running_loop().run_in_executor(None, go_on.wait)
    async with collector() as there, exporter(there.url, compression="gzip", timeout=0.1) as sender:
        with pytest.raises(TransportError, match=r"no answer within 0\.1 s"):
            await sender.send(b"x" * 100_000, 1)
        go_on.set()
        await job

        assert there.connections == 0


async def test_closing_ends_a_send_between_two_attempts() -> None:
    tried = asyncio.Event()

    async def unavailable(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer(503))
        tried.set()

    async with collector(greeting=unavailable) as there:
        sender = OTLPSpanExporter(there.url, timeout=30, backoff=Backoff(initial=0.05, maximum=0.05))
        sending = asyncio.create_task(sender.send(b"body", 1))
        await tried.wait()
        await sender.aclose()

        async with asyncio.timeout(5):
            with pytest.raises(TransportError) as caught:
                await sending
        assert caught.value.error_type == "already_shutdown"


async def test_one_export_takes_few_turns_of_the_loop() -> None:
    # A turn of a loop with thousands of busy tasks takes 100 ms and more, so each one counts.
    async with collector() as there, exporter(there.url) as sender:
        await sender.send(b"body", 1)
        loop, turns, over = asyncio.get_running_loop(), 0, False

        def turn() -> None:
            nonlocal turns
            turns += 1
            if not over:
                loop.call_soon(turn)

        loop.call_soon(turn)
        await sender.send(b"body", 1)
        over = True

        # Three of ours, and what the collector, which lives on the same loop, needs to read and answer.
        assert turns <= 8


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_exports_need_no_thread(loop: str, tmp_path: Path) -> None:
    program = """
import asyncio, os, sys, threading
from mapek_runtime.export.otlp.http_exporter import OTLPSpanExporter
def native():
    return len(os.listdir("/proc/self/task"))
async def main():
    for url in sys.argv[2:]:
        exporter = OTLPSpanExporter(url)
        # uvloop looks up a numeric address too, in the four threads of libuv.
        allowed = alone + 4 * (sys.argv[1] == "uvloop" and url.startswith("http"))
        for number in range(50):
            await exporter.send(b"x" * 10_000, 1)
            assert threading.enumerate() == [threading.main_thread()], threading.enumerate()
            assert native() <= allowed, native()
        await exporter.aclose()
alone = native()
if sys.argv[1] == "uvloop":
    import uvloop
    uvloop.run(main())
else:
    asyncio.run(main())
"""
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    async with collector() as tcp, collector(path=str(tmp_path / "c.sock")) as unix:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, loop, unix.url, tcp.url, stderr=asyncio.subprocess.PIPE
        )
        _, errors = await asyncio.wait_for(process.communicate(), 60)

        assert errors.decode() == ""
        assert process.returncode == 0
        assert (len(unix.bodies), len(tcp.bodies)) == (50, 50)


async def test_a_numeric_address_needs_no_thread_behind_the_processor_either() -> None:
    before = set(threading.enumerate())
    async with collector() as there:
        processor = BatchSpanProcessor(OTLPSpanExporter(there.url))
        end_spans(processor, 2_000)
        assert await processor.ashutdown(10)

        assert set(threading.enumerate()) <= before
        assert len(there.names) == 2_000
