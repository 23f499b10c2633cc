"""A collector that follows a script, on a real socket, and the exporter pointed at it.

A reply of the script is what is written, or None for a hang-up, or `b""` for an answer that never
comes, or a scene: a coroutine function that plays with the connection, which is closed afterwards.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
)
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from mapek_runtime.export.otlp.http_exporter import OTLPSpanExporter
from mapek_runtime.export.retry import Backoff
from mapek_runtime.trace import TracerProvider

__all__ = [
    "OK",
    "QUICK",
    "RESOURCE",
    "Collector",
    "Reply",
    "Scene",
    "answer",
    "collector",
    "end_spans",
    "exporter",
]

Scene = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Reply = bytes | Scene | None

RESOURCE = Resource({"service.name": "test"})
QUICK = Backoff(initial=0.01, maximum=0.02)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def answer(status: int, *headers: str, body: bytes = b"", kind: str = "application/x-protobuf") -> bytes:
    lines = [f"HTTP/1.1 {status} Word", f"Content-Type: {kind}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@dataclass
class Collector:
    """Answers from its script, and with `then` when that is over; or only plays `greeting`."""

    script: list[Reply] = field(default_factory=list)
    then: Reply = OK
    greeting: Scene | None = None
    """What happens on every connection before anything is read."""
    url: str = ""
    heads: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    connections: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while self.greeting is None:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                length = next(
                    int(line[15:])
                    for line in head.split("\r\n")
                    if line.lower().startswith("content-length:")
                )
                self.bodies.append(await reader.readexactly(length))
                self.heads.append(head)
                self.times.append(time.monotonic())
                reply = self.script.pop(0) if self.script else self.then
                if reply is None:
                    return None
                if callable(reply):
                    return await reply(reader, writer)
                writer.write(reply)
            await self.greeting(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass
        finally:
            writer.close()

    @property
    def attempts(self) -> int:
        """How often somebody tried: a request each, or a connection that did not come to one."""
        return max(self.connections, len(self.bodies))

    @property
    def names(self) -> list[str]:
        """The names of all spans received."""
        requests = [ExportTraceServiceRequest.FromString(body) for body in self.bodies]
        return [
            span.name
            for request in requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


@asynccontextmanager
async def collector(
    *script: Reply,
    then: Reply = OK,
    greeting: Scene | None = None,
    tls: ssl.SSLContext | None = None,
    path: str | None = None,
) -> AsyncIterator[Collector]:
    """A collector on a free port, or on the Unix socket `path`."""
    told = Collector(list(script), then, greeting)
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        await told.serve(reader, writer)

    if path is not None:
        server = await asyncio.start_unix_server(serve, path)
        told.url = f"unix://{path}"
    else:
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
        scheme = "http" if tls is None else "https"
        told.url = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/traces"
    try:
        yield told
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def exporter(url: str, **options: Any) -> AsyncIterator[OTLPSpanExporter]:
    options.setdefault("backoff", QUICK)
    made = OTLPSpanExporter(url, **options)
    try:
        yield made
    finally:
        await made.aclose()


def end_spans(processor: Any, count: int, cls: type[sdk.TracerProvider] = TracerProvider) -> None:
    provider = cls(ALWAYS_ON, RESOURCE, shutdown_on_exit=False)
    provider.add_span_processor(processor)
    tracer = provider.get_tracer("test")
    for number in range(count):
        tracer.start_span(f"span-{number}").end()
