"""A gRPC collector that follows a script, in the test's own loop, and the exporter pointed at it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc  # type: ignore[import-untyped]
import grpc.aio  # type: ignore[import-untyped]
from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from mapek_runtime.export.otlp.grpc_exporter import OTLPGrpcSpanExporter
from mapek_runtime.export.retry import Backoff

__all__ = [
    "METHOD",
    "QUICK",
    "GrpcCollector",
    "Reply",
    "Serve",
    "exporter",
    "grpc_collector",
    "plain_server",
    "refuse",
]

METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
QUICK = Backoff(initial=0.01, maximum=0.02)


@dataclass(frozen=True)
class Reply:
    """One answer: a body with OK, or a status; `silent` is none at all."""

    body: bytes = b""
    status: grpc.StatusCode = grpc.StatusCode.OK
    details: str = ""
    trailers: tuple[tuple[str, str | bytes], ...] = ()
    silent: bool = False


def refuse(status: str, details: str = "", *, retry_delay: float | None = None) -> Reply:
    """A status other than OK, with a RetryInfo when there is a delay."""
    code = grpc.StatusCode[status]
    trailers: tuple[tuple[str, str | bytes], ...] = ()
    if retry_delay is not None:
        info, packed = RetryInfo(retry_delay=Duration(nanos=round(retry_delay * 1e9) % 10**9)), Packed()
        info.retry_delay.seconds = int(retry_delay)
        packed.Pack(info)
        told = Status(code=code.value[0], message=details, details=[packed])
        trailers = (("grpc-status-details-bin", told.SerializeToString()),)
    return Reply(status=code, details=details, trailers=trailers)


@dataclass
class GrpcCollector(grpc.GenericRpcHandler):  # type: ignore[misc] # grpcio has no types
    """Answers from its script, then with OK."""

    script: list[Reply] = field(default_factory=list)
    method: str = METHOD
    address: str = ""
    bodies: list[bytes] = field(default_factory=list)
    metadata: list[dict[str, Any]] = field(default_factory=list)
    peers: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    cancelled: int = 0
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def until(self, *, requests: int = 0, cancelled: int = 0) -> None:
        """Wait until so many requests have come, and so many were cancelled; at most ten seconds."""
        async with asyncio.timeout(10), self.changed:
            await self.changed.wait_for(lambda: len(self.bodies) >= requests and self.cancelled >= cancelled)

    @property
    def url(self) -> str:
        """The address as an insecure endpoint."""
        return f"http://{self.address}"

    @property
    def names(self) -> list[str]:
        """The names of all spans received."""
        return [
            span.name
            for body in self.bodies
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def service(self, details: Any) -> Any:
        """The handler of the one method there is."""
        return grpc.unary_unary_rpc_method_handler(self._export) if details.method == self.method else None

    async def _export(self, payload: bytes, context: Any) -> bytes:
        self.bodies.append(payload)
        self.metadata.append(dict(context.invocation_metadata()))
        self.peers.append(context.peer())
        self.times.append(time.monotonic())
        async with self.changed:
            self.changed.notify_all()
        reply = self.script.pop(0) if self.script else Reply()
        if reply.silent:
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                self.cancelled += 1
                async with self.changed:
                    self.changed.notify_all()
                raise
        if reply.status is not grpc.StatusCode.OK:
            await context.abort(reply.status, reply.details, reply.trailers)
        return reply.body


@asynccontextmanager
async def grpc_collector(
    *script: Reply,
    address: str = "127.0.0.1:0",
    credentials: Any = None,
    method: str = METHOD,
    options: Sequence[tuple[str, Any]] = (),
) -> AsyncIterator[GrpcCollector]:
    """A server on loopback, or on the Unix socket that `address` names."""
    told = GrpcCollector(list(script), method)
    options = (("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0), *options)
    server = grpc.aio.server(options=options)
    server.add_generic_rpc_handlers((told,))
    port = (
        server.add_insecure_port(address)
        if credentials is None
        else server.add_secure_port(address, credentials)
    )
    told.address = address if address.startswith("unix:") else f"127.0.0.1:{port}"
    await server.start()
    try:
        yield told
    finally:
        await server.stop(None)
        # What was cut short still reports to this loop, which the end of the test closes.
        await asyncio.sleep(0.05)


@asynccontextmanager
async def exporter(endpoint: str, **options: Any) -> AsyncIterator[OTLPGrpcSpanExporter]:
    """An exporter that tries again at once, and is closed at the end."""
    options.setdefault("backoff", QUICK)
    made = OTLPGrpcSpanExporter(endpoint, **options)
    try:
        yield made
    finally:
        await made.aclose()


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[None, None, None]]


@asynccontextmanager
async def plain_server(serve: Serve) -> AsyncIterator[str]:
    """The endpoint of a TCP server that need not speak gRPC."""
    tasks: set[asyncio.Task[None]] = set()

    async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await serve(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            writer.close()

    server = await asyncio.start_server(keep, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
