"""Configuration: every setting, frozen, and where its value came from.

Precedence: defaults < file < `OTEL_*` < `MAPEK_*` < flags. This layer knows values, a file and
variables; it knows no span, no loop and no plugin. What a section of a domain means it is told as a
struct.
"""

from __future__ import annotations

from .decode import Configuration, decode
from .schema import Leaf, describe_type, leaves, variable_of
from .settings import (
    CycleSamplingSettings,
    ExportSettings,
    GuardSettings,
    KnowledgeSettings,
    LogSettings,
    LoopSettings,
    NodeSettings,
    RunSettings,
    SamplerSettings,
    Settings,
    WatchSettings,
)
from .sources import Sources, Value, read_sources

__all__ = [
    "Configuration",
    "CycleSamplingSettings",
    "ExportSettings",
    "GuardSettings",
    "KnowledgeSettings",
    "Leaf",
    "LogSettings",
    "LoopSettings",
    "NodeSettings",
    "RunSettings",
    "SamplerSettings",
    "Settings",
    "Sources",
    "Value",
    "WatchSettings",
    "decode",
    "describe_type",
    "leaves",
    "read_sources",
    "variable_of",
]
