"""Export: from the ring to a collector, with every span accounted for.

Knows `trace`; knows nothing of loops, phases and domains. `batch` is the SDK's interface in front,
`task` the asyncio task behind it, `encode` writes OTLP, and each exporter is a file. Transports are
imported when their names are first used (PEP 562), so that a program loads only the one it needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .account import SinkStatistics, Statistics
from .batch import BatchSpanProcessor
from .console import ConsoleSpanExporter
from .encode.request import encode_spans
from .memory import MemorySpanExporter
from .sink import ByteExporter
from .spool import SpooledExporter

if TYPE_CHECKING:
    from .otlp import OTLPGrpcSpanExporter, OTLPSpanExporter

__all__ = [
    "BatchSpanProcessor",
    "ByteExporter",
    "ConsoleSpanExporter",
    "MemorySpanExporter",
    "OTLPGrpcSpanExporter",
    "OTLPSpanExporter",
    "SinkStatistics",
    "SpooledExporter",
    "Statistics",
    "encode_spans",
]


def __getattr__(name: str) -> object:
    if name == "OTLPSpanExporter":
        from .otlp.http_exporter import OTLPSpanExporter

        return OTLPSpanExporter
    if name == "OTLPGrpcSpanExporter":
        from .otlp.grpc_exporter import OTLPGrpcSpanExporter

        return OTLPGrpcSpanExporter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
