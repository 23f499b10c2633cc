"""An autonomic loop (MAPE-K) in asyncio in which every cycle is a trace.

This facade gives out the public names and defines nothing. Names that bring heavy packages with
them are imported when they are first used (PEP 562).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = [
    "Action",
    "BatchSpanProcessor",
    "Cycle",
    "Evidence",
    "Finding",
    "Insight",
    "Key",
    "Knowledge",
    "NodeId",
    "OTLPGrpcSpanExporter",
    "OTLPSpanExporter",
    "Observation",
    "Outcome",
    "Rejection",
    "Runtime",
    "Settings",
    "SpanGroup",
    "SpooledExporter",
    "TracerProvider",
    "Trigger",
    "analyze",
    "execute",
    "learn",
    "monitor",
    "plan",
    "traced",
    "tracing",
]

_HOMES = {
    "trace": ("Key", "NodeId", "SpanGroup", "TracerProvider", "traced"),
    "export": ("BatchSpanProcessor", "OTLPGrpcSpanExporter", "OTLPSpanExporter", "SpooledExporter"),
    "loop": (
        "Action", "Cycle", "Evidence", "Finding", "Insight", "Knowledge", "Observation", "Outcome",
        "Rejection", "Runtime", "Trigger", "analyze", "execute", "learn", "monitor", "plan",
    ),
    "config": ("Settings",),
    "service": ("tracing",),
}  # fmt: skip
_HOME = {name: home for home, names in _HOMES.items() for name in names}

if TYPE_CHECKING:
    from .config import Settings
    from .export import BatchSpanProcessor, OTLPGrpcSpanExporter, OTLPSpanExporter, SpooledExporter
    from .loop import (
        Action,
        Cycle,
        Evidence,
        Finding,
        Insight,
        Knowledge,
        Observation,
        Outcome,
        Rejection,
        Runtime,
        Trigger,
        analyze,
        execute,
        learn,
        monitor,
        plan,
    )
    from .service import tracing
    from .trace import Key, NodeId, SpanGroup, TracerProvider, traced


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
