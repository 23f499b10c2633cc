"""A collector that only counts: OTLP/HTTP and OTLP/gRPC, in a process of its own.

`python -m benchmarks.receiver` prints its two ports and serves until its standard input is closed.
`GET /count` gives the number of spans received so far, `GET /reset` starts again from 0.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import grpc  # type: ignore[import-untyped]
import grpc.aio  # type: ignore[import-untyped]
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

__all__ = ["count_spans", "serve"]

METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
received = {"spans": 0, "requests": 0, "bytes": 0}


def count_spans(payload: bytes) -> int:
    """The number of spans in an OTLP request, by decoding it."""
    request = ExportTraceServiceRequest.FromString(payload)
    return sum(len(scope.spans) for resource in request.resource_spans for scope in resource.scope_spans)


def _take(payload: bytes) -> None:
    received["spans"] += count_spans(payload)
    received["requests"] += 1
    received["bytes"] += len(payload)


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
            self._answer(head.split(" ", 2)[1], body)

    def _answer(self, path: str, body: bytes) -> None:
        answer = b""
        if path == "/count":
            answer = json.dumps(received).encode()
        elif path == "/reset":
            received.update(spans=0, requests=0, bytes=0)
        else:
            _take(body)
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
        _take(payload)
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
