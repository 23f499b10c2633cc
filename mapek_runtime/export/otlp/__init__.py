"""OTLP: how requests get to a collector, over HTTP with aiohttp and over gRPC with grpc.aio.

`options` is what both exporters read from arguments and environment. Each transport is imported when it
is first used, so that a program loads only the one it needs. Knows bytes and counts; knows no spans.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .grpc_exporter import OTLPGrpcSpanExporter
    from .http_exporter import OTLPSpanExporter

__all__ = ["OTLPGrpcSpanExporter", "OTLPSpanExporter"]


def __getattr__(name: str) -> object:
    if name == "OTLPSpanExporter":
        from .http_exporter import OTLPSpanExporter

        return OTLPSpanExporter
    if name == "OTLPGrpcSpanExporter":
        from .grpc_exporter import OTLPGrpcSpanExporter

        return OTLPGrpcSpanExporter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
