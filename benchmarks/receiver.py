"""A collector that only counts: OTLP/HTTP and OTLP/gRPC, in a process of its own.

`python -m benchmarks.receiver` prints its two ports and serves until its standard input is closed.
`GET /count` says what was received since the last reset, and at what cost. `GET /reset` starts again
from 0: with `?delay=0.3` each answer takes that long, with `?ids=1` every span's id is kept.

It shares the machine with what is measured, so it decodes a request only as far as the borders of the
spans; the first request of every run is decoded in full, and must give the same number.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import grpc  # type: ignore[import-untyped]
import grpc.aio  # type: ignore[import-untyped]
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

__all__ = ["Received", "count_spans", "serve", "span_id"]

METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
IDS = 28
"""Bytes at the beginning of a span that hold its two ids, as every exporter here writes it."""


@dataclass(slots=True)
class Received:
    """What has arrived since the last reset."""

    spans: int = 0
    """All of them, those that came twice included."""
    requests: int = 0
    size_bytes: int = 0
    repeated: int = 0
    """Spans that had been received before; without `ids`, those of requests received before."""
    distinct: int | None = None
    """How many different spans there are, if ids are kept."""
    cpu_s: float = 0.0
    """CPU time of this process."""
    busy_s: float = 0.0
    """Between the first request and the last."""


@dataclass(slots=True)
class _Run:
    delay: float = 0.0
    keep_ids: bool = False
    received: Received = field(default_factory=Received)
    ids: set[bytes] = field(default_factory=set)
    began: float = field(default_factory=time.process_time)
    first: float = 0.0


class _Collector:
    def __init__(self) -> None:
        self.run = _Run()

    def take(self, payload: bytes) -> None:
        run = self.run
        received = run.received
        now = time.perf_counter()
        spans = _borders(payload)
        if not received.requests:
            run.first = now
            assert len(spans) == count_spans(payload), "the spans of a request were not found"
        received.spans += len(spans)
        received.requests += 1
        received.size_bytes += len(payload)
        before = len(run.ids)
        if run.keep_ids:
            run.ids.update(map(span_id, spans))
            received.distinct = len(run.ids)
            received.repeated = received.spans - received.distinct
        elif spans:
            # A request that is tried again is the same one: the first span tells.
            run.ids.add(span_id(spans[0]))
            if len(run.ids) == before:
                received.repeated += len(spans)
        received.busy_s = time.perf_counter() - run.first

    def answer(self, target: str) -> bytes:
        address = urlsplit(target)
        query = parse_qs(address.query)
        if address.path == "/reset":
            self.run = _Run(
                delay=float(query.get("delay", ["0"])[0]), keep_ids=query.get("ids", ["0"])[0] == "1"
            )
        received = self.run.received
        received.cpu_s = time.process_time() - self.run.began
        return json.dumps(asdict(received)).encode()


_collector = _Collector()


def count_spans(payload: bytes) -> int:
    """The number of spans in an OTLP request, by decoding it."""
    request = ExportTraceServiceRequest.FromString(payload)
    return sum(len(scope.spans) for resource in request.resource_spans for scope in resource.scope_spans)


def span_id(span: bytes) -> bytes:
    """What tells a serialized span from every other: its trace id and its span id."""
    if span[:2] == b"\x0a\x10" and span[18:20] == b"\x12\x08":
        return span[:IDS]
    decoded = Span.FromString(span)
    return b"\x0a\x10" + decoded.trace_id + b"\x12\x08" + decoded.span_id


def _shallow() -> Any:
    """The request as a message that leaves its spans as bytes; the wire format is the same."""
    repeated = descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED
    file = descriptor_pb2.FileDescriptorProto(name="benchmark.proto", package="benchmark")
    for name, number, inner in (
        ("Request", 1, ".benchmark.Resource"),
        ("Resource", 2, ".benchmark.Scope"),
        ("Scope", 2, None),
    ):
        message = file.message_type.add(name=name)
        part = message.field.add(name="parts", number=number, label=repeated)
        if inner is None:
            part.type = descriptor_pb2.FieldDescriptorProto.TYPE_BYTES
        else:
            part.type, part.type_name = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE, inner
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("benchmark.Request"))


_ShallowRequest = _shallow()


def _borders(payload: bytes) -> Sequence[bytes]:
    request = _ShallowRequest.FromString(payload)
    return [span for resource in request.parts for scope in resource.parts for span in scope.parts]


class Http(asyncio.Protocol):
    """As much of HTTP/1.1 as an exporter uses; a framework here would be what is measured."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way to answer."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer every request that is complete."""
        self._data += data
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._data[:end]).decode("latin-1")
            length = 0
            for line in head.split("\r\n")[1:]:
                key, _, value = line.partition(":")
                if key.lower() == "content-length":
                    length = int(value)
            if len(self._data) < end + 4 + length:
                return
            body = bytes(self._data[end + 4 : end + 4 + length])
            del self._data[: end + 4 + length]
            method, target, _ = head.split(" ", 2)
            self._receive(method, target, body)

    def _receive(self, method: str, target: str, body: bytes) -> None:
        if method == "GET":
            self._answer(_collector.answer(target))
            return
        _collector.take(body)
        if _collector.run.delay:
            asyncio.get_running_loop().call_later(_collector.run.delay, self._answer, b"")
        else:
            self._answer(b"")

    def _answer(self, answer: bytes) -> None:
        self._transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: %d\r\n\r\n%s"
            % (len(answer), answer)
        )


class Grpc(grpc.GenericRpcHandler):  # type: ignore[misc] # grpcio has no types
    """The Export method, with the request as bytes."""

    def service(self, details: Any) -> Any:
        """The handler of the one method there is."""
        if details.method != METHOD:
            return None
        return grpc.unary_unary_rpc_method_handler(self._export)

    async def _export(self, payload: bytes, _context: Any) -> bytes:
        _collector.take(payload)
        if _collector.run.delay:
            await asyncio.sleep(_collector.run.delay)
        return ExportTraceServiceResponse().SerializeToString()


async def serve() -> None:
    """Serve until standard input is closed."""
    loop = asyncio.get_running_loop()
    http = await loop.create_server(Http, "127.0.0.1", 0)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Grpc(),))
    grpc_port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(json.dumps({"http": http.sockets[0].getsockname()[1], "grpc": grpc_port}), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    http.close()
    await server.stop(0)


if __name__ == "__main__":
    asyncio.run(serve())
