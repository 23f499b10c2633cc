"""A collector goes away; what it misses waits on disk, and arrives when it is back.

The processor that sends what waited is a second one, as after a restart of the program.
"""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider

from mapek_runtime import BatchSpanProcessor, OTLPSpanExporter, SpooledExporter


async def main(folder: Path) -> list[str]:
    """Play it, and give the names of the spans that arrived, in their order."""
    port, received = free_port(), list[str]()

    async with traced(port, folder, "first process") as processor:
        async with collector(port, received):
            end_spans(processor, "there", 3)
            await processor.aforce_flush(5)
        end_spans(processor, "away", 3)

    async with collector(port, received), traced(port, folder, "second process") as processor:
        end_spans(processor, "back", 3)
        await asyncio.sleep(0.2)
    return received


@asynccontextmanager
async def traced(port: int, folder: Path, name: str) -> AsyncIterator[BatchSpanProcessor]:
    """A processor with a spool in `folder`; its account is printed when it is closed."""
    exporter = OTLPSpanExporter(f"http://127.0.0.1:{port}/v1/traces")
    processor = BatchSpanProcessor(SpooledExporter(exporter, folder))
    processor.start()
    try:
        yield processor
    finally:
        await processor.ashutdown(2)
        now = processor.statistics()
        print(
            f"{name}: {now.ended} ended + {now.recovered} recovered = {now.exported} exported"
            f" + {sum(now.dropped.values())} dropped + {now.spooled} spooled"
        )


def end_spans(processor: BatchSpanProcessor, name: str, count: int) -> None:
    """End some spans, made by the provider of OpenTelemetry's SDK."""
    provider = TracerProvider(resource=Resource({"service.name": "shop"}), shutdown_on_exit=False)
    provider.add_span_processor(processor)
    for number in range(1, count + 1):
        with provider.get_tracer("shop").start_as_current_span(f"{name} {number}"):
            pass


@asynccontextmanager
async def collector(port: int, received: list[str]) -> AsyncIterator[None]:
    """Takes OTLP over HTTP and keeps the names of the spans."""

    async def take(request: web.Request) -> web.Response:
        asked = ExportTraceServiceRequest.FromString(await request.read())
        for resource in asked.resource_spans:
            received.extend(span.name for scope in resource.scope_spans for span in scope.spans)
        return web.Response(content_type="application/x-protobuf")

    app = web.Application()
    app.router.add_post("/v1/traces", take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield
    finally:
        await runner.cleanup()


def free_port() -> int:
    """A port of this machine that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        print("received:", ", ".join(asyncio.run(main(Path(folder)))))
