"""The fault matrix of OTLP/HTTP: what goes wrong on the wire, and what comes of it.

For each fault: how often it is tried, what is counted, and the one line that is logged. The address and
the headers hold a secret in every row, and it is in none of the lines.
"""

from __future__ import annotations

import asyncio
import gzip
import logging
import re
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from mapek_runtime.errors import TransportError
from mapek_runtime.export.batch import BatchSpanProcessor
from mapek_runtime.export.otlp.http_exporter import OTLPSpanExporter
from mapek_runtime.export.otlp.options import MAX_RESPONSE_BYTES
from tests.integration.collector import OK, QUICK, Reply, Scene, answer, collector, end_spans

SPANS = 5
DEADLINE = 0.3
PATIENCE = 10.0
"""The timeout where nothing is expected to reach it."""
UNTIL_THE_DEADLINE = -1
"""More attempts than one; how many depends on the jitter."""


@dataclass(frozen=True)
class Fault:
    """One row: what the collector does, and what is expected of the exporter."""

    name: str
    script: tuple[Reply, ...] = ()
    then: Reply = OK
    greeting: Scene | None = None
    attempts: int = 1
    dropped: Mapping[str, int] = field(default_factory=dict)
    said: str | None = None
    """A pattern for what the line says after the address; None for no line at all."""


def refused(name: str, reply: Reply, reason: str, said: str, *, attempts: int = 1) -> Fault:
    """A fault that stays, and all spans are lost to it."""
    return Fault(name, then=reply, dropped={reason: SPANS}, said=said, attempts=attempts)


def passing(name: str, *script: Reply) -> Fault:
    """A fault that passes, and no span is lost."""
    return Fault(name, script=script, attempts=len(script) + 1)


def raw(text: str, body: bytes = b"") -> bytes:
    return text.replace("\n", "\r\n").encode() + body


