"""What `benchmarks.export` compares: ways to bring spans from an asyncio program to a collector.

Each sender is a tracer with everything behind it at its default settings, and how it is flushed and
shut down. Beside the whole ones stand parts of them, which stop short of the wire: the difference
between two of them is what a piece costs.
"""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import Tracer

from .variants import Discard

__all__ = [
    "BEHIND_SDK",
    "NOTHING",
    "OURS_GRPC",
    "OURS_HTTP",
    "OURS_MADE",
    "OURS_NOT_ENCODED",
    "OURS_NOT_SENT",
    "SDK_GRPC",
    "SDK_HTTP",
    "SDK_MADE",
    "SDK_NOT_ENCODED",
    "SDK_NOT_SENT",
    "SENDERS",
    "Sender",
    "missing",
    "over_grpc",
    "sends",
]

NOTHING = "no tracing"
OURS_HTTP, OURS_GRPC = "mapek, HTTP", "mapek, gRPC"
BEHIND_SDK = "SDK's tracer + our processor"
OURS_MADE, OURS_NOT_ENCODED, OURS_NOT_SENT = "mapek, made", "mapek, queued", "mapek, encoded"
SDK_HTTP, SDK_GRPC = "SDK, HTTP", "SDK, gRPC"
SDK_MADE, SDK_NOT_ENCODED, SDK_NOT_SENT = "SDK, made", "SDK, queued", "SDK, encoded"
RESOURCE = Resource({"service.name": "benchmark"})
GRPC_MODULE = "mapek_runtime.export.otlp.grpc_exporter"


async def _nothing() -> None:
    """There is nothing to wait for."""


def _no_account() -> Mapping[str, int] | None:
    return None


class Sender(NamedTuple):
    """A tracer, or None where nothing is traced, and what is behind it."""

    tracer: Tracer | None
    flush: Callable[[], Awaitable[object]] = _nothing
    shutdown: Callable[[], Awaitable[object]] = _nothing
    account: Callable[[], Mapping[str, int] | None] = _no_account
    """What the sender itself says of its spans: ended, exported, dropped by reason, left."""


class _Bytes:
    """Takes OTLP bytes and sends them nowhere."""

    async def send(self, payload: bytes, count: int, /) -> None:
        """It has arrived."""

    async def aclose(self) -> None:
        """Nothing is open."""


class _Spans:
    """Takes spans and sends them nowhere, so that nothing is encoded."""

    async def export(self, spans: Sequence[sdk.ReadableSpan], /) -> None:
        """They have arrived."""

    async def aclose(self) -> None:
        """Nothing is open."""


class _StockSpans(SpanExporter):
    """The same for the processor of the SDK."""

    def export(self, spans: Sequence[sdk.ReadableSpan]) -> SpanExportResult:
        """They have arrived."""
        return SpanExportResult.SUCCESS


class _StockBytes(SpanExporter):
    """Encodes and serializes as the exporters of the SDK do, and sends nothing."""

    def export(self, spans: Sequence[sdk.ReadableSpan]) -> SpanExportResult:
        """They have arrived."""
        from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

        encode_spans(spans).SerializeToString()
        return SpanExportResult.SUCCESS


def _ours(exporter: Any, provider: sdk.TracerProvider | None = None) -> Sender:
    from mapek_runtime import BatchSpanProcessor, TracerProvider

    if provider is None:
        provider = TracerProvider(resource=RESOURCE)
    processor = BatchSpanProcessor(exporter)
    provider.add_span_processor(processor)

    def account() -> dict[str, int]:
        found = processor.statistics()
        return {
            "ended": found.ended,
            "exported": found.exported,
            **{f"dropped, {reason}": count for reason, count in found.dropped.items() if count},
            "left": found.queued + found.in_flight,
            "out of balance": int(not found.balanced),
        }

    return Sender(provider.get_tracer("benchmark"), processor.aforce_flush, processor.ashutdown, account)


def _our_http(port: int) -> Any:
    from mapek_runtime import OTLPSpanExporter

    return OTLPSpanExporter(f"http://127.0.0.1:{port}/v1/traces")


def _our_grpc(port: int) -> Any:
    module = importlib.import_module(GRPC_MODULE)
    return module.OTLPGrpcSpanExporter(f"http://127.0.0.1:{port}", insecure=True)


def _stock(exporter: SpanExporter) -> Sender:
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = sdk.TracerProvider(resource=RESOURCE)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return Sender(
        provider.get_tracer("benchmark"),
        # On the loop's own thread these would hold it up until they are done.
        lambda: asyncio.to_thread(provider.force_flush),
        lambda: asyncio.to_thread(provider.shutdown),
    )


def _stock_http(port: int) -> SpanExporter:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter(f"http://127.0.0.1:{port}/v1/traces")


def _stock_grpc(port: int) -> SpanExporter:
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter(f"http://127.0.0.1:{port}", insecure=True)


def _made(provider: sdk.TracerProvider) -> Sender:
    provider.add_span_processor(Discard())
    return Sender(provider.get_tracer("benchmark"))


def _our_provider() -> sdk.TracerProvider:
    from mapek_runtime import TracerProvider

    return TracerProvider(resource=RESOURCE)


SENDERS: dict[str, Callable[[int], Sender]] = {
    NOTHING: lambda _port: Sender(None),
    OURS_HTTP: lambda port: _ours(_our_http(port)),
    OURS_GRPC: lambda port: _ours(_our_grpc(port)),
    BEHIND_SDK: lambda port: _ours(_our_http(port), sdk.TracerProvider(resource=RESOURCE)),
    OURS_MADE: lambda _port: _made(_our_provider()),
    OURS_NOT_ENCODED: lambda _port: _ours(_Spans()),
    OURS_NOT_SENT: lambda _port: _ours(_Bytes()),
    SDK_HTTP: lambda port: _stock(_stock_http(port)),
    SDK_GRPC: lambda port: _stock(_stock_grpc(port)),
    SDK_MADE: lambda _port: _made(sdk.TracerProvider(resource=RESOURCE)),
    SDK_NOT_ENCODED: lambda _port: _stock(_StockSpans()),
    SDK_NOT_SENT: lambda _port: _stock(_StockBytes()),
}
"""Makes a sender to the collector on that port of the loopback; inside a running loop."""


def over_grpc(name: str) -> bool:
    """Whether that sender speaks gRPC, which has a port of its own."""
    return name in {OURS_GRPC, SDK_GRPC}


def sends(name: str) -> bool:
    """Whether anything of that sender is meant to arrive."""
    return name in {OURS_HTTP, OURS_GRPC, BEHIND_SDK, SDK_HTTP, SDK_GRPC}


def missing(name: str) -> str | None:
    """Why that sender cannot be measured here; None when it can."""
    if name == OURS_GRPC and importlib.util.find_spec(GRPC_MODULE) is None:
        return f"there is no {GRPC_MODULE}"
    if over_grpc(name) and importlib.util.find_spec("grpc") is None:
        return "grpcio is not installed"
    return None
