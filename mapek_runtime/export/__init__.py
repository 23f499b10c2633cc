"""Export: from the ring to a collector, with every span accounted for.

Knows `trace`; knows nothing of loops, phases and domains. `batch` is the SDK's interface in front,
`task` the asyncio task behind it, `encode` writes OTLP, and each exporter is a file. Exporters are
not imported here, so that a program loads only the transport that it uses.
"""

from .account import SinkStatistics, Statistics
from .batch import BatchSpanProcessor
from .encode import encode_spans
from .sink import ByteExporter

__all__ = ["BatchSpanProcessor", "ByteExporter", "SinkStatistics", "Statistics", "encode_spans"]