def then_close(reply: bytes) -> Scene:
    async def scene(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(reply)

    return scene


def without_reading(reply: bytes) -> Scene:
    return then_close(reply)


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def black_hole(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


def drip(start: str, piece: bytes) -> Scene:
    async def scene(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(raw(start))
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.02)

    return scene


def flood(start: str) -> Scene:
    async def scene(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(raw(start))
        while True:
            writer.write(b"x" * 65_536)
            await writer.drain()

    return scene


HALF_BODY = answer(200, body=b"12345678")[:-4]
BOMB = answer(200, "Content-Encoding: gzip", body=gzip.compress(bytes(MAX_RESPONSE_BYTES + 1)))

FAULTS = [
    *[
        Fault(f"{status} is a success", script=(answer(status),), attempts=1)
        for status in (200, 201, 202, 206)
    ],
    Fault("204 without a body is a success", script=(raw("HTTP/1.1 204 No Content\n\n"),)),
    Fault(
        "100 and 103 announce the answer",
        script=(raw("HTTP/1.1 100 Continue\n\nHTTP/1.1 103 Early\n\n") + OK,),
    ),
    *[
        refused(f"{status} is final", answer(status), str(status), f"answered {status}$")
        for status in (400, 401, 403, 404, 405, 408, 409, 413, 414, 415, 422, 431, 500, 501, 505, 599)
    ],
    *[
        refused(
            f"{status} is not followed",
            answer(status, "Location: /elsewhere"),
            str(status),
            f"answered {status}: redirects are not followed$",
        )
        for status in (300, 301, 302, 303, 307, 308)
    ],
    *[passing(f"{status} passes", answer(status), answer(status)) for status in (429, 502, 503, 504)],
    *[
        refused(
            f"{status} stays",
            answer(status),
            str(status),
            rf"answered {status}, after \d+ attempts$",
            attempts=UNTIL_THE_DEADLINE,
        )
        for status in (429, 502, 503, 504)
    ],
    passing("Retry-After nobody can read", answer(503, "Retry-After: soon")),
    passing("Retry-After below nothing", answer(503, "Retry-After: -5")),
    passing("Retry-After in the past", answer(503, "Retry-After: Thu, 01 Jan 1970 00:00:00 GMT")),
    refused(
        "Retry-After at once, for ever",
        answer(503, "Retry-After: 0"),
        "503",
        r"answered 503, after \d{1,3} attempts$",
        attempts=UNTIL_THE_DEADLINE,
    ),
    refused("Retry-After later than the deadline", answer(429, "Retry-After: 60"), "429", "answered 429$"),
    refused(
        "Retry-After at a date later than the deadline",
        answer(429, "Retry-After: Fri, 31 Dec 2999 23:59:59 GMT"),
        "429",
        "answered 429$",
    ),
    passing("hang-ups pass", None, None),
    passing("half heads pass", then_close(b"HTTP/1.1 200 O"), then_close(b"HTTP/1.1 200 OK\r\nConte")),
    passing("half answers pass", then_close(HALF_BODY), then_close(HALF_BODY)),
    passing("resets pass", reset, reset),
    refused(
        "hang-ups stay",
        None,
        "ServerDisconnectedError",
        "Disconnected.*attempts$",
        attempts=UNTIL_THE_DEADLINE,
    ),
    refused(
        "half answers stay",
        then_close(HALF_BODY),
        "ClientPayloadError",
        r"ClientPayloadError, after \d+ attempts$",
        attempts=UNTIL_THE_DEADLINE,
    ),
    refused(
        "resets stay",
        reset,
        "ClientOSError",
        r"ClientOSError: Connection reset by peer, after \d+ attempts$",
        attempts=UNTIL_THE_DEADLINE,
    ),
    Fault(
        "it hangs up before it reads",
        greeting=then_close(b""),
        attempts=UNTIL_THE_DEADLINE,
        dropped={"ServerDisconnectedError": SPANS},
        said="ServerDisconnectedError, after",
    ),
    Fault(
        "it answers 413 before it reads",
        greeting=then_close(answer(413, "Connection: close")),
        dropped={"413": SPANS},
        said="answered 413$",
    ),
    Fault(
        "it speaks no HTTP",
        greeting=then_close(b"SSH-2.0-OpenSSH_9.2\r\n"),
        dropped={"ClientResponseError": SPANS},
        said="the answer is not HTTP; is it the right port",
    ),
    refused(
        "a head without end", flood("HTTP/1.1 200 OK\nX: "), "ClientResponseError", "the answer is not HTTP"
    ),
    refused(
        "chunks that are none",
        raw("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\nzz\n"),
        "ClientResponseError",
        "the answer is not HTTP",
    ),
    Fault(
        "a web page",
        script=(answer(200, body=b"<html>", kind="text/html"),),
        said="answered 200 with a web page; is it a collector",
    ),
    Fault("an answer of another kind", script=(answer(200, body=b"ok", kind="text/plain"),)),
    Fault("json that is none", script=(answer(200, body=b"{", kind="application/json"),)),
    Fault("protobuf that is none", script=(answer(200, body=b"\xff\xff"),)),
    refused(
        "a failure with a page of another kind",
        answer(500, body=b"<html>hunter2", kind="text/html"),
        "500",
        "answered 500$",
    ),
    refused(
        "an answer over the limit",
        answer(200, body=b"x" * (MAX_RESPONSE_BYTES + 1)),
        "response_too_large",
        "with status 200 is over the limit of 4194304 bytes$",
    ),
    refused(
        "a failure over the limit",
        answer(503, body=b"x" * (MAX_RESPONSE_BYTES + 1)),
        "response_too_large",
        "with status 503 is over the limit",
    ),
    refused("an answer without end", flood("HTTP/1.1 200 OK\n\n"), "response_too_large", "over the limit"),
    refused("an answer that unfolds over the limit", BOMB, "response_too_large", "over the limit"),
    refused("no answer ever", b"", "timeout", r"no answer within 0\.3 s$"),
    Fault(
        "it accepts and does nothing",
        greeting=black_hole,
        dropped={"timeout": SPANS},
        said=r"no answer within 0\.3 s$",
    ),
    refused("a head in drops", drip("HTTP/1.1 200 OK\nX-Y: ", b"z"), "timeout", "no answer within"),
    refused("a body in drops", drip("HTTP/1.1 200 OK\n\n", b"z"), "timeout", "no answer within"),
]


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


async def export(url: str, timeout: float = DEADLINE) -> BatchSpanProcessor:
    """Export spans to where the fault is; gives the processor, which is shut down."""
    secret = url.replace("http://", "http://user:hunter2@") + "?key=hunter3"
    sender = OTLPSpanExporter(secret, headers={"x-token": "hunter4"}, timeout=timeout, backoff=QUICK)
    processor = BatchSpanProcessor(sender)
    end_spans(processor, SPANS)
    await processor.aforce_flush(10)
    await processor.ashutdown(10)
    return processor


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
async def test_a_fault_on_the_wire(fault: Fault, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="mapek_runtime")
    async with collector(*fault.script, then=fault.then, greeting=fault.greeting) as there:
        lasting = fault.attempts == UNTIL_THE_DEADLINE or "timeout" in fault.dropped
        processor = await export(there.url, DEADLINE if lasting else PATIENCE)

        statistics = processor.statistics()
        assert statistics.dropped == fault.dropped
        assert statistics.exported == SPANS - sum(fault.dropped.values())
        if fault.attempts == UNTIL_THE_DEADLINE:
            assert there.attempts > 1
        else:
            assert there.attempts == fault.attempts
        said = lines(caplog)
        assert len(said) == (fault.said is not None)
        if fault.said is not None:
            text = re.sub(r" \(count \d+\)$", "", said[0])
            assert there.url in text
            assert re.search(fault.said, text.partition(there.url)[2])
        assert "hunter" not in caplog.text


async def test_a_refused_connection_is_tried_until_the_deadline(caplog: pytest.LogCaptureFixture) -> None:
    async with collector() as there:
        pass
    processor = await export(there.url)

    assert processor.statistics().dropped == {"ClientConnectorError": SPANS}
    assert len(lines(caplog)) == 1
    assert re.search(r"ClientConnectorError: Connection refused, after \d+ attempts", caplog.text)
    assert "hunter" not in caplog.text


async def test_a_name_that_nobody_knows_is_tried_until_the_deadline(caplog: pytest.LogCaptureFixture) -> None:
    processor = await export("http://collector.invalid:4318/v1/traces")

    (reason,) = processor.statistics().dropped
    # A resolver that does not answer in time is as good as a name that it does not know.
    assert reason in {"ClientConnectorDNSError", "timeout"}
    assert len(lines(caplog)) == 1
    assert "http://collector.invalid:4318/v1/traces" in caplog.text
    assert "hunter" not in caplog.text


async def test_a_hang_up_in_the_middle_of_a_large_request_tells_no_secret() -> None:
    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1000)
        await reset(reader, writer)

    async with collector(greeting=half) as there:
        sender = OTLPSpanExporter(there.url + "?key=hunter2", timeout=0.8, backoff=QUICK)
        with pytest.raises(TransportError, match=r"ClientOSError: .*, after \d+ attempts") as caught:
            await sender.send(bytes(5_000_000), 1)
        await sender.aclose()

    assert "hunter2" not in str(caught.value)


async def test_an_answer_before_the_whole_request_does_not_spoil_the_connection() -> None:
    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"content-length" in head.lower()
        writer.write(answer(503))
        await writer.drain()
        await reader.read(1_000_000)

    greetings: list[Scene] = [early]
    async with collector() as there:
        inner = there.serve

        async def first_early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there.greeting = greetings.pop() if greetings else None
            await inner(reader, writer)

        there.serve = first_early  # type: ignore[method-assign]
        sender = OTLPSpanExporter(there.url, timeout=5, backoff=QUICK)
        await sender.send(b"x" * 10_000_000, 1)
        await sender.aclose()

        assert [len(body) for body in there.bodies] == [10_000_000]
        assert there.connections == 2


@pytest.mark.parametrize("close_after", [1, 2], ids=["every answer", "every other answer"])
async def test_a_connection_that_was_closed_meanwhile_costs_no_attempt(close_after: int) -> None:
    async def scene(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Answers, and hangs up as soon as the next request arrives on this connection.
        for _ in range(close_after):
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(re.search(rb"content-length: (\d+)", head.lower())[1]))  # type: ignore[index]
            writer.write(OK)
        await reader.read(1)

    async with collector(greeting=scene) as there:
        sender = OTLPSpanExporter(there.url, timeout=5, backoff=NoSecondAttempt())
        for _ in range(6):
            await sender.send(b"body", 1)
        await sender.aclose()

        assert there.connections == 6 // close_after


class NoSecondAttempt(type(QUICK)):  # type: ignore[misc]
    """A backoff that nobody may ask."""

    def delay(self, *args: object, **options: object) -> float:
        raise AssertionError("the exporter asked how long to wait")
