"""The embedded trace store: a sink of the batch task, and answers to questions about what it kept.

Knows `export` and its exporter protocol, and OTLP; knows nothing of HTTP and of the loop. `writer` puts
requests into SQLite, `query` reads what people ask, `search` finds it, `receiver` takes what others send.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .store import TraceStore
    from .writing import StoreStatistics

__all__ = ["StoreStatistics", "TraceStore"]


def __getattr__(name: str) -> object:
    # Late: whoever reads a query or decodes a request need not load regular expressions and SQLite.
    if name == "TraceStore":
        from .store import TraceStore

        return TraceStore
    if name == "StoreStatistics":
        from .writing import StoreStatistics

        return StoreStatistics
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
