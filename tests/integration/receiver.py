"""A collector that takes everything, over OTLP/HTTP and OTLP/gRPC, and keeps the ids of the spans."""

from __future__ import annotations

import asyncio
import gzip
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc  # type: ignore[import-untyped]
import grpc.aio  # type: ignore[import-untyped]
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

__all__ = ["Receiver", "free_port", "receiver", "silence", "until"]

METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
MOST_BYTES = 64 << 20


@dataclass
class Receiver:
    """What has come, and where to send it."""

    http: str = ""
    """The full address for OTLP/HTTP."""
    grpc: str = ""
    """The address for OTLP/gRPC."""
    ids: list[bytes] = field(default_factory=list)
    """Trace id and span id of every span, as often as it came."""
    ways: set[str] = field(default_factory=set)
    """Which of the two it came by."""

    def endpoint(self, protocol: str) -> str:
        """The address for a protocol as `OTEL_EXPORTER_OTLP_PROTOCOL` names it."""
        return self.grpc if protocol == "grpc" else self.http

    def take(self, payload: bytes, way: str) -> bytes:
        """Keep the ids of a request; gives the answer."""
        request = ExportTraceServiceRequest.FromString(payload)
        self.ways.add(way)
        self.ids += [
            span.trace_id + span.span_id
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
        return ExportTraceServiceResponse().SerializeToString()


class _Grpc(grpc.GenericRpcHandler):  # type: ignore[misc] # grpcio has no types
    def __init__(self, told: Receiver) -> None:
        self._told = told

    def service(self, details: Any) -> Any:
        if details.method != METHOD:
            return None
        return grpc.unary_unary_rpc_method_handler(self._export)

    async def _export(self, payload: bytes, _context: Any) -> bytes:
        return self._told.take(payload, "grpc")


@asynccontextmanager
async def receiver(port: int = 0) -> AsyncIterator[Receiver]:
    """Receive on both, on ports that the system chooses; over HTTP on `port` where one is given."""
    told = Receiver()

    async def post(request: web.Request) -> web.Response:
        body = await request.read()
        if body[:2] == b"\x1f\x8b":
            body = gzip.decompress(body)
        return web.Response(body=told.take(body, "http/protobuf"), content_type="application/x-protobuf")

    app = web.Application(client_max_size=MOST_BYTES)
    app.router.add_post("/v1/traces", post)
    runner = web.AppRunner(app, auto_decompress=False, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", MOST_BYTES)])
    server.add_generic_rpc_handlers((_Grpc(told),))
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        told.http = f"http://127.0.0.1:{runner.addresses[0][1]}/v1/traces"
        told.grpc = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        yield told
    finally:
        await server.stop(0)
        await runner.cleanup()


@asynccontextmanager
async def silence() -> AsyncIterator[str]:
    """An address where connections are taken and nothing is ever said."""
    held: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.add(writer)
        try:
            while await reader.read(1 << 16):
                pass
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in held:
            writer.close()
        await asyncio.sleep(0)


def free_port() -> int:
    """A port on which nobody listens now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    return port


async def until(holds: Callable[[], bool], limit: float = 20.0) -> bool:
    """Wait until something holds; False when it does not within `limit` seconds."""
    try:
        async with asyncio.timeout(limit):
            while not holds():  # noqa: ASYNC110 - what is waited for happens in other places
                await asyncio.sleep(0.01)
    except TimeoutError:
        return False
    return True
